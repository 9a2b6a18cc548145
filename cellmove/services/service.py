"""Calling one service of the cloud: answers, and what becomes of every way to get none."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from cellmove.errors import CellmoveError, Refused, StepFailed, Unknown, Unreachable

if TYPE_CHECKING:
    from keystoneauth1.adapter import Adapter

CONNECT_SECONDS = 10.0
READ_RETRIES = 2
RECENT_SECONDS = 0.5
"""For how long an answer serves again."""
RECENT_ANSWERS = 100
"""Kept at most."""
GATEWAY_ERRORS = (502, 503, 504)
"""What a proxy in front of a service answers: whether the service did it, nobody knows."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a service answered."""

    status: int
    body: Mapping[str, Any]

    @property
    def ok(self) -> bool:
        return self.status < 400

    @property
    def code(self) -> str:
        """The error's machine-readable name: Placement's `code`, Neutron's `type`; else empty."""
        return self._error()[0]

    @property
    def message(self) -> str:
        """What the service says about the error, on one line."""
        text = self._error()[1] or "no explanation"
        return f"{self.status}: {' '.join(text.split())[:300]}"

    def _error(self) -> tuple[str, str]:
        if errors := self.body.get("errors"):  # Placement 1.23 and later
            return str(errors[0].get("code", "")), str(errors[0].get("detail", ""))
        for error in self.body.values():  # Neutron, Keystone: one key that names the kind
            if isinstance(error, Mapping) and "message" in error:
                return str(error.get("type", "")), str(error["message"])
        return "", ""


class Body(dict[str, Any]):
    """What a service said. Whoever asks for a key that it lacks meets the service's error."""

    def __init__(self, said: Mapping[str, Any], lacks: Callable[[str], CellmoveError]) -> None:
        """`lacks` makes the error of a key that is not there."""
        super().__init__(said)
        self._lacks = lacks

    def __missing__(self, key: str) -> Any:
        raise self._lacks(key)


class Service(Protocol):
    """One service's API: JSON in, JSON out; a path begins behind the API's version."""

    def get(self, path: str, **query: str) -> Answer:
        """Read, again when nobody answers.

        Raises:
            Refused: the cloud does not let us (401, 403), or is too old for us (406).
            Unreachable: no answer, only errors of a server (5xx), or nothing that makes sense.
        """
        ...

    def send(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Answer:
        """Write, once. Without `body` nothing is sent as one.

        Raises:
            StepFailed: the cloud does not let us (401, 403) or is too old for us (406); nothing
                was written.
            Unknown: the answer did not come, broke off, or makes no sense, so whether it was done
                is not known.
            Unreachable: the request could not be delivered, so it was not done.
        """
        ...


class _Broken(Exception):
    """An answer came, and it is none."""


@dataclass(frozen=True, slots=True)
class Absent:
    """A `Service` that the cloud does not have; nothing is wrong until somebody needs it."""

    error: Unreachable

    def get(self, path: str, **query: str) -> Answer:
        raise self.error

    def send(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Answer:
        raise self.error


class Recent:
    """A `Service` whose answers serve again for a moment, as long as nothing is written through it.

    A step that looks, does its work on what it saw, and is followed by the next one's look, asks
    the same three times within a few milliseconds. What is written through us, be it only tried,
    is looked at anew.
    """

    def __init__(self, service: Service, seconds: Mapping[str, float] | None = None) -> None:
        """`seconds`: path -> for how long, where it is another time than `RECENT_SECONDS`."""
        self._service = service
        self._seconds = seconds or {}
        self._answers: dict[tuple[str, frozenset[tuple[str, str]]], tuple[float, Answer]] = {}

    def get(self, path: str, **query: str) -> Answer:
        """What was answered a moment ago, else what is answered now."""
        asked, answers = (path, frozenset(query.items())), self._answers
        known = answers.get(asked)
        if known and time.monotonic() - known[0] < self._seconds.get(path, RECENT_SECONDS):
            return known[1]
        answer = self._service.get(path, **query)
        if answer.ok:
            if len(answers) >= RECENT_ANSWERS:
                answers.clear()
            # Written meanwhile: this is the old dictionary, which nobody reads any more.
            answers[asked] = (time.monotonic(), answer)
        return answer

    def send(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Answer:
        """Write; nothing that was asked before the end of it serves again."""
        self._answers = {}
        try:
            return self._service.send(method, path, body)
        finally:
            self._answers = {}


class HttpService:
    """A `Service` over a keystoneauth adapter, which knows endpoint, token and microversion."""

    def __init__(self, name: str, adapter: Adapter, answer_seconds: float) -> None:
        self._name = name
        self._adapter = adapter
        self._timeout = (CONNECT_SECONDS, answer_seconds)

    def get(self, path: str, **query: str) -> Answer:
        for _ in range(READ_RETRIES):
            with suppress(_Broken):
                return self._read(path, query)
        try:
            return self._read(path, query)
        except _Broken as error:
            raise self._unreachable(str(error)) from error

    def _read(self, path: str, query: Mapping[str, str]) -> Answer:
        """Read; when nobody answers again, but not when the answer breaks off."""
        answer = self._request(
            "GET",
            path,
            self._unreachable,
            Refused,
            params=query,
            connect_retries=READ_RETRIES,
            status_code_retries=READ_RETRIES,
            retriable_status_codes=list(GATEWAY_ERRORS),
        )
        if answer.status >= 500:
            raise self._unreachable(f"It answered {answer.message}.")
        return answer

    def send(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Answer:
        def lost(seen: str) -> CellmoveError:
            return Unknown(
                f"{self._name} did not say whether {method} {path} was done.",
                seen,
                "Look at what is there before going on.",
            )

        payload = {} if body is None else {"json": body}
        try:
            answer = self._request(method, path, lost, StepFailed, **payload)
        except _Broken as error:
            raise lost(str(error)) from error
        if answer.status in GATEWAY_ERRORS:
            raise lost(f"It answered {answer.message}.")
        return answer

    def _request(
        self,
        method: str,
        path: str,
        lost: Callable[[str], CellmoveError],
        forbidden: type[CellmoveError],
        **options: Any,
    ) -> Answer:
        from keystoneauth1 import exceptions as ks

        try:
            response = self._sent(method, path, options)
        except ks.Unauthorized as error:  # the token ran out, and there is no new one
            raise forbidden(*sign_in_failed(error)) from error
        except ks.UnknownConnectionError as error:
            raise _Broken("Its answer broke off.") from error
        except ks.ClientException as error:
            seen = f"{line(error)}."
            raise (self._unreachable(seen) if _never_sent(error) else lost(seen)) from error
        answer = self._answer(response, path, lost)
        if answer.status in (401, 403):
            raise forbidden(
                f"{self._name} does not let us {method} {path}.",
                f"It answered {answer.message}.",
                "Sign in as an administrator, or have the service's policy changed.",
            )
        if answer.status == 406:  # that microversion is beyond it: api-sig, microversions
            wanted = self._adapter.default_microversion
            raise forbidden(
                f"{self._name} is too old for this.",
                f"It answered {answer.message}.",
                f"Upgrade it to a release that has microversion {wanted}.",
            )
        return answer

    def _sent(self, method: str, path: str, options: Mapping[str, Any]) -> Any:
        """What the service answered, by a new token if the old one is good no more.

        keystoneauth 5 sees to that for one thread alone: of two that are told 401 at the same time,
        it takes the second one's for final (session.py:Session.invalidate). 401: nothing was done.
        """
        for _ in range(2):
            response = self._adapter.request(
                path, method, raise_exc=False, timeout=self._timeout, **options
            )
            if response.status_code != 401:
                break
        return response

    def _answer(self, response: Any, path: str, lost: Callable[[str], CellmoveError]) -> Answer:
        """What came back; a key that is missed later is told as an answer that makes no sense."""
        status = response.status_code
        said = _json(response)
        if said is None and status < 400:
            kind = response.headers.get("Content-Type", "no type")
            raise _Broken(f"It answered {status} with {kind}, which is no JSON.")

        def lacks(key: str) -> CellmoveError:
            if status >= 400:
                return lost(f"It answered {answer.message}.")
            return lost(f"It answered {status} to {path} without `{key}`.")

        answer = Answer(status, Body(said or {}, lacks))
        return answer

    def _unreachable(self, seen: str) -> CellmoveError:
        return Unreachable(
            f"{self._name} cannot be reached.", seen, "Try again when the service answers."
        )


def sign_in_failed(error: Exception) -> tuple[str, str, str]:
    """What to say when the cloud does not take our credentials, at first or later."""
    return (
        "Signing in to the cloud failed.",
        f"{line(error)}.",
        "Check user, password and project of the cloud in clouds.yaml.",
    )


def _never_sent(error: BaseException) -> bool:
    """Whether no connection came about at all, so that no request can have arrived."""
    from requests.exceptions import ConnectTimeout
    from urllib3.exceptions import NewConnectionError

    return any(isinstance(cause, ConnectTimeout | NewConnectionError) for cause in causes(error))


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and what led to it, back to the first."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def line(error: Exception) -> str:
    """The error on one line, without the pile of causes that requests and urllib3 put into it."""
    text = " ".join(str(error).split()).partition(": HTTP")[0]
    *_, root = causes(error)
    if isinstance(root, OSError) and root.strerror:
        text = f"{text}: {root.strerror}"
    return text[:300].rstrip(".")


def _json(response: Any) -> Mapping[str, Any] | None:
    """The object in an answer, empty where there is nothing in it; None: it is no object."""
    if not response.content:
        return {}
    try:
        body = response.json()
    except ValueError:
        return None
    if body is None:  # `null`: nothing to say (Neutron's PUT of a tag).
        return {}
    return body if isinstance(body, dict) else None
