"""What breaks under a move that runs: links, services, a disk, a guest. Each is mended again.

A link of the conductor is cut for the processes of one group of users alone, so that nobody else
who works on the lab feels it.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.lab.kit.guest import INSTANCES
from tests.lab.kit.places import STATE, host_run, run

GROUP = 64990
"""Group of the program whose links are cut."""
ADDRESSES = {
    "bastion": "10.98.9.2",
    "api": "10.98.0.10",
    "database": "10.98.0.30",
    "cell1": "10.98.0.31",
    "cell2": "10.98.0.32",
    "cmp1a": "10.98.1.11",
    "cmp1b": "10.98.1.12",
    "cmp2a": "10.98.2.11",
    "cmp2b": "10.98.2.12",
}
SILENT = ("DROP",)
"""Nothing arrives any more: both sides wait."""
RESET = ("REJECT", "--reject-with", "tcp-reset")
"""All connections end at once, and no new one begins."""
SERVICES_SUPERVISOR = STATE / "etc" / "supervisord-control.conf"
RUNNING_SECONDS = 60


@contextmanager
def conductor_cut_from(place: str, how: tuple[str, ...] = RESET) -> Iterator[None]:
    """No packet of the program reaches the bastion, the APIs, or a database."""
    owner = ("-m", "owner", "--gid-owner", str(GROUP))
    with _rule("cond", ["-d", ADDRESSES[place], "-p", "tcp", *owner, "-j", *how]):
        yield


@contextmanager
def bastion_cut_from(host: str, how: tuple[str, ...] = SILENT) -> Iterator[None]:
    """No packet of the bastion reaches this hypervisor."""
    with _rule("bastion", ["-d", ADDRESSES[host], "-p", "tcp", "-j", *how]):
        yield


@contextmanager
def _rule(place: str, words: list[str]) -> Iterator[None]:
    host_run(place, ["iptables", "-w", "-I", "OUTPUT", *words])
    try:
        yield
    finally:
        host_run(place, ["iptables", "-w", "-D", "OUTPUT", *words])


def restart(host: str, daemon: str) -> None:
    """Restart a daemon of a hypervisor, and wait until it runs."""
    host_run(host, ["supervisorctl", "restart", daemon])
    _wait_running(lambda: host_run(host, ["supervisorctl", "status", daemon], check=False))


def restart_database(cell: str) -> None:
    """Restart the database server of a cell."""
    control = ["supervisorctl", "-c", str(SERVICES_SUPERVISOR)]
    run([*control, "restart", f"mariadb-{cell}"])
    _wait_running(lambda: run([*control, "status", f"mariadb-{cell}"], check=False))


def _wait_running(look: Callable[[], str]) -> None:
    deadline = time.monotonic() + RUNNING_SECONDS
    while "RUNNING" not in (said := look()):
        if time.monotonic() > deadline:
            pytest.fail(f"it does not run again: {said}")
        time.sleep(0.2)


@contextmanager
def disk_full(host: str, server: str, mib: int = 4) -> Iterator[None]:
    """So much is all that there is for the server's files on this host."""
    folder, device = str(INSTANCES / server), f"/tmp/{server}.loop"
    owner = host_run(host, ["stat", "-c", "%u:%g", folder]).strip()
    with tempfile.NamedTemporaryFile() as small:
        os.truncate(small.name, mib << 20)
        options = ["-q", "-m", "0", "-O", "^has_journal", "-E", f"root_owner={owner}"]
        run(["mkfs.ext4", *options, small.name])
        loop = run(["losetup", "--find", "--show", small.name]).strip()
        try:
            number = str(os.minor(Path(loop).stat().st_rdev))
            host_run(host, ["mknod", device, "b", "7", number])
            host_run(host, ["mount", device, folder])
            yield
        finally:
            host_run(host, ["umount", "--lazy", folder], check=False)
            host_run(host, ["rm", "-f", device])
            run(["losetup", "--detach", loop])


def crash_guest(host: str, server: str) -> None:
    """QEMU dies as of a fault of its own."""
    found = host_run(host, ["pgrep", "-f", f"qemu-system.*{server}"]).split()
    assert len(found) == 1, found
    host_run(host, ["kill", "-SEGV", *found])


def wait_there(host: str, path: os.PathLike[str], timeout_seconds: int = 60) -> None:
    """Wait until there is something in this file of a host."""
    until = f"until [ -s '{os.fspath(path)}' ]; do sleep 0.02; done"
    host_run(host, ["timeout", str(timeout_seconds), "sh", "-c", until])
