"""Volumes of the lab's servers: made in Cinder, attached through nova, read by the guest."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from xml.etree import ElementTree

import pytest

from cellmove.services.cinder import MICROVERSION
from cellmove.services.session import Session
from tests.lab.kit.guest import GuestWatch
from tests.lab.kit.nova import POLL_SECONDS, Nova
from tests.lab.kit.places import host_run, sql
from tests.lab.kit.traces import CELLS

SERIAL_LENGTH = 20
"""All that a virtio disk tells of its serial, which is the volume's id."""
DISK = re.compile(r"GUEST disk (\w+) sectors \d+ serial (\S+)")
RECORD = re.compile(r"GUEST /dev/(\w+) last record: (?:RECORD (\d+) |none)")


class Volumes:
    """Cinder and nova's side of it, as an administrator in the customer's project."""

    def __init__(self, session: Session, nova: Nova) -> None:
        self._cinder = session.service("block-storage", MICROVERSION)
        self._compute = session.service("compute", "2.90")
        self._nova = nova

    @contextmanager
    def lent(self, kind: str = "nfs", **wish: Any) -> Iterator[str]:
        """A volume of 1 GB, deleted when the block ends; its servers must be gone by then."""
        volume = self.make(kind, **wish)
        try:
            yield volume
        finally:
            self.delete(volume)

    def make(self, kind: str = "nfs", **wish: Any) -> str:
        """Make a volume of this type; `wish` is whatever else Cinder's API takes."""
        volume = self.ask(kind, **wish)
        self.wait_status(volume, "available")
        return volume

    def ask(self, kind: str = "nfs", **wish: Any) -> str:
        """Like `make`, and do not wait until it is there."""
        body = {"size": 1, "name": f"lent-{uuid.uuid4().hex[:8]}", "volume_type": kind, **wish}
        answer = self._cinder.send("POST", "/volumes", {"volume": body})
        assert answer.ok, answer.message
        return str(answer.body["volume"]["id"])

    def delete(self, volume: str) -> None:
        """Delete a volume that no server has any more; twice is once."""
        answer = self._cinder.send("DELETE", f"/volumes/{volume}")
        assert answer.ok or answer.status == 404, answer.message

    def delete_snapshot(self, snapshot: str) -> None:
        """Delete a volume's snapshot, and wait until it is gone: the volume cannot go before."""
        path = f"/snapshots/{snapshot}"
        answer = self._cinder.send("DELETE", path)
        assert answer.ok, answer.message
        deadline = time.monotonic() + 60
        while (found := self._cinder.get(path)).ok:
            assert time.monotonic() < deadline, found.body
            time.sleep(POLL_SECONDS)

    def named(self, name: str) -> list[str]:
        """Ids of the volumes of this name."""
        found = self._cinder.get("/volumes", name=name).body["volumes"]
        return [str(each["id"]) for each in found]

    def status(self, volume: str) -> str:
        """`in-use`, `available`...; `gone` when there is no such volume."""
        answer = self._cinder.get(f"/volumes/{volume}")
        return str(answer.body["volume"]["status"]) if answer.ok else "gone"

    def wait_status(self, volume: str, wanted: str, timeout_seconds: float = 120) -> None:
        """Wait until Cinder calls the volume so."""
        deadline = time.monotonic() + timeout_seconds
        while (status := self.status(volume)) != wanted:
            if status.startswith("error") or time.monotonic() > deadline:
                pytest.fail(f"volume {volume} is {status}, not {wanted}")
            time.sleep(POLL_SECONDS)

    def freeze(self, volume: str) -> None:
        """Let nobody write to it any more."""
        body = {"os-update_readonly_flag": {"readonly": True}}
        answer = self._cinder.send("POST", f"/volumes/{volume}/action", body)
        assert answer.ok, answer.message

    def attach(self, server: str, volume: str) -> None:
        """Attach a volume through nova."""
        self._change("POST", server, "", volume)
        self.wait_status(volume, "in-use")

    def detach(self, server: str, volume: str) -> None:
        """Detach a volume through nova; while resized it stays reserved for the way home."""
        answer = self._compute.send("DELETE", f"/servers/{server}/os-volume_attachments/{volume}")
        assert answer.ok, answer.message
        self._wait_shown(server, {volume}, set())

    def swap(self, server: str, old: str, new: str) -> None:
        """Have nova copy a volume's content to another one, and use that instead."""
        self._change("PUT", server, f"/{old}", new)
        self._wait_shown(server, {old}, {new})
        self.wait_status(new, "in-use")

    def shown(self, server: str) -> set[str]:
        """The volumes that nova's API shows for the server."""
        found = self._compute.get(f"/servers/{server}/os-volume_attachments").body
        return {str(each["volumeId"]) for each in found["volumeAttachments"]}

    def _wait_shown(
        self, server: str, gone: set[str], there: set[str], timeout_seconds: float = 120
    ) -> None:
        deadline = time.monotonic() + timeout_seconds
        while (shown := self.shown(server)) & gone or not there <= shown:
            if time.monotonic() > deadline:
                pytest.fail(f"nova shows {shown}, with {gone}, without {there}")
            time.sleep(POLL_SECONDS)

    def _change(self, method: str, server: str, path: str, volume: str) -> None:
        body = {"volumeAttachment": {"volumeId": volume}}
        path = f"/servers/{server}/os-volume_attachments{path}"
        answer = self._compute.send(method, path, body)
        assert answer.ok, answer.message


def attachments(server: str) -> dict[str, list[tuple[str, str]]]:
    """Volume -> status and host of each of its attachments to the server, as Cinder has them."""
    found: dict[str, list[tuple[str, str]]] = {}
    query = (
        "SELECT volume_id, attach_status, IFNULL(attached_host, '-') FROM volume_attachment"
        f" WHERE instance_uuid = '{server}' AND deleted = 0 ORDER BY attach_status, attached_host"
    )
    for volume, status, host in sql("api.cinder", query):
        found.setdefault(volume, []).append((status, host))
    return found


def named(server: str, cell: str) -> dict[str, tuple[str, str]]:
    """Volume -> status and host of the attachment that a cell's mapping of it names."""
    query = (
        "SELECT volume_id, attachment_id FROM block_device_mapping"
        f" WHERE instance_uuid = '{server}' AND deleted = 0 AND destination_type = 'volume'"
    )
    found = {}
    for volume, attachment in sql(f"{cell}.{CELLS[cell]}", query):
        state = sql(
            "api.cinder",
            "SELECT attach_status, IFNULL(attached_host, '-') FROM volume_attachment"
            f" WHERE id = '{attachment}' AND volume_id = '{volume}' AND deleted = 0",
        )
        found[volume] = (state[0][0], state[0][1]) if state else ("gone", "-")
    return found


def read_only(host: str, server: str) -> set[str]:
    """The volumes that the server's guest on this host may not write to."""
    shown = host_run(host, ["virsh", "dumpxml", "--inactive", server])
    disks = ElementTree.fromstring(shown).iterfind("devices/disk")
    return {
        disk.findtext("serial", "")
        for disk in disks
        if disk.find("serial") is not None and disk.find("readonly") is not None
    }


def records_found(guest: GuestWatch, host: str, volumes: set[str]) -> dict[str, int | None]:
    """Volume -> number of the record that the guest found last on it at its last boot.

    None: it found none. The guest writes a record a second on each disk; it tells disks by their
    serials, since their names change.
    """
    last_boot = guest.console(host).rpartition("GUEST boots so far")[2]
    names = dict(DISK.findall(last_boot))
    found = {
        names[name]: int(number) if number else None for name, number in RECORD.findall(last_boot)
    }
    return {volume: found[volume[:SERIAL_LENGTH]] for volume in volumes}


def from_image(
    nova: Nova, image: str | None = None, *, delete_on_termination: bool = True
) -> dict[str, Any]:
    """What `Nova.boot` wants for a server whose root disk is a volume made of an image.

    Without `image` it is the one whose guest tells what it sees.
    """
    root = {
        "boot_index": 0,
        "uuid": image or nova.image("tiny"),
        "source_type": "image",
        "destination_type": "volume",
        "volume_size": 2,
        "delete_on_termination": delete_on_termination,
    }
    return {"imageRef": "", "block_device_mapping_v2": [root]}
