"""Makes the dumps beside this file, for maintainers: a new release of nova wants a new one.

    python -m tests.schemas.make [RELEASE...]

Each release of nova is installed into a virtual environment that is thrown away, with the packages
of its time (`uv pip install --exclude-newer`), and its own `nova-manage db sync` makes a cell's
schema in a MariaDB that is started for this and thrown away too. What is kept is the DDL and the
schema's version. Needed: `uv`, `mariadbd` and the Pythons below on PATH, and a package index.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.schemas import FOLDER

START_SECONDS = 60
HEAD = "SET FOREIGN_KEY_CHECKS = 0;\n"
"""Tables are dumped in the order of their names."""


@dataclass(frozen=True)
class Release:
    """What one release of nova is installed with."""

    version: str
    python: str
    newest_package: str
    """A date: no package younger than this, as nova's own constraints had it."""


RELEASES = {
    20: Release("20.0.0", "3.7", "2019-11-15"),
    21: Release("21.0.0", "3.8", "2020-06-01"),
    25: Release("25.0.0", "3.8", "2022-04-15"),
    26: Release("26.0.0", "3.8", "2022-11-01"),
    29: Release("29.0.1", "3.11", "2024-05-01"),
    34: Release("34.0.0", "3.11", "2026-11-01"),
}


def run(*argv: str | Path, text: str | None = None) -> str:
    """Standard output of a program; its failure is ours."""
    done = subprocess.run(argv, check=False, capture_output=True, text=True, input=text)
    if done.returncode:
        sys.exit(f"{argv[0]} exited with {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout


@contextmanager
def server(folder: Path) -> Iterator[Path]:
    """The socket of a MariaDB that nobody else knows, until the block ends."""
    data, socket = folder / "data", folder / "socket"
    own = ["--no-defaults", f"--datadir={data}"]
    user = ["--user=root"] * (os.geteuid() == 0)
    run("mariadb-install-db", *own, *user, "--auth-root-authentication-method=normal")
    log = (folder / "log").open("w")
    started = subprocess.Popen(
        ["mariadbd", *own, *user, f"--socket={socket}", "--skip-networking"], stderr=log
    )
    deadline = time.monotonic() + START_SECONDS
    try:
        while not socket.exists():
            if started.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"mariadbd did not start: {(folder / 'log').read_text()[-2000:]}")
            time.sleep(0.1)
        yield socket
    finally:
        started.terminate()
        started.wait()
        log.close()


def dump(release: Release, folder: Path) -> str:
    """The DDL that this release's migrations end in."""
    venv, schema = folder / "venv", "cell"
    run("uv", "venv", "--quiet", "--python", release.python, "--seed", venv)
    install = ("uv", "pip", "install", "--quiet", "--python", venv / "bin" / "python")
    wanted = (f"nova=={release.version}", "pymysql", "setuptools<70")
    run(*install, "--exclude-newer", release.newest_package, *wanted)
    with server(folder) as socket:
        client = ("--no-defaults", f"--socket={socket}", "--user=root")
        run("mariadb", *client, "-e", f"CREATE DATABASE {schema} CHARACTER SET utf8mb3")
        url = f"mysql+pymysql://root@localhost/{schema}?unix_socket={socket}&charset=utf8"
        config = folder / "nova.conf"
        section = f"connection = {url}\n"
        config.write_text(f"[database]\n{section}[api_database]\n{section}")
        manage = (venv / "bin" / "nova-manage", "--config-file", config)
        run(*manage, "db", "sync", "--local_cell")
        quiet = ("--compact", "--skip-opt", "--create-options", "--quote-names")
        text = run("mariadb-dump", *client, *quiet, "--no-data", schema)
        for table in re.findall(r"CREATE TABLE `((?:alembic|migrate)_version)`", text):
            text += run("mariadb-dump", *client, *quiet, "--no-create-info", schema, table)
    return stripped(text)


def stripped(text: str) -> str:
    """Without what differs between two runs, or only speaks to the client."""
    lines = [line for line in text.splitlines() if line and not line.startswith("/*")]
    counted = re.sub(r" AUTO_INCREMENT=\d+", "", "\n".join(lines)) + "\n"
    ordered = re.sub(r"(?:^  (?:UNIQUE )?KEY .*\n)+", _sorted, counted, flags=re.MULTILINE)
    # migrate_version names the folder of the migrations, which is gone by now.
    return HEAD + re.sub(r"'/[^']*/(migrate_repo)'", r"'\1'", ordered)


def _sorted(keys: re.Match[str]) -> str:
    """Keys in the order of their names: nova makes them in the order of a set."""
    end = ",\n" if keys[0].endswith(",\n") else "\n"
    return ",\n".join(sorted(line.rstrip(",") for line in keys[0].splitlines())) + end


def main(wanted: list[str]) -> None:
    for number in [int(each) for each in wanted] or sorted(RELEASES):
        with tempfile.TemporaryDirectory() as made:
            text = dump(RELEASES[number], Path(made))
        (FOLDER / f"cell-{number}.sql").write_text(text)
        tables = text.count("CREATE TABLE")
        sys.stdout.write(f"cell-{number}.sql: {tables} tables\n")


if __name__ == "__main__":
    main(sys.argv[1:])
