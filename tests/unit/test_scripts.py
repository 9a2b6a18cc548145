"""What the worked scripts make of cellmove's answers; the lab runs them with the real program."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from cellmove.errors import StepFailed
from tests.fakes.world import SERVER
from tests.unit.conftest import Ran, Terminal

SCRIPTS = Path(__file__).parents[2] / "docs" / "scripts"
TO_CELL2 = ("--to-cell", "cell2", "--json")


class Stage:
    """A path whose `cellmove` gives answers that the real one has given, and notes its calls."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._program("cellmove", 'echo "$@" >> "$0.calls"; cat "$0.$1"; exit $(cat "$0.$1.code")')
        self._program("answers-at", '[ "$3" = "$1" ] && [ "$4" = "$2" ]')
        self._program("openstack", """echo '{"addresses": {"net": ["192.0.2.7", "192.0.2.8"]}}'""")

    def answers(self, verb: str, ran: Ran) -> None:
        """From now on, to this verb."""
        (self._folder / f"cellmove.{verb}").write_text(ran.out)
        (self._folder / f"cellmove.{verb}.code").write_text(str(ran.code))

    def run(self, *argv: str, said: str = "", **environment: str) -> tuple[int, str]:
        """Exit code and output of a script."""
        path = f"{self._folder}:{os.environ['PATH']}"
        done = subprocess.run(
            [str(SCRIPTS / argv[0]), *argv[1:]],
            env={**os.environ, "PATH": path, "WAIT_SECONDS": "0", **environment},
            input=said,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.stderr == ""
        return done.returncode, done.stdout

    @property
    def calls(self) -> list[str]:
        """What cellmove was asked, without the options for scripts."""
        lines = (self._folder / "cellmove.calls").read_text().splitlines()
        return [line.replace(" --json --quiet", "") for line in lines]

    def _program(self, name: str, text: str) -> None:
        path = self._folder / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    folder = tmp_path / "bin"
    folder.mkdir()
    return Stage(folder)


def failing(stage: Stage, terminal: Terminal, monkeypatch: pytest.MonkeyPatch, *more: str) -> None:
    """The answer to a resize that fails at its disks."""

    def fail(*_: object) -> None:
        raise StepFailed("The disk is full.", "No byte is free.")

    with monkeypatch.context() as broken:
        broken.setattr("cellmove.steps.disks.CopyDisks.execute", fail)
        stage.answers("resize", terminal.type("resize", SERVER, *TO_CELL2, *more))


def test_a_server_that_answers_is_confirmed(stage: Stage, terminal: Terminal) -> None:
    stage.answers("resize", terminal.type("resize", SERVER, *TO_CELL2))
    stage.answers("confirm", terminal.type("confirm", SERVER, "--yes", "--json"))
    probe = f"answers-at {SERVER} 192.0.2.7"
    code, said = stage.run("move-at-night.sh", "cell2", said="web-1\n", PROBE=probe)
    assert code == 0, said
    assert stage.calls == ["resize web-1 --to-cell cell2", f"confirm {SERVER} --yes"]
    assert "web-1: moved to cmp2" in said


def test_a_server_that_does_not_answer_comes_back(stage: Stage, terminal: Terminal) -> None:
    stage.answers("resize", terminal.type("resize", SERVER, *TO_CELL2))
    stage.answers("revert", terminal.type("revert", SERVER, "--yes", "--json"))
    code, said = stage.run("move-at-night.sh", "cell2", said="web-1\n", PROBE="false")
    assert code == 6, said
    assert stage.calls[-1] == f"revert {SERVER} --yes"
    assert "web-1: did not answer on cmp2" in said


def test_the_night_goes_on_after_a_move_that_was_taken_back(
    stage: Stage, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(stage, terminal, monkeypatch, "--to-host", "cmp2a")
    code, said = stage.run("move-at-night.sh", "cell2", said="web-1\n# no\n\nweb-2\n")
    assert code == 6, said
    assert [call.split()[1] for call in stage.calls] == ["web-1", "web-2"]
    assert "web-1: stays: Move 1 failed and is wholly taken back. The disk is full." in said


@pytest.mark.parametrize("script", ["move-at-night.sh cell2", "empty-host.sh cmp1a cell2"])
def test_nothing_more_is_begun_after_a_move_that_stands_half_way(
    stage: Stage, terminal: Terminal, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    stage.answers("list", terminal.type("list", "--json"))
    failing(stage, terminal, monkeypatch, "--on-failure", "stop")
    code, said = stage.run(*script.split(), said="web-1\nweb-2\n")
    assert code == 4, said
    assert sum(call.startswith("resize") for call in stage.calls) == 1
    assert "The disk is full." in said


def test_a_host_is_emptied_and_what_confirms_its_servers_is_printed(
    stage: Stage, terminal: Terminal
) -> None:
    listed = terminal.type("list", "--json")
    servers = [each["server"] for each in listed.json["servers"] if each["status"] == "ACTIVE"]
    stage.answers("list", listed)
    stage.answers("resize", terminal.type("resize", SERVER, *TO_CELL2))
    code, said = stage.run("empty-host.sh", "cmp1a", "cell2")
    assert code == 0, said
    assert stage.calls[0] == "list --host cmp1a"
    assert set(said.splitlines()[-1].split()[-len(servers) :]) == set(servers)


def test_a_list_that_cannot_be_had_is_no_empty_host(stage: Stage, terminal: Terminal) -> None:
    stage.answers("list", terminal.type("list", "--cell", "nowhere", "--json"))
    code, said = stage.run("empty-host.sh", "cmp1a", "cell2")
    assert code == 1
    assert "nowhere" in said


def test_the_morning_tells_of_open_moves_and_of_servers_that_wait(
    stage: Stage, terminal: Terminal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    failing(stage, terminal, monkeypatch, "--on-failure", "stop")
    stage.answers("moves", terminal.type("moves", "--json"))
    stage.answers("list", terminal.type("list", "--json"))
    stage.answers("check", Ran(0, '{"findings": []}', ""))
    mail = str(tmp_path / "mail")
    Path(mail).write_text(f"#!/bin/sh\ncat > {tmp_path}/sent\n")
    Path(mail).chmod(0o755)
    assert stage.run("check-every-morning.sh", "you@example.net", MAIL=mail)[0] == 0
    sent = (tmp_path / "sent").read_text()
    assert "move 1, resize web-1, since " in sent
    assert "cellmove show 1" in sent
    assert "Out of order" not in sent

    terminal.type("resume")
    stage.answers("moves", terminal.type("moves", "--json"))
    stage.answers("list", terminal.type("list", "--json"))
    stage.run("check-every-morning.sh", "you@example.net", MAIL=mail)
    sent = (tmp_path / "sent").read_text()
    assert sent.startswith(f"Servers that wait for confirm or revert:\nweb-1 ({SERVER}) on cmp2")
