"""An HTTP proxy between cellmove and the services of a cloud, which does harm by rule.

It stands before real services in the lab and before a scripted one in unit tests: one address a
service, every call noted, and one call of them spoilt in the way that is asked for.
"""

from __future__ import annotations

import enum
import http.client
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

WRITES = ("POST", "PUT", "PATCH", "DELETE")
HOP_BY_HOP = {"connection", "transfer-encoding", "keep-alive", "content-length"}
SILENCE_SECONDS = 60.0
"""How long a call is held that is never answered, unless its client goes away earlier."""
SLOW_SECONDS = 0.5


class Fault(enum.Enum):
    """What may happen to a call."""

    ERROR = "500"
    UNAVAILABLE = "503"
    CONFLICT = "409"
    RESET = "reset"
    """The connection breaks; the service has not seen the call."""
    SILENT = "time-out"
    """No answer; the service has not seen the call."""
    HALF = "half an answer"
    """The service has done it; what it says breaks off."""
    GARBAGE = "garbage"
    """The service has done it; somebody on the way answers 200 with a page of HTML."""
    LOST = "answer lost"
    """The service has done it; the connection breaks before it can say so."""
    LATE = "answer too late"
    """The service has done it; what it says does not come in time."""
    SLOW = "slow"
    """It takes longer, and that is all."""

    @property
    def was_done(self) -> bool:
        """Whether the service did what it was asked."""
        return self in DONE


DONE = {Fault.HALF, Fault.GARBAGE, Fault.LOST, Fault.LATE, Fault.SLOW}
STATUSES = {Fault.ERROR: 500, Fault.UNAVAILABLE: 503, Fault.CONFLICT: 409}


@dataclass(frozen=True, slots=True)
class Call:
    """What was asked of whom."""

    service: str
    method: str
    path: str
    """Behind the service's address, with its query."""

    @property
    def writes(self) -> bool:
        """Whether it changes something there."""
        return self.method in WRITES


Rule = Callable[[Call], Fault | None]
"""Told of each call, in order: what is to happen to it."""


class Proxy:
    """Stands before several services, each under its own path: `url("network")`."""

    def __init__(self, upstreams: Mapping[str, str]) -> None:
        """`upstreams`: service -> its real address."""
        self.upstreams = {name: url.rstrip("/") for name, url in upstreams.items()}
        self.calls: list[Call] = []
        self.forwarded: list[Call] = []
        """Those that a service has seen."""
        self.rule: Rule | None = None
        self.over = threading.Event()
        self.lock = threading.Lock()
        self.port = 0

    def url(self, service: str) -> str:
        """The address to give to cellmove instead of the service's own."""
        return f"http://127.0.0.1:{self.port}/{service}"

    @contextmanager
    def spoiling(self, rule: Rule) -> Iterator[None]:
        """While the block runs, calls are spoilt by this rule; what was noted is forgotten."""
        self.forget()
        self.rule = rule
        try:
            yield
        finally:
            self.rule = None

    def forget(self) -> None:
        """Forget which calls there were."""
        self.calls.clear()
        self.forwarded.clear()

    @property
    def written(self) -> list[Call]:
        """The calls that were to change something, in order."""
        return [call for call in self.calls if call.writes]

    def judge(self, call: Call) -> Fault | None:
        """Note a call, and say what is to happen to it."""
        with self.lock:
            self.calls.append(call)
            return self.rule(call) if self.rule else None


@contextmanager
def proxy(upstreams: Mapping[str, str]) -> Iterator[Proxy]:
    """A proxy on loopback, in the network namespace of whoever asks, until the block ends."""
    made = Proxy(upstreams)

    class Handler(_Handler):
        here = made

    with _Server(("127.0.0.1", 0), Handler) as server:
        made.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield made
        finally:
            made.over.set()
            server.shutdown()
            thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, *_: object) -> None:
        """A client that has gone away is what we are here for."""


class _Handler(BaseHTTPRequestHandler):
    here: Proxy

    def _serve(self) -> None:
        _, service, rest = self.path.split("/", 2)
        call = Call(service, self.command, f"/{rest}")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.here.judge(call)
        if fault in STATUSES:
            self._say(STATUSES[fault], {}, json.dumps(_refusal(STATUSES[fault])).encode())
        elif fault is Fault.RESET:
            self._hang_up()
        elif fault is Fault.SILENT:
            self._hold()
        else:
            self._answer(call, body, fault)

    def _answer(self, call: Call, body: bytes, fault: Fault | None) -> None:
        if fault is Fault.SLOW:
            time.sleep(SLOW_SECONDS)
        status, headers, said = self._forward(call, body)
        if fault is Fault.LOST or (fault is Fault.HALF and not said):
            self._hang_up()
        elif fault is Fault.LATE:
            self._hold()
        elif fault is Fault.GARBAGE:
            self._say(200, {"Content-Type": "text/html"}, b"<html>Please sign in.</html>")
        elif fault is Fault.HALF:
            self._say(status, headers, said[: len(said) // 2], promised=len(said))
        else:
            self._say(status, headers, said)

    def _forward(self, call: Call, body: bytes) -> tuple[int, Mapping[str, str], bytes]:
        url = urlsplit(self.here.upstreams[call.service])
        headers = {k: v for k, v in self.headers.items() if k.lower() not in {*HOP_BY_HOP, "host"}}
        connection = http.client.HTTPConnection(url.hostname or "", url.port or 80, timeout=180)
        try:
            connection.request(call.method, url.path + call.path, body or None, headers)
            answer = connection.getresponse()
            said = answer.read()
            self.here.forwarded.append(call)
            kept = {k: v for k, v in answer.getheaders() if k.lower() not in HOP_BY_HOP}
            return answer.status, kept, said
        finally:
            connection.close()

    def _say(
        self, status: int, headers: Mapping[str, str], said: bytes, promised: int | None = None
    ) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(said) if promised is None else promised))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(said)

    def _hang_up(self) -> None:
        """Not politely: the other side sees a reset."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with suppress(OSError):
            self.connection.close()

    def _hold(self) -> None:
        """Say nothing until the client goes away."""
        self.connection.settimeout(0.1)
        deadline = time.monotonic() + SILENCE_SECONDS
        while not self.here.over.is_set() and time.monotonic() < deadline:
            try:
                if not self.connection.recv(1):
                    break
            except TimeoutError:
                continue
            except OSError:
                break
        self._hang_up()

    def log_message(self, *_: object) -> None: ...


for _method in ("GET", *WRITES):
    setattr(_Handler, f"do_{_method}", _Handler._serve)


def _refusal(status: int) -> dict[str, object]:
    """An error in a form that every service uses or that none would trip over."""
    said = "Made on purpose."
    return {
        "errors": [{"status": status, "code": "cellmove.test", "detail": said}],
        "NeutronError": {"type": "MadeOnPurpose", "message": said, "detail": ""},
    }
