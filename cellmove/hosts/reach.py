"""All hypervisors, opened when needed, and the way of a disk between two of them."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Final, Self

from cellmove.errors import CellmoveError, StepFailed, Unreachable
from cellmove.hosts import relay
from cellmove.hosts.bases import Hashes
from cellmove.hosts.connect import STORAGE, Storage
from cellmove.hosts.disks import Layout
from cellmove.hosts.hypervisor import RemoteHypervisor
from cellmove.hosts.openssh import configuration
from cellmove.hosts.precopy import Precopy
from cellmove.hosts.shell import Shells
from cellmove.hosts.transfer import UNHELD, End, Masters, Pace, carry
from cellmove.model import Disk, Move, Transfer

_JOIN_SECONDS: Final = 1
"""For a way that nobody waits for any more; the thread ends with the program in any case."""


class RemoteHosts:
    """Hypervisors behind a bastion: `cellmove.cloud.Hosts` for real hosts. A context manager."""

    def __init__(
        self,
        *,
        ssh_config: str = "~/.ssh/config",
        bastion: str = "",
        by_bastion: bool = False,
        address: str = "{name}",
        instances_path: str = "/var/lib/nova/instances",
        bridge: str = "br-int",
        storage: Storage = STORAGE,
        hashes: Hashes | None = None,
    ) -> None:
        """Nothing is opened yet.

        `ssh_config`: path of the user's SSH configuration. `bastion`: the bastion's name in it;
        empty: hosts are reached directly. `by_bastion`: copies pass through it alone. `address`:
        what a host is called there, made of `{name}` (`services.host`). `instances_path`: nova's,
        the same on all hosts. `bridge`: Open vSwitch's integration bridge. `storage`: what
        nova-compute is told of volumes. `hashes`: of images, known from before.

        Raises:
            Unreachable: the SSH configuration cannot be read, or `address` is no such template.
        """
        self._shells = Shells(ssh_config, bastion)
        self._masters = Masters()
        self._configuration = configuration(ssh_config, bastion, self._masters.directory)
        self._relay = bastion if by_bastion else ""
        self._address = address
        self._layout = Layout(instances_path)
        self._bridge = bridge
        self._storage = storage
        self._hashes = hashes
        self._pace = UNHELD
        self._hypervisors: dict[str, RemoteHypervisor] = {}
        self._opening: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._expecting: list[threading.Thread] = []
        self._bringing: defaultdict[tuple[str, str], threading.Lock]
        self._bringing = defaultdict(threading.Lock)
        """Target and base: of several moves one brings it, and the others wait."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def reach(self, name: str) -> RemoteHypervisor:
        """The hypervisor of this name (`services.host`).

        Raises:
            Unreachable: no SSH, no libvirt, or an unknown host key.
        """
        with self._opening[name]:
            if name not in self._hypervisors:
                shell = self._shells.shell(self._address_of(name))
                shell.transport()
                self._hypervisors[name] = RemoteHypervisor(
                    name, shell, self._layout, self._bridge, self._storage, hashes=self._hashes
                )
            return self._hypervisors[name]

    def hold(self, pace: Pace) -> None:
        """Keep each copy of a disk to this pace, from now on."""
        self._pace = pace

    def expect(self, *names: str, volumes: bool = False) -> None:
        """Begin to open the way to these, all at once; without names: to the bastion.

        `volumes`: they are asked as well what they would tell Cinder of themselves, which is kept.
        Raises nothing: what is wrong is told to whoever wants to use it.
        """

        def ready(name: str) -> None:
            with suppress(CellmoveError):
                self.reach(name).get_ready()
                if volumes:
                    self.reach(name).connector()

        def bastion() -> None:
            with suppress(CellmoveError):
                self._shells.get_ready()

        works: list[Callable[[], None]] = [partial(ready, name) for name in names]
        for work in works or [bastion]:
            thread = threading.Thread(target=work, name="expect", daemon=True)
            self._expecting.append(thread)
            thread.start()

    def copy_disk(
        self,
        move: Move,
        disk: Disk,
        size_bytes: int,
        progress: Callable[[Transfer], None],
    ) -> None:
        """Copy a stopped guest's disk from the move's source to its target, verified.

        Of a disk that was copied while the guest ran, only what was written since is copied. If
        that is not known for sure, or a copy broke off, what the target has is compared.

        Raises:
            StepFailed: the guest runs, the copy broke, or it differs.
        """
        source, target = self.reach(move.source.name), self.reach(move.target.name)
        _must_be_off(source, move.server)
        bitmap, is_whole = "", False
        if disk.warm and disk.name in target.halves(move.server):
            bitmap = source.warm.bitmap(move.server, disk, move.id)
            is_whole = source.warm.is_fixed(move.server, disk, move.id)
        known = {} if bitmap or is_whole else target.known(move.server, disk, size_bytes)
        if not bitmap and not is_whole and not known:
            target.begin_disk(move.server, disk, size_bytes)
        if not is_whole:
            self._carry(
                source.reading_end(move.server, disk, bitmap, known),
                target.writing_end(move.server, disk),
                lambda done, total: progress(Transfer(disk.name, done, total)),
            )
        target.finish_disk(move.server, disk)

    def bring_base(self, move: Move, base: str, progress: Callable[[Transfer], None]) -> None:
        """Copy an image from the source's image cache into the target's, verified; twice is once.

        Raises:
            StepFailed: the copy broke, or it differs.
        """
        source, target = self.reach(move.source.name), self.reach(move.target.name)
        with self._bringing[move.target.name, base]:
            if target.has_base(base):
                return
            disk = source.base_disk(base)
            target.begin_disk(move.server, disk, disk.size_bytes)
            self._carry(
                source.base_end(move.server, base),
                target.writing_end(move.server, disk),
                lambda done, total: progress(Transfer(disk.name, done, total)),
            )
            target.adopt_base(move.server, base)

    def precopy(
        self,
        move: Move,
        sizes_bytes: Mapping[str, int],
        progress: Callable[[Transfer], None],
    ) -> None:
        """Copy the warm disks of a running guest, round by round, until little is left.

        Raises:
            StepFailed: the guest went off, its libvirt refuses, or a copy broke.
        """
        source, target = self.reach(move.source.name), self.reach(move.target.name)
        warm = tuple(disk for disk in move.disks if disk.warm)
        fixed = source.warm.fixed(move.server, warm)
        addresses = map(self._address_of, (move.source.name, move.target.name))
        self._masters.keep((self._relay,) if self._relay else addresses, self._configuration)

        def copy(disk: Disk, end: End, told: Callable[[int, int], None]) -> None:
            if disk.chained and not end.bitmap:
                end = replace(end, base=source.base_end(move.server, disk.base))
            self._carry(end, target.writing_end(move.server, disk), told)

        def begin_anew() -> None:
            for disk in warm:
                target.begin_disk(move.server, disk, sizes_bytes[disk.name])
            for disk in fixed:
                copy(disk, source.reading_end(move.server, disk), lambda _done, _total: None)

        written = [disk for disk in warm if disk not in fixed]
        Precopy(source.warm, copy, begin_anew, progress).run(move.server, written, move.id)

    def close(self) -> None:
        """Hang up everywhere."""
        for thread in self._expecting:
            thread.join(_JOIN_SECONDS)
        self._expecting.clear()
        for hypervisor in self._hypervisors.values():
            hypervisor.close()
        self._hypervisors.clear()
        self._masters.close()
        self._shells.close()

    def no_way(self, source: str, target: str) -> str:
        """Why copies cannot pass through the bastion alone, where they shall; empty: they can.

        Raises:
            StepFailed: the SSH configuration does not say where one of them is.
        """
        if not self._relay:
            return ""
        hosts = self._address_of(source), self._address_of(target)
        return relay.obstacle(self._configuration, self._relay, *hosts)

    def _carry(self, source: End, target: End, told: Callable[[int, int], None]) -> None:
        carry(source, target, self._configuration, told, self._pace, relay=self._relay)

    def _address_of(self, name: str) -> str:
        try:
            return self._address.format(name=name)
        except (LookupError, ValueError) as error:
            raise Unreachable(
                "The template of the hosts' addresses cannot be used.",
                f"{self._address!r} has other parts than {{name}}.",
                "Mend option `ssh.address`.",
            ) from error


def _must_be_off(source: RemoteHypervisor, server: str) -> None:
    domain = source.domain(server)
    if domain is not None and domain.state != "off":
        raise StepFailed(
            f"The disks of {server} cannot be copied.",
            f"Its guest is {domain.state} on {source.name}.",
            "Stop it first.",
        )
