"""What nova's services, and cellmove, say on the lab's RabbitMQ."""

from __future__ import annotations

import json
import socket
import threading
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import kombu
import pytest

from tests.lab.kit.places import SERVICES, STATE, namespace

BROKERS = {"api": "10.98.0.20", "cell1": "10.98.0.21", "cell2": "10.98.0.22"}
"""Virtual host, which is its user too -> address."""
TOPIC = "versioned_notifications"
POLL_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Notice:
    """One versioned notification as it came over the bus."""

    bus: str
    """The virtual host where it was sent."""
    event: str
    publisher: str
    priority: str
    request_id: str
    payload: dict[str, Any]
    """`nova_object.data` of the payload."""
    name: str
    """`nova_object.name` and version of the payload."""
    whole: dict[str, Any]
    at: str
    """When it was sent: UTC, as its sender says."""


class Bus:
    """All that was sent to the three virtual hosts since the block began, one queue each."""

    def __init__(self, connections: dict[str, kombu.Connection]) -> None:
        self._connections = connections
        self._heard: list[Notice] = []
        self._told: dict[str, int] = {}
        self._queues = {name: _queue(each) for name, each in connections.items()}

    def of(self, server: str) -> list[Notice]:
        """What was heard of this server until now, in the order in which it was sent."""
        for name, queue in self._queues.items():
            while (message := queue.get(no_ack=True)) is not None:
                self._heard.append(_notice(name, message.payload))
        mine = [each for each in self._heard if each.payload.get("uuid") == server]
        return sorted(mine, key=lambda notice: notice.at)

    def forget(self, server: str) -> None:
        """What came of the server until now is no news."""
        self._told[server] = len(self.of(server))

    def wait(self, server: str, last: str, timeout_seconds: float = 60) -> list[Notice]:
        """Wait for this event; all news of the server up to now, told once."""
        deadline = time.monotonic() + timeout_seconds
        while not any(each.event == last for each in self._news(server)):
            if time.monotonic() > deadline:
                pytest.fail(f"{last} of {server} was not heard: {self._news(server)}")
            time.sleep(POLL_SECONDS)
        news = self._news(server)
        self.forget(server)
        return news

    def _news(self, server: str) -> list[Notice]:
        return self.of(server)[self._told.get(server, 0) :]


def url(bus: str, at: str = "") -> str:
    """How to sign in to this virtual host of the lab's broker, there or `at` another address."""
    password = urllib.parse.quote((STATE / "secrets" / "bus").read_text().strip())
    return f"rabbit://{bus}:{password}@{at or BROKERS[bus] + ':5672'}/{bus}"


@contextmanager
def forwarded(bus: str) -> Iterator[str]:
    """A URL of this virtual host for the conductor's side, which does not reach the broker."""
    lines: list[threading.Thread] = []
    ends: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        waiter = threading.Thread(target=_forward, args=(server, BROKERS[bus], lines, ends))
        waiter.start()
        yield url(bus, f"127.0.0.1:{server.getsockname()[1]}")
        server.shutdown(socket.SHUT_RDWR)
        waiter.join()
    for end in ends:
        with suppress(OSError):  # one that hung up itself
            end.shutdown(socket.SHUT_RDWR)
    for line in lines:
        line.join()


def _forward(
    server: socket.socket, broker: str, lines: list[threading.Thread], ends: list[socket.socket]
) -> None:
    with suppress(OSError), namespace(SERVICES):  # ends with the listening socket
        while True:
            near, _ = server.accept()
            far = socket.create_connection((broker, 5672))
            ends += [near, far]
            lines.append(threading.Thread(target=_connect, args=(near, far)))
            lines[-1].start()


def _connect(near: socket.socket, far: socket.socket) -> None:
    with near, far:
        back = threading.Thread(target=_pump, args=(far, near))
        back.start()
        _pump(near, far)
        back.join()


def _pump(one: socket.socket, other: socket.socket) -> None:
    with suppress(OSError):
        while content := one.recv(65536):
            other.sendall(content)
        other.shutdown(socket.SHUT_WR)


@contextmanager
def listening() -> Iterator[Bus]:
    """Hear what is sent while the block runs."""
    with ExitStack() as stack:
        connections = {
            name: stack.enter_context(kombu.Connection(url(name).replace("rabbit:", "amqp:", 1)))
            for name in BROKERS
        }
        with namespace(SERVICES):  # the conductor's side does not reach the broker
            bus = Bus(connections)
        yield bus


def _queue(connection: kombu.Connection) -> Any:
    exchange = kombu.Exchange("nova", type="topic", durable=False)
    queue = kombu.Queue("", exchange, routing_key=f"{TOPIC}.*", exclusive=True)
    bound = queue(connection.channel())
    bound.declare()
    return bound


def _notice(bus: str, envelope: dict[str, Any]) -> Notice:
    message = json.loads(envelope["oslo.message"])
    payload = message["payload"]
    return Notice(
        bus=bus,
        event=message["event_type"],
        publisher=message["publisher_id"],
        priority=message["priority"],
        request_id=message.get("_context_request_id") or message.get("_context_global_request_id"),
        payload=payload["nova_object.data"],
        name=f"{payload['nova_object.name']} {payload['nova_object.version']}",
        whole=message,
        at=message["timestamp"],
    )
