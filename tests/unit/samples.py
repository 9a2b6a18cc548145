"""A move, and steps over a world that is a list, for tests of what is above the steps."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, cast

from cellmove.cloud import Cloud
from cellmove.errors import StepFailed
from cellmove.model import Cell, Disk, Flavor, Host, Move, Port
from cellmove.steps.base import Finding, Saved, Status, Step

GIB = 1024**3


def host(name: str, cell: Cell) -> Host:
    return Host(name, name, 1, str(uuid.uuid5(uuid.NAMESPACE_DNS, name)), "10.0.0.1", "nova", cell)


def flavor(name: str) -> Flavor:
    return Flavor(1, name, name, 128, 1, 2, 0, 0, extra_specs={"a": "b"})


def move(name: str = "web-1", server: str = "") -> Move:
    return Move(
        id=str(uuid.uuid4()),
        request_id=f"req-{uuid.uuid4()}",
        server=server or str(uuid.uuid5(uuid.NAMESPACE_DNS, name)),
        name=name,
        project_id="p" * 32,
        user_id="u" * 32,
        actor_user_id="a" * 32,
        actor_project_id="b" * 32,
        conductor="ops-1",
        kind="resize",
        source=host("cmp1a", Cell(2, str(uuid.UUID(int=1)), "cell1")),
        target=host("cmp2a", Cell(3, str(uuid.UUID(int=2)), "cell2")),
        migration=str(uuid.uuid4()),
        old_flavor=flavor("c1"),
        new_flavor=flavor("c2"),
        vm_state="active",
        power_state=1,
        ports=(Port(str(uuid.UUID(int=3)), "fa:16:3e:00:00:01", "cmp1a", "ACTIVE", "ovs"),),
        disks=(Disk("disk", "qcow2", 2 * GIB, GIB // 2),),
        source_domain="instance-00000001",
        domain_template="instance-%08x",
        started_at="2026-01-02 03:04:05",
    )


class There:
    """A database that says of every server that it is there, and plain."""

    @contextmanager
    def read(self) -> Iterator[There]:
        yield self

    def one(self, table: str, **where: object) -> None:
        assert table == "instance_mappings"
        assert where

    def several(self, *wanted: tuple[str, object]) -> list[list[dict[str, object]]]:
        assert [table for table, _ in wanted] == ["instances", "instance_actions"]
        return [[{"deleted": 0, "vm_state": "active", "task_state": None}], []]


@dataclass
class Ground:
    """What the sample steps change, and all that was done to it, in order."""

    made: set[str] = field(default_factory=set)
    log: list[str] = field(default_factory=list)
    blocked: set[str] = field(default_factory=set)
    weak: set[str] = field(default_factory=set)
    """Steps whose touch leaves no effect."""
    on_execute: dict[str, Callable[[], None]] = field(default_factory=dict)
    """Called after the effect: what it raises is the step's error."""
    before_execute: dict[str, Callable[[], None]] = field(default_factory=dict)
    on_undo: dict[str, Callable[[], None]] = field(default_factory=dict)

    def as_cloud(self) -> Cloud:
        return cast(Cloud, self)

    @property
    def api(self) -> There:
        return There()

    @property
    def cells(self) -> defaultdict[str, There]:
        return defaultdict(There)


def ground(cloud: Cloud) -> Ground:
    return cast(Ground, cloud)


@dataclass(frozen=True, slots=True)
class Sample(Step):
    """Puts its name into the ground's set."""

    def describe(self) -> str:
        return f"make {self.name}"

    def inspect(self, cloud: Cloud) -> Finding:
        it = ground(cloud)
        it.log.append(f"inspect {self.name}")
        if self.name in it.blocked:
            return Finding(Status.BLOCKED, "somebody sits on it")
        status = Status.DONE if self.name in it.made else Status.TODO
        return Finding(status, saved={"made": sorted(it.made)})

    def execute(self, cloud: Cloud) -> None:
        it = ground(cloud)
        it.log.append(f"execute {self.name}")
        it.before_execute.get(self.name, nothing)()
        if self.name not in it.weak:
            it.made.add(self.name)
        it.on_execute.get(self.name, nothing)()

    def undo(self, cloud: Cloud, saved: Saved) -> None:
        it = ground(cloud)
        it.log.append(f"undo {self.name} to {','.join(saved.get('made', ['?']))}")
        it.on_undo.get(self.name, nothing)()
        it.made.discard(self.name)


class One(Sample):
    name: ClassVar[str] = "one"


class Two(Sample):
    name: ClassVar[str] = "two"


class Three(Sample):
    name: ClassVar[str] = "three"


class Final(Sample):
    name: ClassVar[str] = "final"
    reversible: ClassVar[bool] = False


def nothing() -> None:
    pass


def failing(what: str = "it broke", kind: type[Exception] = StepFailed) -> Callable[[], Any]:
    def fail() -> None:
        raise kind(what)

    return fail
