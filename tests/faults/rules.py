"""Which calls are spoilt, and how."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tests.faults.proxy import Call, Fault

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
Kind = tuple[str, int]
"""What is asked of whom, ids left out; and for the how manieth time."""


def kind_of(call: Call) -> str:
    """The same for calls that do the same to different things."""
    return f"{call.service} {call.method} {UUID.sub('*', call.path.partition('?')[0])}"


@dataclass(slots=True)
class One:
    """The nth call (from 1 on) of those that match, or all from the nth on."""

    fault: Fault
    match: Callable[[Call], bool] = lambda call: True
    nth: int = 1
    for_ever: bool = False
    met: list[Call] = field(default_factory=list)
    """The calls that were spoilt."""
    seen: int = 0

    def __call__(self, call: Call) -> Fault | None:
        if not self.match(call):
            return None
        self.seen += 1
        if self.seen != self.nth and not (self.for_ever and self.seen > self.nth):
            return None
        self.met.append(call)
        return self.fault


@dataclass(slots=True)
class EachOnce:
    """Every kind of call is spoilt once, however many runs of the program that takes.

    With a `share` of n only every n-th kind is, counted from the `first` (0 to n - 1).
    """

    faults: Sequence[Fault]
    """One after the other, again and again."""
    match: Callable[[Call], bool]
    share: int = 1
    first: int = 0
    met: dict[Kind, Fault | None] = field(default_factory=dict)
    """What each kind of call has met; None: nothing, as it was not its turn."""
    struck: list[Fault] = field(default_factory=list)
    """In this run of the program."""
    _seen: Counter[str] = field(default_factory=Counter)

    def next_run(self) -> None:
        """The program is about to be run again."""
        self.struck.clear()
        self._seen.clear()

    def __call__(self, call: Call) -> Fault | None:
        if not self.match(call):
            return None
        name = kind_of(call)
        self._seen[name] += 1
        kind = (name, self._seen[name])
        if kind in self.met:
            return None
        turn, left = divmod(len(self.met) - self.first, self.share)
        fault = None if left else self.faults[turn % len(self.faults)]
        self.met[kind] = fault
        if fault:
            self.struck.append(fault)
        return fault
