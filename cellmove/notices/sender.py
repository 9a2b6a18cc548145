"""The way to the message bus, through oslo.messaging, on a thread of its own: nobody waits."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final, Protocol

from cellmove.errors import Refused

TOPIC: Final = "versioned_notifications"
EXCHANGE: Final = "nova"
PRIORITY: Final = "INFO"
LAST_WORDS_SECONDS: Final = 10.0
"""How long the end of a command waits for what is still to be sent."""


@dataclass(frozen=True, slots=True)
class Notice:
    """One notification, ready to be sent."""

    publisher: str
    event: str
    context: Mapping[str, Any]
    payload: Mapping[str, Any]


class Out(Protocol):
    """Where notices leave."""

    def send(self, notice: Notice) -> None:
        """Send one; raises whatever goes wrong."""
        ...

    def close(self) -> None: ...


class Sender:
    """Sends in order, in the background; what cannot be sent is told once and is lost."""

    def __init__(self, out: Out, say: Callable[[str], None]) -> None:
        self._out = out
        self._say = say
        self._queue: queue.SimpleQueue[Notice | None] = queue.SimpleQueue()
        self._lost = 0
        self._thread = threading.Thread(target=self._work, name="notices", daemon=True)
        self._thread.start()

    def send(self, notice: Notice) -> None:
        """Put it into the line."""
        self._queue.put(notice)

    def lose(self, why: str) -> None:
        """One cannot be sent."""
        if not self._lost:
            self._say(f"A notification was not sent: {why.rstrip('.')}. The move goes on.")
        self._lost += 1

    def close(self, timeout_seconds: float = LAST_WORDS_SECONDS) -> None:
        """Send what is in the line, but do not wait for ever."""
        self._queue.put(None)
        self._thread.join(timeout_seconds)
        if self._thread.is_alive():
            self._say(f"The bus does not answer: {self._queue.qsize()} notification(s) are lost.")

    def _work(self) -> None:
        while (notice := self._queue.get()) is not None:
            try:
                self._out.send(notice)
            except Exception as error:  # noqa: BLE001 - a bus fails in many ways
                self.lose(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")
        with suppress(Exception):  # all was said
            self._out.close()


class _Failures(logging.Handler):
    """What oslo.messaging would only log, payload and all: it never raises from a notifier."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self._seen: list[BaseException] = []
        logger = logging.getLogger("oslo_messaging")
        logger.propagate = False
        logger.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[1] is not None:
            self._seen.append(record.exc_info[1])

    @contextmanager
    def raised(self) -> Iterator[None]:
        """Raise what was logged in the block."""
        self._seen.clear()
        yield
        if self._seen:
            raise self._seen[0]


class Bus:
    """An `Out` over oslo.messaging's `messagingv2` driver, as nova's own notifier has it."""

    def __init__(self, url: str, settings_file: str = "") -> None:
        """Nothing is connected yet.

        Raises:
            Refused: oslo.messaging is not installed, or cannot use the URL or the file.
        """
        try:
            import oslo_messaging
            from oslo_config import cfg
        except ImportError:
            raise Refused(
                "Notifications cannot be sent.",
                "oslo.messaging is not installed.",
                "Run `pip install cellmove[notifications]`, or take [notifications] away.",
            ) from None
        settings = cfg.ConfigOpts()
        files = [settings_file] if settings_file else []
        try:
            settings([], default_config_files=files, default_config_dirs=[])
            oslo_messaging.set_transport_defaults(EXCHANGE)
            self._transport = oslo_messaging.get_notification_transport(settings, url=url)
        except (cfg.Error, oslo_messaging.MessagingException) as error:
            raise Refused(
                "Notifications cannot be sent.",
                f"{type(error).__name__}: the transport cannot be made of what is configured.",
                "Mend `transport_url` or `settings_file` in [notifications].",
            ) from None
        self._notifier = oslo_messaging.Notifier(
            self._transport, driver="messagingv2", topics=[TOPIC], retry=0
        )
        self._failures = _Failures()

    def send(self, notice: Notice) -> None:
        """Send one; raises whatever goes wrong."""
        from oslo_context.context import RequestContext  # what it takes; a dict would be dropped

        context = RequestContext(overwrite=False, is_admin=True, **notice.context)
        notifier = self._notifier.prepare(publisher_id=notice.publisher)
        with self._failures.raised():
            notifier.info(context, notice.event, dict(notice.payload))

    def close(self) -> None:
        """Let go of the connection."""
        self._transport.cleanup()


def open_sender(url: str, settings_file: str, say: Callable[[str], None]) -> Sender:
    """A sender to this bus; it connects with the first notice.

    Raises:
        Refused: see `Bus`.
    """
    return Sender(Bus(url, settings_file), say)
