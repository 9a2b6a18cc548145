"""Databases that a journal can live in, for tests: each new and empty."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from cellmove.journal import Journal

AWAY = "boot = 'another/1', host = 'ops-2'"
"""A holder on another machine, of whose processes we know nothing."""


@dataclass
class Place:
    """One; the journals that a test opens there are closed after it."""

    url: str
    opened: list[Journal] = field(default_factory=list)

    def journal(self, lease_seconds: float = 60.0) -> Journal:
        """Another process's view, as far as the database can tell."""
        journal = Journal(self.url, lease_seconds=lease_seconds)
        self.opened.append(journal)
        return journal

    def execute(self, text: str) -> list[Any]:
        """SQL of the test's own."""
        with self.opened[0]._engine.begin() as db:
            result = db.execute(sa.text(text))
            return [tuple(row) for row in result] if result.returns_rows else []

    def send_away(self, journal: Journal, silent_seconds: float = 0) -> None:
        """Make its process look like one of another machine, last heard of so long ago."""
        beat = f"beat_at = beat_at - {silent_seconds}"
        self.execute(f"update holders set {AWAY}, {beat} where id = '{journal._holder}'")

    def close(self) -> None:
        for journal in self.opened:
            journal.close()


@dataclass
class PostgreSQL:
    """A server of the test run's own: on a socket in its directory, reached from nowhere else."""

    folder: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def administration(self) -> str:
        return self.url("postgres")

    def url(self, database: str) -> str:
        return f"postgresql+psycopg://cellmove@/{database}?host={self.folder}"

    def start(self) -> None:
        settings = [
            *("listen_addresses=", f"unix_socket_directories={self.folder}", "fsync=off"),
            *("max_connections=60", "shared_buffers=16MB", "autovacuum=off"),
        ]
        options = [part for each in settings for part in ("-c", each)]
        argv = _as_postgres(_program("postgres"), "-D", str(self.folder / "data"), *options)
        log = (self.folder / "log").open("ab")
        with log:
            self.process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/"
            )
        self._wait()

    def _wait(self) -> None:
        engine = sa.create_engine(self.administration, poolclass=sa.NullPool)
        deadline = time.monotonic() + 30
        while True:
            try:
                engine.connect().close()
            except sa.exc.OperationalError:
                assert time.monotonic() < deadline, (self.folder / "log").read_text()
                time.sleep(0.02)
            else:
                return

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT: sends everybody away; SIGQUIT: as in a crash."""
        assert self.process
        self.process.send_signal(how)
        self.process.wait(30)

    def create(self) -> str:
        """A new database's URL."""
        name = f"journal_{uuid.uuid4().hex[:8]}"
        engine = sa.create_engine(
            self.administration, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT"
        )
        with engine.connect() as db:
            db.execute(sa.text(f"create database {name}"))
        return self.url(name)


@contextmanager
def running_postgresql() -> Iterator[PostgreSQL]:
    """From nothing, in a directory that its own user may enter."""
    folder = Path(tempfile.mkdtemp(prefix="cellmove-pg-", dir="/tmp"))
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres", "postgres")
    data = str(folder / "data")
    make = ("--auth", "trust", "--username", "cellmove", "--encoding", "UTF8", "--locale", "C")
    try:
        subprocess.run(
            _as_postgres(_program("initdb"), "--no-sync", "-D", data, *make),
            check=True,
            capture_output=True,
            cwd="/",
        )
        server = PostgreSQL(folder)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder)


def _program(name: str) -> str:
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    if not found:
        pytest.fail("PostgreSQL is not installed: apt-get install postgresql-15", pytrace=False)
    return str(found[-1])


def _as_postgres(*argv: str) -> list[str]:
    if os.geteuid() != 0:
        return list(argv)
    user = pwd.getpwnam("postgres")
    ids = (f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups")
    return ["setpriv", *ids, *argv]
