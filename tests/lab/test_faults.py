"""Every call that changes Neutron, Cinder or Placement goes wrong: nothing is left over or lost.

Real moves of a stopped server, which has a port and a volume, through a proxy that spoils calls.
CELLMOVE_LONG=1 has every call go wrong in every way; without it every third does, in one way.
"""

from __future__ import annotations

import json
import os
import re
import threading
import time
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from openstack.config import OpenStackConfig

from tests.faults.proxy import Fault, Proxy, proxy
from tests.faults.rules import EachOnce
from tests.lab.kit.nova import POLL_SECONDS, Nova, lab_session
from tests.lab.kit.places import OUTPUTS, host_run
from tests.lab.kit.program import Completed, WithClouds
from tests.lab.kit.traces import nothing_left, traces
from tests.lab.kit.volumes import attachments, from_image, named

pytestmark = [pytest.mark.lab, pytest.mark.alone]

SOURCE, TARGET = "cmp1b", "cmp2b"
SERVICES = {"network": "network", "placement": "placement", "block-storage": "block_storage"}
"""Type of a service -> what clouds.yaml calls it."""
ANSWER_SECONDS = 20
"""How long cellmove waits for an answer; a loaded machine takes 10 at times."""
ON_WRITES = (
    *(Fault.RESET, Fault.LOST, Fault.ERROR, Fault.HALF, Fault.UNAVAILABLE),
    *(Fault.CONFLICT, Fault.GARBAGE, Fault.SILENT, Fault.LATE),
)
ON_READS = (Fault.UNAVAILABLE, Fault.RESET, Fault.HALF, Fault.GARBAGE, Fault.LOST, Fault.SLOW)
"""What passes when it is tried again."""
MOST_RUNS = 60
CLOCKS = {
    *("nova updated", "nova OS-SRV-USG:launched_at"),
    *("port updated_at", "port revision_number"),
}
"""Of these nova and Neutron themselves say anew when it was, after an undo or a revert."""
PLUGGED = {"port status": {"ACTIVE", "DOWN"}}
"""Of a guest that is off: which one, the layer-2 agent says by what came first, plug or binding."""
SETTLING_SECONDS = 60
LONG = bool(os.environ.get("CELLMOVE_LONG"))


def through(between: Proxy, state: Path) -> WithClouds:
    """The program, whose way to the services leads through the proxy."""
    clouds = OpenStackConfig(config_files=[str(OUTPUTS / "clouds.yaml")]).cloud_config
    for kind, name in SERVICES.items():
        clouds["clouds"]["lab"][f"{name}_endpoint_override"] = between.url(kind)
    clouds["clouds"]["lab"]["api_timeout"] = ANSWER_SECONDS
    (state / "clouds.yaml").write_text(json.dumps(clouds))
    return WithClouds(state, state / "clouds.yaml")


@dataclass(frozen=True, slots=True)
class Stage:
    """A stopped server, the proxy, and the program behind it."""

    nova: Nova
    server: str
    between: Proxy
    cellmove: WithClouds
    secrets: tuple[str, ...]
    """What nobody may hear, read or see."""
    heard: list[str] = field(default_factory=list)
    """All that the program has said, always with --debug."""

    def stands(self) -> dict[str, Any]:
        """All that is known of the server anywhere, but for when and under which attachments."""
        session = lab_session()
        placement = session.service("placement", "1.36")
        network = session.service("network")
        ports = {port["id"]: port for port in self.nova.ports(self.server)}
        held = placement.get(f"/allocations/{self.server}").body["allocations"]
        return {
            **{f"nova {key}": value for key, value in self.nova.show(self.server).items()},
            **{f"port {key}": value for port in ports.values() for key, value in port.items()},
            "bindings": {i: network.get(f"/ports/{i}/bindings").body["bindings"] for i in ports},
            "allocations": {host: each["resources"] for host, each in held.items()},
            "attachments": attachments(self.server),
            "mappings": {cell: named(self.server, cell) for cell in ("cell1", "cell2")},
            "traces": traces(self.server),
        }

    def require(self, before: dict[str, Any], why: object) -> None:
        """All stands as before, as soon as what trails has followed."""
        deadline = time.monotonic() + SETTLING_SECONDS
        while True:
            now = self.stands()
            keys = (before.keys() | now.keys()) - CLOCKS
            changed = {key: (before.get(key), now.get(key)) for key in keys}
            changed = {key: pair for key, pair in changed.items() if pair[0] != pair[1]}
            changed = {k: pair for k, pair in changed.items() if set(pair) != PLUGGED.get(k)}
            if not changed:
                return
            assert time.monotonic() < deadline, f"{changed}: {why}"
            time.sleep(POLL_SECONDS)

    def run(self, verb: str, rule: EachOnce) -> None:
        """Bring the verb to its end by what cellmove itself says is to be typed next.

        Whatever is wholly taken back must stand as before.
        """
        before = self.stands()
        argv = self.command(verb)
        with self.between.spoiling(rule):
            for _ in range(MOST_RUNS):
                rule.next_run()
                ended = self.cellmove(*argv, "--debug", check=False)
                self.heard.append(ended.stdout + ended.stderr)
                _require_honest(ended, rule)
                if ended.code == 0 and argv[0] in (verb, "resume"):
                    return
                if ended.code in (0, 3):  # an undo, or a failure that was wholly taken back
                    self.require(before, f"{ended} after {rule.struck}")
                argv = self.command(verb) if ended.code != 4 else _next(ended)
        raise AssertionError(f"{verb} did not end after {MOST_RUNS} runs: {ended}")

    def command(self, verb: str) -> tuple[str, ...]:
        wish = ("--flavor", "c2", "--to-host", TARGET) if verb == "resize" else ("--yes",)
        return (verb, self.server, *wish)


def _next(ended: Completed) -> tuple[str, ...]:
    """What cellmove says is to be typed now."""
    said = re.findall(r"`cellmove ((?:undo|resume) \d+)`", ended.stderr)
    assert said, ended
    return tuple(said[-1].split())


def _require_honest(ended: Completed, rule: EachOnce) -> None:
    """The exit code says what happened, and nothing did that nobody foresaw."""
    assert ended.code in (0, 3, 4), f"{ended} after {rule.struck}"
    assert rule.struck or ended.code == 0, f"{ended} without any fault"
    undone = [fault for fault in rule.struck if not fault.was_done]
    assert ended.code != 0 or not undone, f"{ended} although {undone}"
    assert "cellmove has a defect" not in ended.stderr


@pytest.fixture(scope="module")
def stage(admin_nova: Nova, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    session = lab_session()
    real = {kind: str(session.service(kind)._adapter.get_endpoint()) for kind in SERVICES}  # type: ignore[attr-defined]
    real["network"] = real["network"].removesuffix("/v2.0")
    state = tmp_path_factory.mktemp("faults")
    more = from_image(admin_nova)
    with (
        proxy(real) as between,
        admin_nova.lent("faults", SOURCE, config_drive=False, more=more) as server,
    ):
        admin_nova.stop(server)
        cellmove = through(between, state)
        secrets = (*_passwords(), _watched_console(server))
        with _command_lines(state) as seen:
            stage = Stage(admin_nova, server, between, cellmove, secrets)
            yield stage
        kept = [*stage.heard, *seen, *map(_content, cellmove.journal.parent.iterdir())]
        assert any("resize" in line for line in seen)
        assert not [secret for secret in secrets for text in kept if secret in text]


def _passwords() -> tuple[str, ...]:
    """Those that the lab's cellmove signs in with."""
    clouds = OpenStackConfig(config_files=[str(OUTPUTS / "clouds.yaml")]).cloud_config["clouds"]
    database = tomllib.loads((OUTPUTS / "cellmove.toml").read_text())["database"]
    signing_in = (clouds[name]["auth"]["password"] for name in ("lab", "lab-service"))
    return (*signing_in, Path(database["password_file"]).read_text().strip())


def _watched_console(server: str) -> str:
    """Give the guest's console a password, which is then in its definition."""
    secret = "canary-1"  # VNC takes eight
    shown = host_run(SOURCE, ["virsh", "dumpxml", "--security-info", "--inactive", server])
    guarded = shown.replace("<graphics ", f"<graphics passwd='{secret}' ")
    assert guarded != shown
    there = f"/tmp/{server}.xml"
    host_run(SOURCE, ["sh", "-c", 'printf %s "$1" > "$2"', "sh", guarded, there])
    host_run(SOURCE, ["virsh", "define", there])
    host_run(SOURCE, ["rm", there])
    assert secret in host_run(SOURCE, ["virsh", "dumpxml", "--security-info", server])
    return secret


@contextmanager
def _command_lines(state: Path) -> Iterator[set[str]]:
    """All that `ps` would have shown of the program with this state, and of its children."""
    seen: set[str] = set()
    foreign: set[Path] = set()
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.3):
            for process in set(Path("/proc").glob("[0-9]*")) - foreign:
                with suppress(OSError):
                    if str(state).encode() in (process / "environ").read_bytes():
                        seen.add(_content(process / "cmdline"))
                    else:
                        foreign.add(process)

    with ThreadPoolExecutor(1) as pool:
        looking = pool.submit(look)
        try:
            yield seen
        finally:
            over.set()
            looking.result()


def _content(path: Path) -> str:
    return path.read_bytes().decode(errors="replace")


def writes(turn: int) -> EachOnce:
    """Of all that writes every third call is spoilt; in the long run all, in each way once."""
    faults = ON_WRITES[turn:] + ON_WRITES[:turn]
    return EachOnce(faults, lambda call: call.writes, share=1 if LONG else 3, first=turn % 3)


@pytest.mark.timeout(7200 if LONG else 900)
def test_a_resize_that_is_spoilt_is_as_if_it_had_not_been_and_a_revert_as_if_it_had(
    stage: Stage,
) -> None:
    home = stage.stands()
    for turn in range(len(ON_WRITES) if LONG else 1):
        stage.run("resize", writes(turn))
        assert stage.nova.status(stage.server) == "VERIFY_RESIZE"
        stage.run("revert", writes(turn + 1))
        stage.require(home, "reverted")


@pytest.mark.timeout(7200 if LONG else 900)
def test_a_read_that_goes_wrong_once_is_not_felt_and_a_spoilt_confirm_ends_as_it_must(
    stage: Stage,
) -> None:
    reads = EachOnce(ON_READS, lambda call: not call.writes, share=1 if LONG else 2)
    with stage.between.spoiling(reads):
        stage.cellmove(*stage.command("resize"))
    assert set(reads.met.values()) >= set(ON_READS)

    stage.run("confirm", writes(2))
    assert (stage.nova.status(stage.server), stage.nova.host(stage.server)) == ("SHUTOFF", TARGET)
    assert set(attachments(stage.server)) == set(named(stage.server, "cell2"))
    assert not [trace for trace in traces(stage.server) if "cell1" in trace or SOURCE in trace]
    stage.nova.delete(stage.server)
    nothing_left(stage.server)
