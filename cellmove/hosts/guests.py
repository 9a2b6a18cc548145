"""The guests of a hypervisor: its libvirt, spoken to through a bridge."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import libvirt

from cellmove.errors import StepFailed, Unknown, Unreachable
from cellmove.hosts.bridge import Bridge
from cellmove.hosts.machine import Offer, ask
from cellmove.hosts.shell import Shell
from cellmove.hosts.xml import GuestXml
from cellmove.model import Domain, GuestState

T = TypeVar("T")

HELPER: Final = "virt-ssh-helper qemu:///system"
"""Comes with libvirt: joins its standard input and output with libvirt's socket."""
CALL_SECONDS: Final = 30
START_SECONDS: Final = 120
_KEEPALIVE: Final = (5, 3)
"""Seconds between two, and how many may stay without an answer."""
_BUTTON_SECONDS: Final = 5
"""A guest that still boots misses the power button: it is pressed again and again."""
_LOOK_SECONDS: Final = 0.05
"""A look at a domain takes 2 ms; what the server waits here, it is down."""
_PAUSED: Final = frozenset({libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PMSUSPENDED})


class Guests:
    """One hypervisor's domains; the connection is opened when needed, and opened anew when lost."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self._bridge: Bridge | None = None
        self._connection: Any = None
        self._opening = threading.Lock()

    def find(self, server: str) -> Domain | None:
        """The server's domain as it would be started next time, without secrets."""

        def look(domain: Any) -> Domain:
            xml = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
            return Domain(server, domain.name(), _state(domain), xml)

        try:
            return self._with_domain(server, look)
        except Unknown:
            # A link that was lost unseen shows at the first word on it. A look may be repeated.
            return self._with_domain(server, look)

    def define(self, xml: str) -> None:
        """Define a domain, or define it anew."""
        self._call(lambda connection: connection.defineXML(xml))

    def undefine(self, server: str) -> None:
        """Forget a domain that is off; its NVRAM stays.

        Raises:
            StepFailed: it runs, or has checkpoints.
        """

        def forget(domain: Any) -> None:
            if domain.isActive():
                raise StepFailed(
                    f"The guest of {server} still runs on {self._shell.host}.",
                    "A running guest is not forgotten.",
                    "Stop the server, then try again.",
                )
            # libvirt 9.0 refuses this by itself, but not with the flag below.
            if domain.listAllCheckpoints():
                raise StepFailed(
                    f"The guest of {server} on {self._shell.host} has libvirt checkpoints.",
                    "Their bitmaps would stay in its disks.",
                    "Delete them with `virsh checkpoint-delete`, then try again.",
                )
            domain.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_KEEP_NVRAM)

        self._with_domain(server, forget)

    def start(self, server: str, *, paused: bool = False) -> None:
        """Start a domain, its processors halted if asked; nothing happens when it is active.

        Raises:
            StepFailed: there is none.
        """

        def begin(domain: Any) -> bool:
            if not domain.isActive():
                domain.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED if paused else 0)
            return True

        if not self._with_domain(server, begin, START_SECONDS):
            raise StepFailed(
                f"The guest of {server} cannot be started on {self._shell.host}.",
                "Its libvirt does not know it.",
                "Run `cellmove show` for this move.",
            )

    def resume(self, server: str) -> None:
        """Let a paused domain run; nothing happens when it runs.

        Raises:
            StepFailed: there is none, or it is off.
        """

        def go_on(domain: Any) -> bool:
            if domain.state()[0] == libvirt.VIR_DOMAIN_PAUSED:
                domain.resume()
            return bool(domain.isActive())

        if not self._with_domain(server, go_on):
            raise StepFailed(
                f"The guest of {server} does not run on {self._shell.host}.",
                "It is off, or its libvirt does not know it.",
                "Look at the guest's log on that host.",
            )

    def pause(self, server: str) -> None:
        """Stop a running domain's processors; nothing happens when it does not run."""

        def stop(domain: Any) -> None:
            if domain.state()[0] == libvirt.VIR_DOMAIN_RUNNING:
                domain.suspend()

        self._with_domain(server, stop)

    def shutdown(self, server: str, timeout_seconds: int) -> None:
        """Press the power button until the guest is off; pull the plug when the time is over."""
        deadline = time.monotonic() + timeout_seconds
        pressed = float("-inf")
        while self._with_domain(server, lambda domain: bool(domain.isActive())):
            now = time.monotonic()
            if now >= deadline:
                self._with_domain(server, lambda domain: domain.destroy(), START_SECONDS)
                return
            if now - pressed >= _BUTTON_SECONDS:
                self._with_domain(server, _press)
                pressed = now
            time.sleep(_LOOK_SECONDS)

    def offer(self, guest: GuestXml) -> Offer:
        """What this libvirt says about a guest that would come here."""
        return self._call(lambda connection: ask(connection, guest))

    def ask(self, use: Callable[[Any], T]) -> T:
        """What `use` answers for the connection to libvirt."""
        return self._call(use)

    def on(self, server: str, use: Callable[[Any], T]) -> T | None:
        """What `use` answers for the server's domain; None when there is no such domain."""
        return self._with_domain(server, use, START_SECONDS)

    def has_secret(self, secret: str) -> bool:
        """Whether libvirt keeps a secret of this uuid; what it is stays there."""

        def look(connection: Any) -> bool:
            try:
                connection.secretLookupByUUIDString(secret)
            except libvirt.libvirtError as error:
                if error.get_error_code() == libvirt.VIR_ERR_NO_SECRET:
                    return False
                raise
            return True

        return self._call(look)

    def version(self) -> int:
        """Version of libvirt there: 9000000 is 9.0.0."""
        return int(self._call(lambda connection: connection.getLibVersion()))

    def get_ready(self) -> None:
        """Open the connection that the first question will find.

        Raises:
            Unreachable: libvirt does not answer.
        """
        self._open()

    def close(self) -> None:
        """Hang up."""
        if self._connection is not None:
            try:
                self._connection.close()
            except libvirt.libvirtError:
                pass  # It was broken already.
        if self._bridge is not None:
            self._bridge.close()
        self._connection = self._bridge = None

    def _with_domain(
        self, server: str, use: Callable[[Any], T], seconds: float = CALL_SECONDS
    ) -> T | None:
        """What `use` answers for the server's domain; None when there is no such domain."""

        def look_up_and_use(connection: Any) -> T | None:
            try:
                return use(connection.lookupByUUIDString(server))
            except libvirt.libvirtError as error:
                if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                    return None
                raise

        return self._call(look_up_and_use, seconds)

    def _call(self, use: Callable[[Any], T], seconds: float = CALL_SECONDS) -> T:
        connection = self._open()
        with _Deadline(seconds, self._cut) as deadline:
            try:
                return use(connection)
            except libvirt.libvirtError as error:
                raise self._meaning(error, missed=deadline.missed) from error

    def _open(self) -> Any:
        with self._opening:
            return self._opened()

    def _opened(self) -> Any:
        if self._connection is not None and self._connection.isAlive():
            return self._connection
        self.close()
        _start_event_loop()
        self._bridge = bridge = Bridge(self._shell.channel, HELPER)
        with _Deadline(CALL_SECONDS, bridge.close):
            try:
                self._connection = libvirt.open(f"qemu+unix:///system?socket={bridge.path}")
                self._connection.setKeepAlive(*_KEEPALIVE)
            except libvirt.libvirtError as error:
                self.close()
                raise bridge.why_not or Unreachable(
                    f"libvirt on {self._shell.host} does not answer.",
                    f"Seen: {error}.",
                    "Run `cellmove check`.",
                ) from error
        return self._connection

    def _cut(self) -> None:
        if self._bridge is not None:
            self._bridge.close()

    def _meaning(self, error: Any, *, missed: bool) -> StepFailed:
        if missed or not self._connection.isAlive():
            return Unknown(
                f"libvirt on {self._shell.host} was asked and did not answer.",
                f"Seen: {'no answer in time' if missed else error}.",
                "Look at the guest there before going on.",
            )
        return StepFailed(
            f"libvirt on {self._shell.host} refused.",
            f"It says: {error}.",
            "Mend the cause on the host, then try again.",
        )


class _Deadline:
    """Calls `late` when the block takes too long: a call into libvirt cannot be left otherwise."""

    def __init__(self, seconds: float, late: Callable[[], None]) -> None:
        self.missed = False
        self._late = late
        self._timer = threading.Timer(seconds, self._miss)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._timer.cancel()

    def _miss(self) -> None:
        self.missed = True
        self._late()


def _state(domain: Any) -> GuestState:
    if not domain.isActive():
        return "off"
    return "paused" if domain.state()[0] in _PAUSED else "running"


def _press(domain: Any) -> None:
    """Press the power button; a guest that went off meanwhile is what we want."""
    try:
        domain.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN)
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_OPERATION_INVALID:
            raise


_LOOP_LOCK: Final = threading.Lock()


def _start_event_loop() -> None:
    with _LOOP_LOCK:
        _event_loop()


@functools.cache
def _event_loop() -> None:
    """Keep-alive needs a loop that runs before the first connection is opened."""
    libvirt.registerErrorHandler(lambda _context, _error: None, None)  # Else it writes to stderr.
    libvirt.virEventRegisterDefaultImpl()

    def loop() -> None:
        while True:
            libvirt.virEventRunDefaultImpl()

    threading.Thread(target=loop, name="libvirt", daemon=True).start()
