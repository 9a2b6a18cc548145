"""That nova with an API database and two cells of its own, and the fake cloud around them.

cellmove's steps write the records, over the fake services and hypervisors: the lab's nova is an
older one, which shares no cell with the newest. The schema, the objects, the API and the tools that
judge them are the newest nova's own; MariaDB, Keystone and Neutron below them are the lab's.
"""

from __future__ import annotations

import configparser
import functools
import json
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cellmove.dbcopy.database import Database
from cellmove.dbcopy.tables import COPIED
from cellmove.journal import Verb
from cellmove.plan import plan
from tests.fakes.databases import CELL0, CELL1, CELL2, CELLS, NEIGHBOURS, fill
from tests.fakes.world import SERVER, World, perform
from tests.lab.kit.places import OUTPUTS, REPOSITORY, STATE, run

HOME = REPOSITORY / ".venv-newest"
JUDGE = Path(__file__).with_name("judge.py")
ACCOUNT = "cellmove_test_newest"
"""The databases' names begin with it."""
SERVERS = {
    "api": ("api", "10.98.0.30"),
    CELL0: ("api", "10.98.0.30"),
    CELL1.uuid: ("cell1", "10.98.0.31"),
    CELL2.uuid: ("cell2", "10.98.0.32"),
}
"""The lab's database server that each database is on."""


class Judge:
    """What the newest nova says; its log is beside its configuration."""

    def __init__(self, config: Path, token: str) -> None:
        self._token = token
        self._log = config.with_suffix(".log").open("w+")
        self._program = subprocess.Popen(
            [HOME / "bin/python", JUDGE, config],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )

    @functools.cached_property
    def service_version(self) -> int:
        """Of this nova's services: what it says unasked, before anything else."""
        return int(self._answer())

    def close(self) -> None:
        self._program.communicate()
        self._log.close()

    def get(self, path: str) -> Any:
        answer = self._ask(get=path, token=self._token)
        assert answer["status"] == 200, (path, answer)
        return answer["body"]

    def objects(self, cell: str) -> Any:
        return self._ask(objects=SERVER, cell=cell)

    def rename(self, cell: str, name: str) -> Any:
        return self._ask(rename=SERVER, cell=cell, name=name)

    def request_spec(self) -> Any:
        return self._ask(spec=SERVER)

    def _ask(self, **question: str) -> Any:
        assert self._program.stdin is not None
        self._program.stdin.write(json.dumps(question) + "\n")
        self._program.stdin.flush()
        answer = self._answer()
        assert "error" not in answer, answer["error"]
        return answer

    def _answer(self) -> Any:
        assert self._program.stdout is not None
        line = self._program.stdout.readline()
        assert line, Path(self._log.name).read_text()[-3000:]
        return json.loads(line)


@dataclass(frozen=True)
class Newest:
    """The newest nova, and the fake cloud whose records are in its cells."""

    judge: Judge
    world: World
    configs: dict[str, Path]
    """A nova.conf for each cell."""

    def move(self, verb: Verb) -> list[str]:
        """Run this verb; the server's statuses that nova's API has shown between its steps."""
        seen = [self.look()]
        for step in plan(verb, self.world.move(verb)):
            perform(step, self.world)
            if (now := self.look()) != seen[-1]:
                seen.append(now)
        return seen

    def look(self) -> str:
        """The server's status, after it and its neighbours were listed once each."""
        listed = [each["id"] for each in self.judge.get("/servers?all_tenants=1")["servers"]]
        assert sorted(listed) == sorted([SERVER, *NEIGHBOURS.values()])
        return str(self.server()["status"])

    def server(self) -> Any:
        return self.judge.get(f"/servers/{SERVER}")["server"]

    def manage(self, cell: str, *arguments: str, ends: tuple[int, ...] = (0,)) -> None:
        """Run this nova's `nova-manage` on that cell; `ends`: the exit codes that are good."""
        _manage(self.configs[cell], *arguments, ends=ends)


@contextmanager
def newest_nova(folder: Path) -> Iterator[Newest]:
    """Databases by nova's own migrations, filled, and nova over them; all is gone afterwards."""
    assert (HOME / "bin/nova-manage").exists(), "The newest nova is not installed: make newest"
    with ExitStack() as stack:
        urls = stack.enter_context(_databases())
        configs = {cell: _config(folder, urls, cell) for cell in urls if cell != "api"}
        _manage(configs[CELL0], "api_db", "sync")
        for config in configs.values():
            _manage(config, "db", "sync", "--local_cell")
        token = run([str(OUTPUTS / "openstack"), "token", "issue", "-f", "value", "-c", "id"])
        judge = Judge(configs[CELL0], token.strip())
        stack.callback(judge.close)
        world = _world(folder, urls, judge.service_version)
        for database in (world.api, *world.cells.values()):
            stack.callback(database.close)
        newest = Newest(judge, world, configs)
        for cell in world.cells:
            newest.manage(cell, "db", "online_data_migrations")
        yield newest


@contextmanager
def _databases() -> Iterator[dict[str, str]]:
    """An empty database for each key of SERVERS: their URLs, with an account that may do all."""
    password, urls = secrets.token_hex(12), {}
    with ExitStack() as stack:
        for server in sorted({server for server, _ in SERVERS.values()}):
            _as_root(server, f"CREATE OR REPLACE USER {ACCOUNT} IDENTIFIED BY '{password}'")
            stack.callback(_as_root, server, f"DROP USER {ACCOUNT}")
        for which, (server, address) in SERVERS.items():
            name = _name(which)
            _as_root(server, f"DROP DATABASE IF EXISTS {name}")
            _as_root(server, f"CREATE DATABASE {name} CHARSET utf8mb3")
            stack.callback(_as_root, server, f"DROP DATABASE {name}")
            _as_root(server, f"GRANT ALL ON {name}.* TO {ACCOUNT}")
            urls[which] = f"mysql+pymysql://{ACCOUNT}:{password}@{address}:3306/{name}"
        yield urls


def _name(which: str) -> str:
    return f"{ACCOUNT}_{which[:8]}"


def _as_root(server: str, statement: str) -> None:
    """As the database server's root; a password goes in by standard input."""
    argv = [str(OUTPUTS / "sql"), server]
    subprocess.run(argv, check=True, input=statement, text=True, capture_output=True)


def _manage(config: Path, *arguments: str, ends: tuple[int, ...] = (0,)) -> None:
    argv = [str(HOME / "bin/nova-manage"), "--config-file", str(config), *arguments]
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    assert done.returncode in ends, (arguments, done.returncode, done.stdout, done.stderr)


def _config(folder: Path, urls: dict[str, str], cell: str) -> Path:
    """The configuration of the lab's nova-api, but with these databases and nobody to talk to."""
    made = configparser.RawConfigParser(strict=False, default_section="none")
    made.read(STATE / "etc" / "nova-api.conf")
    made["api_database"]["connection"] = f"{urls['api']}?charset=utf8"
    made["database"]["connection"] = f"{urls[cell]}?charset=utf8"
    made["DEFAULT"].update(
        {"transport_url": "fake://", "host": "newest", "state_path": str(folder)}
    )
    del made["DEFAULT"]["log_file"]
    made["oslo_concurrency"]["lock_path"] = str(folder)
    made["oslo_messaging_notifications"]["driver"] = "noop"
    # The lab's policy is in the words of its own nova.
    del made["oslo_policy"]["policy_file"]
    # Without a client of memcached nothing is cached.
    del made["keystone_authtoken"]["memcached_servers"]
    path = folder / f"{cell[:8]}.conf"
    path.touch(mode=0o600)
    with path.open("w") as file:
        made.write(file)
    paste = folder / "api-paste.ini"
    if not paste.exists():
        paste.symlink_to(HOME / "etc/nova/api-paste.ini")
    return path


def _world(folder: Path, urls: dict[str, str], service_version: int) -> World:
    """The fake cloud in these databases, its nova-computes as new as their nova."""
    api = Database(urls["api"], name="the API database")
    cells = {cell.uuid: Database(urls[cell.uuid], name=f"cell {cell.name}") for cell in CELLS}
    # No id of one cell ever means something in the other.
    server, _ = SERVERS[CELL2.uuid]
    for table in (each.name for each in COPIED if each.name != "tags"):
        _as_root(server, f"ALTER TABLE {_name(CELL2.uuid)}.{table} AUTO_INCREMENT = 7000")
    fill(api, cells)
    with api.write() as rows:
        for cell in rows.all("cell_mappings"):
            where = {"database_connection": urls[cell["uuid"]], "transport_url": "fake://"}
            rows.change("cell_mappings", where, uuid=cell["uuid"])
    for cell_database in cells.values():
        with cell_database.write() as rows:
            rows.change("services", {"version": service_version}, expect=None, deleted=0)
    return World(folder, databases=(api, cells))
