"""A hypervisor's image cache: what disks lie on, brought once, kept while needed, given back."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

from cellmove.errors import StepFailed
from cellmove.hosts import disks
from cellmove.hosts.disks import Argv, Layout
from cellmove.hosts.inventory import directories
from cellmove.hosts.shell import Completed, Shell
from cellmove.hosts.transfer import End, program
from cellmove.model import Disk

_SECONDS: Final = 60
_LONG_SECONDS: Final = 600
"""To read or delete a whole image. As in sudoers.j2."""


Key = tuple[str, str]
"""A host, and a base there."""


@dataclass(slots=True)
class Hashes:
    """What bases have, each read once, whatever asks for it at the same time.

    nova never changes one. Should one be another all the same, the disks that are made on it do not
    show what their sources do, and no move goes on from there.
    """

    _known: dict[Key, str] = field(default_factory=dict)
    _reading: defaultdict[Key, threading.Lock] = field(
        default_factory=lambda: defaultdict(threading.Lock)
    )

    def of(self, key: Key, read: Callable[[], str]) -> str:
        """The hash of this base; it is read if nobody has."""
        with self._reading[key]:
            if key not in self._known:
                self._known[key] = read()
            return self._known[key]

    def forget(self, key: Key) -> None:
        """It is no more there."""
        self._known.pop(key, None)


class ImageCache(ABC):
    """The part of a hypervisor that has to do with bases, each named as nova names it."""

    def __init__(self, shell: Shell, layout: Layout, hashes: Hashes | None = None) -> None:
        """`hashes`: what is known already, and is kept for others."""
        self._shell = shell
        self._layout = layout
        self._hashes = hashes or Hashes()

    def has_base(self, base: str) -> bool:
        """Whether the cache has this image."""
        test = disks.is_file(self._layout.base(base))
        done = self._cached("nova", test, check=False)
        if done.status > 1 or done.stderr:
            raise StepFailed(
                f"Whether {self._shell.host} has image {base} cannot be seen.",
                f"Status {done.status}: {done.stderr.strip()}",
                "Run `cellmove check`.",
            )
        return done.status == 0

    def base_hash(self, server: str, base: str) -> str:
        """Hash of what an image in the cache has, read once."""

        def read() -> str:
            end = self.base_end(server, base)
            done = self._shell.run(program(end, "hash"), timeout_seconds=_LONG_SECONDS)
            told = done.stderr.splitlines()
            return next(line for line in told if line.startswith("cellmove-hash"))

        return self._hashes.of((self._shell.host, base), read)

    def base_disk(self, base: str) -> Disk:
        """The image as a disk, to be copied under a name of its own."""
        command = disks.image_info(self._layout.base(base), "raw")
        return replace(disks.disk_of(disks.BASE, self._cached("nova", command).stdout), base="")

    def base_end(self, server: str, base: str) -> End:
        """How an image of the cache is read for a server's move."""
        socket = self._layout.socket(server, disks.BASE)
        command = disks.image_server(self._layout.base(base), "raw", socket, read_only=True)
        return End(self._shell.host, socket, disks.as_user("nova", command))

    def adopt_base(self, server: str, base: str) -> None:
        """Put the copy that was made in the server's directory into the cache, unless it is there.

        nova may fetch the same image at the same time: whoever is first has it.
        """
        half = self._layout.half(server, disks.BASE)
        self._cached("nova", disks.make_directory(self._layout.cache))
        self._cached("nova", disks.keep_base(half, self._layout.base(base)))
        self._cached("nova", disks.remove_half(half), seconds=_LONG_SECONDS)

    def drop_base(self, base: str) -> None:
        """Take an image out of the cache unless a disk here lies on it; twice is once."""
        if not self._is_used(base):
            command = disks.remove(self._layout.base(base))
            self._cached("nova", command, seconds=_LONG_SECONDS)
            self._hashes.forget((self._shell.host, base))

    def keeps_base(self, server: str, base: str) -> bool:
        """Whether a server's directory has a name of its own for this image."""
        return disks.kept_name(base) in self._names(server)

    def keep_base(self, server: str, base: str) -> None:
        """Keep an image, whatever nova deletes from its cache; twice is once."""
        if not self.keeps_base(server, base):
            path = self._layout.kept(server, base)
            self._cached("root", disks.link(self._layout.base(base), path))

    def release_base(self, server: str, base: str) -> None:
        """Keep it no longer; twice is once."""
        self._cached("nova", disks.remove(self._layout.kept(server, base)))

    def restore_base(self, server: str, base: str) -> None:
        """Put an image that was kept back into the cache if it is gone from there."""
        if not self.has_base(base):
            path = self._layout.kept(server, base)
            self._cached("root", disks.link(path, self._layout.base(base)))

    @abstractmethod
    def _known_formats(self, server: str, listed: str) -> dict[str, str]:
        """File name -> format as the host knows it."""

    def _is_used(self, base: str) -> bool:
        listed = self._cached("nova", disks.listing(self._layout.instances_path)).stdout
        found = directories(listed)
        if any(name != server for name, server in found.items()):
            return True  # Of a resize or deletion by nova itself: we may not look into it.
        return any(self._lies_on(server, base) for server in found)

    def _lies_on(self, server: str, base: str) -> bool:
        """Whether one of a server's disks needs the image, those under way too."""
        names = self._names(server)
        listed = "\n".join(names)
        known = self._known_formats(server, listed)
        paths = {name: self._layout.disk(server, name) for name in disks.disk_names(listed)}
        for name in disks.half_names(listed):
            paths[name] = self._layout.half(server, name)
        overlays = [path for name, path in paths.items() if known.get(name) == "qcow2"]
        return disks.kept_name(base) in names or any(
            self._base_under(server, path) == base for path in overlays
        )

    def _base_under(self, server: str, path: str) -> str:
        """What an image lies on; it may go while we look."""
        command = disks.image_info(path, "qcow2", chain=False)
        done = self._cached("nova", command, check=False)
        if done.status and path.rpartition("/")[2] not in self._names(server):
            return ""
        if done.status:
            done = self._cached("nova", command)  # To say what is wrong with it.
        return disks.base_of(done.stdout, self._layout.cache)

    def _names(self, server: str) -> tuple[str, ...]:
        listing = disks.listing(self._layout.directory(server))
        return tuple(self._cached("nova", listing, check=False).stdout.splitlines())

    def _cached(
        self, user: str, command: Argv, *, seconds: int = _SECONDS, check: bool = True
    ) -> Completed:
        return self._shell.run(command, timeout_seconds=seconds, sudo=user, check=check)
