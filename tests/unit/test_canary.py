"""Secrets that anybody would know again appear in nothing that cellmove says, writes or runs."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cellmove.steps.guests import StartTargetGuest
from tests.fakes.cinder import NFS, FakeVolumes
from tests.fakes.databases import BORN, CELL1, CELL2
from tests.fakes.world import SERVER, World
from tests.unit.conftest import Terminal
from tests.unit.samples import failing

CANARIES = {
    "database password": "canary-of-the-database",
    "bus password": "canary-of-the-bus",
    "volume's key": "canary-of-the-volume",
    "user data": base64.b64encode(b"#cloud-config\npassword: canary-of-the-user").decode(),
    "administrator's password": "canary-of-the-administrator",
}
RESIZE = ("resize", "web-1", "--flavor", "c2", "--to-host", "cmp2a")


@pytest.fixture
def keyed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cinder's NFS driver gives a secret with the way to a volume, as some drivers do."""
    real = FakeVolumes.connection_info

    def with_key(volumes: FakeVolumes, attachment: str) -> dict[str, Any]:
        found = dict(real(volumes, attachment))
        if found.get("driver_volume_type") == NFS:
            data: Any = found["data"]
            found["data"] = {**data, "auth_password": CANARIES["volume's key"]}
        return found

    monkeypatch.setattr(FakeVolumes, "connection_info", with_key)


@pytest.fixture
def caged(keyed: None, terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    """A terminal in a cloud and with a configuration full of canaries; files are open to all."""
    with terminal.world.cells[CELL1.uuid].write() as rows:
        rows.change(
            "instances", {"user_data": CANARIES["user data"]}, expect=None, uuid=SERVER, deleted=0
        )
        password = CANARIES["administrator's password"]
        row = {"instance_uuid": SERVER, "key": "password_0", "value": password, "created_at": BORN}
        rows.insert("instance_system_metadata", [row])
    database = f"mysql+pymysql://u:{CANARIES['database password']}@nowhere.invalid/nova_api"
    monkeypatch.setenv("CELLMOVE_DATABASE_URL", database)
    bus = f"nonsense://u:{CANARIES['bus password']}@nowhere.invalid/"
    monkeypatch.setenv("CELLMOVE_NOTIFICATIONS_TRANSPORT_URL", bus)
    monkeypatch.setattr("cellmove.cli.work.checks.run", lambda *_: [])
    before = os.umask(0)
    yield terminal
    os.umask(before)


def found_in(what: bytes) -> list[str]:
    """The canaries in it, also those that somebody has coded."""
    coded = {name: base64.b64encode(canary.encode())[:-4] for name, canary in CANARIES.items()}
    return [
        name
        for name, canary in CANARIES.items()
        if canary.encode() in what or coded[name] in what or canary[::-1].encode() in what
    ]


def copies(world: World, cell: str) -> list[str]:
    """The canaries that a cell's database holds of the server."""
    tables = ("instances", "instance_system_metadata", "block_device_mapping")
    return found_in(
        repr([world.query(cell, f"SELECT * FROM {table}") for table in tables]).encode()
    )


@pytest.mark.filterwarnings("ignore")  # of eventlet, which oslo.messaging imports
def test_no_command_tells_or_writes_down_a_secret(
    caged: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = str(tmp_path / "state" / "plan.json")
    (tmp_path / "state").mkdir()
    in_the_cloud = ["volume's key", "user data", "administrator's password"]
    assert copies(caged.world, CELL1.uuid) == in_the_cloud  # or this would prove nothing

    with monkeypatch.context() as broken:
        broken.setattr(StartTargetGuest, "execute", lambda *_: failing("it broke")())
        heard = [_told(caged, *RESIZE)]
    assert b"wholly taken back" in heard[0]
    script = [
        (*RESIZE, "--dry-run", "--out", plan),
        RESIZE,
        ("compare", SERVER),
        ("revert", SERVER, "--yes"),
        RESIZE,
        ("confirm", SERVER, "--yes"),
    ]
    for command in script:
        ran = caged.type(*command, "--debug")
        heard.append((ran.out + ran.err).encode())
        assert ran.code in (0, 7), (command, ran)
        if command in (RESIZE, script[-1]):
            heard += [_told(caged, *each) for each in LOOKS]
    assert [found_in(each) for each in heard] == [[]] * len(heard)
    # The records arrived with all they hold, so it went through cellmove's hands.
    assert copies(caged.world, CELL2.uuid) == in_the_cloud

    written = [path for path in (tmp_path / "state").rglob("*") if path.is_file()]
    assert {Path(plan), caged.journal} <= set(written)
    for path in written:
        assert found_in(path.read_bytes()) == [], path
        assert path.stat().st_mode & 0o077 == 0, path


LOOKS = (
    ("moves",),
    ("moves", "--json"),
    ("show", "1"),
    ("show", "1", "--json"),
    ("list", "--json"),
    ("check", "--server", SERVER, "--json"),
    ("audit", "--json"),
    ("list", "--config", "/no/such/file"),
    ("undo", "1"),
    ("resume",),
)


def _told(terminal: Terminal, *argv: str) -> bytes:
    ran = terminal.type(*argv, "--debug")
    return (ran.out + ran.err).encode()
