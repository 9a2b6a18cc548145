"""A fake cloud with several servers to move, and what must be so of each when all is over."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from cellmove.draining.happenings import Happening, Outcome
from cellmove.draining.run import Drain
from cellmove.draining.scope import Found, Scope, look, scope_of
from cellmove.draining.tools import Holds, Tools
from cellmove.draining.wishes import Terms, Wishes
from cellmove.draining.work import Work
from cellmove.interrupts import Interrupts
from cellmove.journal import Journal
from cellmove.model import Transfer
from cellmove.opening import OpenCloud
from cellmove.services.session import Identity
from tests.fakes.databases import CELL1, CELL2, CELLS, HOSTS, add_server
from tests.fakes.permission import Everybody
from tests.fakes.world import ACTOR, CONTENT, World

MINE = Terms(names=("farm-*",))


class Town:
    """The fake cloud, with farm-0, farm-1... on the hosts of cell1 in turn."""

    def __init__(self, folder: Path, servers: int) -> None:
        self.world = World(folder)
        self.servers: list[str] = []
        self.heard: list[Happening] = []
        self.opened = 0
        for number in range(servers):
            self.add(f"farm-{number}", f"cmp1{'ab'[number % 2]}")

    def add(self, name: str, host: str, **columns: Any) -> str:
        """One more server."""
        server = str(uuid.uuid5(uuid.NAMESPACE_OID, name))
        cell = self.world.cells[HOSTS[host].uuid]
        add_server(self.world.api, cell, uuid=server, host=host, name=name, **columns)
        self.world._add_guest(server, host, running=True)
        self.servers.append(server)
        return server

    @contextmanager
    def open(self, request_id: str, progress: Callable[[Transfer], None]) -> Iterator[OpenCloud]:
        """In place of the real cloud."""
        self.opened += 1
        who = Identity("admin-user", "admin-project", frozenset({"admin"}))
        cloud = replace(self.world.cloud, progress=progress)
        yield OpenCloud(cloud, who, request_id, Everybody(), lambda project: project)

    def tools(self, journal: Journal) -> Tools:
        """What workers use here."""
        return Tools(
            journal,
            self.open,
            lambda _opened: ACTOR,
            lambda _cloud, _entry: nullcontext([]),
            self.heard.append,
        )

    def look(self, journal: Journal, wishes: Wishes) -> tuple[Scope, Found]:
        """What a drain would begin with."""
        scope = scope_of(self.world.cloud, wishes)
        return scope, look(self.world.cloud, scope, wishes, journal.entries(brief=True))

    def drain(
        self,
        journal: Journal,
        interrupts: Interrupts | None = None,
        clock: Callable[[], float] | None = None,
        **wished: Any,
    ) -> Drain:
        """A drain of cell1 (or as wished), ready to run."""
        base = Wishes(cell=None if "host" in wished else "cell1", only=MINE, parallel=3)
        wishes = replace(base, **wished)
        scope, found = self.look(journal, wishes)
        holds = Holds(interrupts or Interrupts(lambda _text: None))
        number = journal.open_drain(scope.key)
        work = Work(self.tools(journal), scope, wishes, number, holds)
        return Drain(work, found, clock or time.time)

    def run(self, journal: Journal, **wished: Any) -> dict[str, list[Outcome]]:
        """A whole drain; kind -> outcomes."""
        drain = self.drain(journal, **wished)
        outcomes = drain.run()
        journal.close_drain(drain.work.drain)
        assert drain.broken is None
        found: dict[str, list[Outcome]] = {}
        for each in outcomes:
            found.setdefault(each.kind, []).append(each)
        return found

    def rows(self, server: str) -> dict[str, dict[str, Any]]:
        """Cell name -> the server's row there."""
        query = "SELECT * FROM instances WHERE uuid = ? AND deleted = 0"
        found = {cell.name: self.world.query(cell.uuid, query, server) for cell in CELLS}
        return {cell: rows[0] for cell, rows in found.items() if rows}

    def wrong(self, server: str, cell: str = CELL2.name) -> list[str]:
        """What is not as it must be of a server that is whole, once, in this cell."""
        return [*self._wrong_rows(server, cell), *self._wrong_guest(server, cell)]

    def _wrong_rows(self, server: str, cell: str) -> Iterator[str]:
        shown = {name: row for name, row in self.rows(server).items() if not row["hidden"]}
        if list(shown) != [cell]:
            yield f"shown in {shown.keys()}"
        if any(row["task_state"] for row in shown.values()):
            yield "locked"
        mapping = self.world.query(
            "api", "SELECT cell_id FROM instance_mappings WHERE instance_uuid = ?", server
        )
        wanted = next(each.id for each in CELLS if each.name == cell)
        if [row["cell_id"] for row in mapping] != [wanted]:
            yield f"mapped to {mapping}"

    def _wrong_guest(self, server: str, cell: str) -> Iterator[str]:
        hosts = self.world.hosts.by_name
        guests = {name: guest for name, host in hosts.items() if (guest := host.domain(server))}
        if [HOSTS[name].name for name in guests] != [cell]:
            yield f"guests on {guests.keys()}"
        for name, guest in guests.items():
            if guest.state != "running":
                yield f"it is {guest.state}"
            if hosts[name].directories[server]["disk"].content != CONTENT + server.encode():
                yield "its data is lost"
        ports = [port.host for port in self.world.network.ports(server)]
        if ports != list(guests):
            yield f"ports at {ports}"
        for name, host in hosts.items():
            if host.halves(server) or host.checkpoints(server):
                yield f"something is left over on {name}"


def bury(journal: Journal) -> None:
    """The process that has this journal open is dead: its row says so to all others."""
    with journal._engine.begin() as db:
        db.exec_driver_sql("DELETE FROM holders")
    journal.close()


__all__ = ["CELL1", "CELL2", "MINE", "Town", "bury"]
