"""nova's API, as an administrator or as the customer."""

from __future__ import annotations

import base64
import json
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from openstack.config import OpenStackConfig

from cellmove.services.session import Session, sign_in
from tests.lab.kit.places import OUTPUTS

MICROVERSION = "2.90"
BOOT_SECONDS = 180.0
POLL_SECONDS = 0.3


def lab_session(cloud: str = "lab", project: str | None = None) -> Session:
    """Sign in to a cloud of lab/clouds.yaml, in another project if need be."""
    clouds = OpenStackConfig(config_files=[str(OUTPUTS / "clouds.yaml")]).cloud_config
    if project is not None:
        clouds["clouds"][cloud]["auth"]["project_name"] = project
    with pytest.MonkeyPatch.context() as environment, tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "clouds.yaml")
        file.write_text(json.dumps(clouds))
        environment.setenv("OS_CLIENT_CONFIG_FILE", str(file))
        return sign_in(cloud, f"req-{uuid.uuid4()}")


class Nova:
    """Servers made by nova; every verb waits until nova is done with it.

    A verb that nova does not finish as it should fails the test with the server's fault.
    """

    def __init__(self, session: Session) -> None:
        self._compute = session.service("compute", MICROVERSION)
        self._injecting = session.service("compute", "2.56")
        self._network = session.service("network")
        self._image = session.service("image")
        self.servers: list[str] = []
        """What `boot` has made."""

    def boot(
        self,
        name: str,
        host: str,
        flavor: str = "c1",
        net: str = "flat1",
        ports: int = 1,
        config_drive: bool = True,
        metadata: Mapping[str, str] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> str:
        """Make a server on this host; returns its uuid when it is ACTIVE.

        Metadata `fill_mib` makes the guest write that much random content, `write_mib` that much
        each second; `more` is whatever else nova's API takes (`tags`, `key_name`...).
        """
        networks = self._network.get("/networks", name=net).body["networks"]
        body = {
            "name": name,
            "imageRef": self.image("tiny"),
            "flavorRef": self.flavor(flavor),
            "networks": [{"uuid": networks[0]["id"]}] * ports,
            "config_drive": config_drive,
            "metadata": dict(metadata or {}),
            "host": host,
            **(more or {}),
        }
        server: str = self._post("/servers", {"server": body})["server"]["id"]
        self.servers.append(server)
        try:
            self.wait_status(server, "ACTIVE", timeout_seconds=BOOT_SECONDS)
        except BaseException:
            self._compute.send("DELETE", f"/servers/{server}")  # nobody else knows of it
            raise
        return server

    def boot_injected(
        self, name: str, host: str, files: Mapping[str, str], more: Mapping[str, Any]
    ) -> str:
        """Make a server with files of text injected: nova's API takes them until 2.56."""
        networks = self._network.get("/networks", name="flat1").body["networks"]
        encoded = {path: base64.b64encode(text.encode()) for path, text in files.items()}
        body = {
            "name": name,
            "networks": [{"uuid": networks[0]["id"]}],
            "config_drive": True,
            "availability_zone": f"nova:{host}",
            "personality": [
                {"path": path, "contents": text.decode()} for path, text in encoded.items()
            ],
            **more,
        }
        answer = self._injecting.send("POST", "/servers", {"server": body})
        assert answer.ok, answer.message
        server = str(answer.body["server"]["id"])
        self.servers.append(server)
        self.wait_status(server, "ACTIVE", timeout_seconds=BOOT_SECONDS)
        return server

    @contextmanager
    def lent(self, name: str, host: str, flavor: str = "c1", **wish: Any) -> Iterator[str]:
        """A server (see `boot`) that is deleted when the block ends, whatever state it is in."""
        server = self.boot(f"{name}-{uuid.uuid4().hex[:8]}", host, flavor, **wish)
        try:
            yield server
        finally:
            self.discard(server)

    def discard(self, server: str) -> None:
        """Delete the server, whatever state a test left it in."""
        if self.show(server).get("OS-EXT-STS:task_state") is not None:
            self.reset_to_error(server)
        self.delete(server)

    def image(self, name: str) -> str:
        """Id of the image of this name."""
        return str(self._image.get("/images", name=name).body["images"][0]["id"])

    def flavor(self, name: str) -> str:
        """Id of the flavor of this name."""
        flavors = self._compute.get("/flavors", is_public="None").body["flavors"]
        return str(next(flavor["id"] for flavor in flavors if flavor["name"] == name))

    def show(self, server: str) -> dict[str, Any]:
        """The server as nova's API shows it; empty when there is none."""
        answer = self._compute.get(f"/servers/{server}")
        return dict(answer.body["server"]) if answer.ok else {}

    def listed(self, server: str) -> list[str]:
        """Status of each entry that the list of all servers has of this one."""
        servers = self._compute.get("/servers/detail").body["servers"]
        return [str(each["status"]) for each in servers if each["id"] == server]

    @contextmanager
    def watched(self, server: str) -> Iterator[list[list[str]]]:
        """While the block runs, what each listing says of the server; use another Nova within."""
        seen: list[list[str]] = []
        over = threading.Event()

        def look() -> None:
            while not over.wait(POLL_SECONDS):
                seen.append(self.listed(server))

        with ThreadPoolExecutor(1) as pool:
            looking = pool.submit(look)
            try:
                yield seen
            finally:
                over.set()
                looking.result()

    def status(self, server: str) -> str:
        """`ACTIVE`, `VERIFY_RESIZE`...; `GONE` when there is no such server."""
        return str(self.show(server).get("status", "GONE"))

    def host(self, server: str) -> str:
        return str(self.show(server)["OS-EXT-SRV-ATTR:host"])

    def wait_status(self, server: str, *wanted: str, timeout_seconds: float = 300) -> str:
        """Wait until the server has one of these states and nova does nothing with it."""
        deadline = time.monotonic() + timeout_seconds
        while True:
            shown = self.show(server)
            status, task = shown.get("status", "GONE"), shown.get("OS-EXT-STS:task_state")
            if task is None and status in wanted:
                return str(status)
            if (task is None and status in ("ERROR", "GONE")) or time.monotonic() > deadline:
                pytest.fail(f"{server} is {status} ({task}), not {wanted}: {shown.get('fault')}")
            time.sleep(POLL_SECONDS)

    def stop(self, server: str) -> None:
        self._act(server, {"os-stop": None}, "SHUTOFF")

    def start(self, server: str) -> None:
        self._act(server, {"os-start": None}, "ACTIVE")

    def reboot(self, server: str, kind: str) -> None:
        """`kind` is `HARD` or `SOFT`."""
        self._act(server, {"reboot": {"type": kind}}, "ACTIVE")

    def migrate(self, server: str, host: str, *ends: str) -> str:
        """nova's own cold migration to this host; its end, which may be another one of `ends`."""
        return self._act(server, {"migrate": {"host": host}}, "VERIFY_RESIZE", *ends)

    def resize(self, server: str, flavor: str) -> None:
        """nova's own resize; where to, its scheduler decides."""
        self._act(server, {"resize": {"flavorRef": self.flavor(flavor)}}, "VERIFY_RESIZE")

    def confirm(self, server: str) -> None:
        self._act(server, {"confirmResize": None}, "ACTIVE", "SHUTOFF")

    def revert(self, server: str) -> None:
        self._act(server, {"revertResize": None}, "ACTIVE", "SHUTOFF")

    def delete(self, server: str, timeout_seconds: float = 120) -> None:
        """Delete the server and wait until nova does not know it any more; twice is once."""
        self._compute.send("DELETE", f"/servers/{server}")
        deadline = time.monotonic() + timeout_seconds
        while (status := self.status(server)) != "GONE":
            if time.monotonic() > deadline:
                pytest.fail(f"{server} was not deleted: it is {status}")
            time.sleep(POLL_SECONDS)

    def reset_to_error(self, server: str) -> None:
        """Make nova forget what it was doing with the server, so that it can be deleted."""
        self._compute.send(
            "POST", f"/servers/{server}/action", {"os-resetState": {"state": "error"}}
        )

    def ports(self, server: str) -> list[dict[str, Any]]:
        """The server's ports as Neutron shows them."""
        return list(self._network.get("/ports", device_id=server).body["ports"])

    def wait_port(self, server: str, host: str, timeout_seconds: float = 60) -> None:
        """Wait until all ports of the server are ACTIVE on this host: they trail its status."""
        deadline = time.monotonic() + timeout_seconds
        while True:
            ports = self.ports(server)
            if all((p["status"], p["binding:host_id"]) == ("ACTIVE", host) for p in ports):
                return
            if time.monotonic() > deadline:
                pytest.fail(f"the ports of {server} do not come up on {host}: {ports}")
            time.sleep(POLL_SECONDS)

    def service(self, host: str) -> dict[str, Any]:
        """What nova's API tells of its nova-compute, but for the time."""
        listed = self._compute.get("/os-services", binary="nova-compute", host=host).body
        return {key: listed["services"][0][key] for key in ("id", "status", "disabled_reason")}

    def wait_enabled(self, *hosts: str, timeout_seconds: float = 150) -> None:
        """Wait until servers may be placed there.

        nova-compute disables itself when it loses libvirt, and enables itself when one of its
        periodic tasks has found it again: up to a minute later.
        """
        deadline = time.monotonic() + timeout_seconds
        while off := [host for host in hosts if self.service(host)["status"] != "enabled"]:
            if time.monotonic() > deadline:
                pytest.fail(f"nova-compute stays disabled: {[self.service(host) for host in off]}")
            time.sleep(POLL_SECONDS)

    def actions(self, server: str) -> list[dict[str, Any]]:
        """The server's actions, newest first, as `openstack server event list` has them."""
        path = f"/servers/{server}/os-instance-actions"
        return list(self._compute.get(path).body["instanceActions"])

    def events(self, server: str, action: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The events of one of the server's actions, newest first."""
        path = f"/servers/{server}/os-instance-actions/{action['request_id']}"
        return list(self._compute.get(path).body["instanceAction"]["events"])

    def _act(self, server: str, body: Mapping[str, Any], *wanted: str) -> str:
        self._post(f"/servers/{server}/action", body)
        return self.wait_status(server, *wanted)

    def _post(self, path: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        answer = self._compute.send("POST", path, body)
        assert answer.ok, f"nova refused POST {path}: {answer.message}"
        return answer.body
