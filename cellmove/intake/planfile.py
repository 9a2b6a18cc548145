"""A plan as a file: the move as it was planned, and what it was made of.

It is refused when it is not whole, and when the cloud is no longer what it was made of.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from cellmove import __version__
from cellmove.cloud import Cloud
from cellmove.errors import Refusals, Refused
from cellmove.intake.seen import WRITTEN, Facts, move_facts, seen
from cellmove.journal.entries import move_of
from cellmove.model import Move

KIND: Final = "plan of a resize by cellmove"
FORMAT: Final = 1
NOTHING: Final = "nothing"
_AGAIN: Final = "Make a new one with --dry-run --out."


@dataclass(frozen=True, slots=True)
class Frozen:
    """A plan that was put aside."""

    move: Move
    flavor: str | None
    """Id of the flavor that was asked for; None: it stays."""
    cold: bool
    seen: Facts
    made_at: str = ""
    made_by: str = ""
    flatten: bool = False


class Drifted(Refusals):
    """The cloud is no longer what a plan was made of; each reason names one change."""

    def __init__(self, frozen: Frozen, reasons: list[Refused]) -> None:
        super().__init__(f"The cloud has changed since {frozen.move.name} was planned.", reasons)
        self.seen = f"{len(reasons)} change(s) since {frozen.made_at}."
        self.do = f"Look at them. {_AGAIN}"


def freeze(
    cloud: Cloud, move: Move, *, asked: str | None, cold: bool, flatten: bool = False
) -> Frozen:
    """The plan of this move, with what it depends on as it is now. `asked`: the flavor, if any."""
    flavor = move.new_flavor.flavorid if asked is not None else None
    return Frozen(move, flavor, cold, seen(cloud, move), flatten=flatten)


def thaw(
    cloud: Cloud, frozen: Frozen, take_in: Callable[[Frozen], Move], *, touched_by_us: bool = False
) -> Move:
    """The planned move, when all is as it was; `take_in` plans it again, on the same host.

    `touched_by_us`: it was tried and taken back, so the server's row is as before but newer.

    Raises:
        Drifted: something has changed, or speaks against it by now.
        Refused: the server is gone, or the plan is of another cloud.
    """
    if frozen.move.source.cell.uuid not in cloud.cells:
        raise Refused(
            "The plan is of another cloud.",
            f"This one has no cell {frozen.move.source.cell.uuid}.",
            "Sign in to the cloud that it was made for.",
        )
    now = seen(cloud, frozen.move)
    if touched_by_us:
        now[WRITTEN] = frozen.seen.get(WRITTEN, NOTHING)
    found = list(_changes(frozen.seen, now))
    move: Move | None = None
    try:
        move = take_in(frozen)
    except Refusals as error:
        found += error.reasons
    except Refused as error:
        found.append(error)
    if move is not None:
        found += _changes(move_facts(frozen.move), move_facts(move))
    if found or move is None:
        raise Drifted(frozen, found)
    return replace(move, id=frozen.move.id, migration=frozen.move.migration)


def _changes(planned: Facts, now: Facts) -> Iterator[Refused]:
    for what in sorted(planned.keys() | now.keys()):
        was, is_ = planned.get(what, NOTHING), now.get(what, NOTHING)
        if was != is_:
            whole = what[:1].upper() + what[1:]
            yield Refused(f"{whole} is not as planned.", f"The plan has {was}; now it is {is_}.")


def vacant(path: Path) -> None:
    """See that a plan can be written there.

    Raises:
        Refused: there is something already, or no directory.
    """
    if path.exists() or path.is_symlink():
        raise Refused(
            f"The plan cannot be written to {path}.",
            "There is something of this name already.",
            "Choose another name, or delete it.",
        )
    if not path.parent.is_dir():
        raise _unwritten(path, f"{path.parent} is no directory")


def write(frozen: Frozen, path: Path) -> None:
    """Write the plan: whole or not at all, for its owner alone, over nothing that is there.

    Raises:
        Refused: it cannot be written there.
    """
    vacant(path)
    half = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with os.fdopen(os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text_of(frozen))
            file.flush()
            os.fsync(file.fileno())
        os.link(half, path)
    except OSError as error:
        raise _unwritten(path, error.strerror or str(error)) from None
    finally:
        with suppress(OSError):
            half.unlink()


def text_of(frozen: Frozen) -> str:
    """The plan as its file has it."""
    document = {
        "kind": KIND,
        "format": FORMAT,
        "made_at": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        "made_by": __version__,
        "flavor": frozen.flavor,
        "cold": frozen.cold,
        "flatten": frozen.flatten,
        "move": dataclasses.asdict(frozen.move),
        "seen": dict(frozen.seen),
    }
    return json.dumps(document | {"digest": _digest(document)}, indent=2) + "\n"


def read(path: Path) -> Frozen:
    """The plan of this file.

    Raises:
        Refused: there is none, it is not whole, or another version wrote it.
    """
    try:
        document = json.loads(path.read_text())
    except OSError as error:
        raise _unusable(path, error.strerror or str(error)) from None
    except ValueError:
        raise _unusable(path, "it is no JSON; was it cut?") from None
    if not isinstance(document, dict) or document.get("kind") != KIND:
        raise _unusable(path, "it is no plan of cellmove")
    if document.get("format") != FORMAT:
        seen_ = f"its format is {document.get('format')}, of cellmove {document.get('made_by')}"
        raise _unusable(path, f"{seen_}; this is {__version__}, which knows format {FORMAT}")
    if document.pop("digest", None) != _digest(document):
        raise _unusable(path, "it was edited, or is damaged: its digest is not that of its content")
    try:
        return _of(document)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise _unusable(path, f"{document.get('made_by')} wrote it, for another program") from None


def _of(document: Mapping[str, Any]) -> Frozen:
    return Frozen(
        move=move_of(json.dumps(document["move"])),
        flavor=document["flavor"],
        cold=bool(document["cold"]),
        seen={str(what): str(was) for what, was in document["seen"].items()},
        made_at=str(document["made_at"]),
        made_by=str(document["made_by"]),
        flatten=bool(document.get("flatten")),
    )


def _digest(document: Mapping[str, Any]) -> str:
    """Against accidents and hand-made changes; it is no signature."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def _unusable(path: Path, seen_: str) -> Refused:
    return Refused("The plan cannot be used.", f"{path}: {seen_}.", _AGAIN)


def _unwritten(path: Path, seen_: str) -> Refused:
    return Refused(f"The plan cannot be written to {path}.", f"{seen_}.", "Choose another place.")
