"""What nova does with a server in its life, each thing waited for until it is done."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from cellmove.services.session import Session
from tests.lab.kit.guest import GuestWatch
from tests.lab.kit.nova import BOOT_SECONDS, MICROVERSION, POLL_SECONDS, Nova
from tests.lab.kit.places import host_run
from tests.lab.kit.volumes import Volumes
from tests.lab.test_plan_files import acquainted


@dataclass
class Life:
    """One server at home on one hypervisor, and everything that nova can do with it."""

    session: Session
    nova: Nova
    volumes: Volumes
    guest: GuestWatch
    host: str

    @property
    def server(self) -> str:
        return self.guest.server

    def felt(self, done: Callable[[], None]) -> None:
        """Do it, and wait for the guest that boots of it."""
        since = time.time()
        done()
        self.guest.wait_ready(self.host, since, BOOT_SECONDS)
        assert self.guest.heard_from(since) == {self.host}
        assert self.guest.golden(self.host)

    def act(self, body: dict[str, object], *wanted: str) -> None:
        self.nova._act(self.server, body, *wanted)

    def tell_console(self) -> None:
        compute = self.session.service("compute", MICROVERSION)
        body: dict[str, object] = {"os-getConsoleOutput": {}}
        answer = compute.send("POST", f"/servers/{self.server}/action", body)
        assert answer.ok, answer.message
        assert "GUEST" in answer.body["output"]

    def reboot(self) -> None:
        self.felt(lambda: self.nova.reboot(self.server, "SOFT"))
        self.felt(lambda: self.nova.reboot(self.server, "HARD"))

    def stop_and_start(self) -> None:
        self.nova.stop(self.server)
        self.felt(lambda: self.nova.start(self.server))

    def change_volumes(self, volume: str) -> None:
        """Detach the volume that it has, attach it again and detach it."""
        self.volumes.detach(self.server, volume)
        self.volumes.wait_status(volume, "available")
        self.volumes.attach(self.server, volume)
        self.volumes.detach(self.server, volume)
        self.volumes.wait_status(volume, "available")

    def change_interfaces(self) -> None:
        """Attach an interface, wait until it works, and detach it."""
        compute = self.session.service("compute", MICROVERSION)
        path = f"/servers/{self.server}/os-interface"
        network = self.nova.ports(self.server)[0]["network_id"]
        answer = compute.send("POST", path, {"interfaceAttachment": {"net_id": network}})
        assert answer.ok, answer.message
        port = answer.body["interfaceAttachment"]["port_id"]
        self.nova.wait_port(self.server, self.host)
        assert len(self.nova.ports(self.server)) == 2
        assert compute.send("DELETE", f"{path}/{port}").ok
        self._until(lambda: len(self.nova.ports(self.server)) == 1, "the interface is detached")

    def snapshot(self) -> None:
        """Make an image of it, and delete that; of a root volume it is Cinder's snapshot."""
        name = f"accept-{uuid.uuid4().hex[:8]}"
        self.act({"createImage": {"name": name}}, "ACTIVE")
        service = self.session.service("image")
        found: dict[str, str] = {}

        def made() -> bool:
            (image,) = service.get("/images", name=name).body["images"]
            found.update(image)
            return bool(image["status"] == "active")

        self._until(made, "the snapshot is there")
        assert service.send("DELETE", f"/images/{found['id']}").ok
        for each in json.loads(found.get("block_device_mapping", "[]")):
            self.volumes.delete_snapshot(each["snapshot_id"])

    def rescue(self) -> None:
        """Rescue it, take it back, and plug its ports anew.

        nova starts the guest without plugging them, and Open vSwitch's userspace datapath, which
        the lab has, does not see that a tap device is another one: so it is without any move.
        """
        self.act({"rescue": {"rescue_image_ref": self.nova.image("tiny")}}, "RESCUE")
        self.act({"unrescue": None}, "ACTIVE")
        self.felt(lambda: self.nova.reboot(self.server, "HARD"))

    def shelve(self) -> None:
        """Shelve and offload it; where it comes back, nova's scheduler says: in the same cell."""
        cell = self.host[:4]
        self.act({"shelve": None}, "SHELVED_OFFLOADED")
        since = time.time()
        self.act({"unshelve": None}, "ACTIVE")
        self.host = self.nova.host(self.server)
        assert self.host.startswith(cell)
        self.guest.wait_ready(self.host, since)

    def resize_within_cell(self, sibling: str) -> None:
        """nova's own resize to the other hypervisor of the cell, confirmed."""
        with acquainted(self.host, sibling):
            since = time.time()
            self.nova.migrate(self.server, sibling)
            self.nova.confirm(self.server)
        self.host = sibling
        self.guest.wait_ready(sibling, since)

    def rebuild(self) -> None:
        """A new disk from the image; the guest is a new one with the same port."""
        since = time.time()
        self.act({"rebuild": {"imageRef": self.nova.image("tiny")}}, "ACTIVE")
        self.guest.wait_heartbeat(self.host, since)

    def where(self) -> str:
        """The hypervisor where the guest runs, by the hypervisors."""
        return host_run(self.host, ["virsh", "domstate", self.server]).strip()

    def _until(self, asked: Callable[[], bool], what: str, timeout_seconds: float = 120) -> None:
        deadline = time.monotonic() + timeout_seconds
        while not asked():
            if time.monotonic() > deadline:
                pytest.fail(f"{timeout_seconds:.0f} s long it was not so that {what}")
            time.sleep(POLL_SECONDS)
