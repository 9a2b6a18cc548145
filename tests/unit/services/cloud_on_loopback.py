"""A Keystone and one more service on 127.0.0.1, whose every answer a test writes."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

HANG_UP = 0
"""As a status: close the connection without an answer."""


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass
class LoopbackCloud:
    """What came in, and what to answer: (method, path) -> (status, body), one after the other."""

    port: int = 0
    password: str = "a-secret"
    """What Keystone takes."""
    requests: list[Request] = field(default_factory=list)
    answers: dict[tuple[str, str], list[tuple[int, Any]]] = field(default_factory=dict)
    roles: Sequence[str] = ("admin",)
    scope: Mapping[str, Any] = field(
        default_factory=lambda: {"project": {"id": "p1", "name": "admin", "domain": {"id": "d1"}}}
    )
    """What the token is for."""
    tokens_checked: bool = False
    """Whether the service takes only tokens that were given since the last `revoke`."""
    valid: set[str] = field(default_factory=set)
    keeps: bool = False
    """Whether clouds.yaml says that tokens are to be kept for the next command."""
    told: tuple[int, Any] | None = None
    """What Keystone answers who asks for a token, if not what is true."""
    sleep: Callable[[], object] = lambda: None
    """Called before each answer of the service."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def asked(self, path: str) -> list[Request]:
        """What the service was asked on this path."""
        return [request for request in self.requests if request.path.partition("?")[0] == path]

    def revoke(self) -> None:
        """No token given until now is good any more: they have expired, or were revoked."""
        self.tokens_checked = True
        self.valid.clear()

    @property
    def passwords(self) -> list[str]:
        """Who has signed in with one, in this order."""
        asked = [each for each in self.requests if each.path == "/identity/v3/auth/tokens"]
        return [_user(each)["name"] for each in asked if each.method == "POST"]

    def clouds_yaml(self, **more: object) -> str:
        auth = {
            "auth_url": f"{self.url}/identity/v3",
            "username": "operator",
            "password": "a-secret",
            "project_name": "admin",
            "user_domain_id": "default",
            "project_domain_id": "default",
        }
        clouds: dict[str, object] = {
            "here": {"auth": auth, "region_name": "R", **more},
            "nobody": {"auth": {**auth, "password": "wrong"}, "region_name": "R"},
            "service": {"auth": {**auth, "username": "cellmove"}, "region_name": "R"},
        }
        return json.dumps({"clouds": clouds, "cache": {"auth": self.keeps}})

    def answer(self, request: Request) -> tuple[int, Any, Mapping[str, str]]:
        path = request.path.partition("?")[0]
        if path == "/identity/v3/auth/tokens":
            return self._told(request) if request.method == "GET" else self._token(request)
        if path.rstrip("/") == "/identity/v3":
            links = [{"rel": "self", "href": f"{self.url}/identity/v3/"}]
            return 200, {"version": {"id": "v3.14", "status": "stable", "links": links}}, {}
        self.sleep()
        sent = {request.headers.get(name) for name in ("x-auth-token", "x-service-token")}
        if self.tokens_checked and not sent - {None} <= self.valid:
            return 401, {"error": {"code": 401, "message": "The token is not good."}}, {}
        queue = self.answers.get((request.method, path), [(404, {})])
        status, body = queue.pop(0) if len(queue) > 1 else queue[0]
        return status, body, {}

    def _token(self, request: Request) -> tuple[int, Any, Mapping[str, str]]:
        user = _user(request)
        if user["password"] != self.password:
            return 401, {"error": {"code": 401, "message": "Who are you?"}}, {}
        number = sum(each.path.endswith("/auth/tokens") for each in self.requests)
        given = f"token-of-{user['name']}" + (f"-{number}" if self.tokens_checked else "")
        self.valid.add(given)
        return 201, self._said(user["name"]), {"X-Subject-Token": given}

    def _told(self, request: Request) -> tuple[int, Any, Mapping[str, str]]:
        """What is true of a token that was given before."""
        given = request.headers["x-subject-token"]
        if self.told:
            return *self.told, {"X-Subject-Token": given}
        if not {given, request.headers["x-auth-token"]} <= self.valid:
            return 401, {"error": {"code": 401, "message": "The token is not good."}}, {}
        return 200, self._said(given.split("-")[2]), {"X-Subject-Token": given}

    def _said(self, user: str) -> Any:
        endpoints = [
            {"interface": "public", "region": "R", "region_id": "R", "url": url, "id": "e"}
            for url in (f"{self.url}/network",)
        ]
        token = {
            "methods": ["password"],
            "issued_at": "2026-01-01T00:00:00.000000Z",
            "expires_at": "2099-01-01T00:00:00.000000Z",
            "user": {"id": user, "name": user, "domain": {"id": "default"}},
            **self.scope,
            "roles": [{"id": f"id-of-{role}", "name": role} for role in self.roles],
            "catalog": [{"type": "network", "id": "s", "name": "n", "endpoints": endpoints}],
        }
        return {"token": token}


def _user(request: Request) -> dict[str, str]:
    user: dict[str, str] = json.loads(request.body)["auth"]["identity"]["password"]["user"]
    return user


@contextmanager
def loopback_cloud() -> Iterator[LoopbackCloud]:
    cloud = LoopbackCloud()

    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            headers = {name.lower(): value for name, value in self.headers.items()}
            request = Request(self.command, self.path, headers, self.rfile.read(length))
            cloud.requests.append(request)
            status, body, more = cloud.answer(request)
            if status == HANG_UP:
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True
                return
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", **more}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_request(self, code: object = "", size: object = "") -> None: ...

    for method in ("GET", "POST", "PUT", "DELETE"):
        setattr(Handler, f"do_{method}", Handler._serve)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        cloud.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield cloud
        server.shutdown()
        thread.join()
