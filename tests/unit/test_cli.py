"""The command line from its first word to its exit code, over the fake cloud."""

from __future__ import annotations

import errno
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cellmove.cli import commands
from cellmove.cli.commands import cellmove, run
from cellmove.errors import Exit, StepFailed
from cellmove.steps.disks import CopyDisks, RemoveSourceDisks
from cellmove.steps.guests import StartTargetGuest, StopSourceGuest
from tests.fakes.databases import NEIGHBOURS
from tests.fakes.world import SERVER
from tests.unit.conftest import Terminal
from tests.unit.samples import failing

HEAVY = (
    "sqlalchemy",
    "paramiko",
    "fabric",
    "openstack",
    "keystoneauth1",
    "libvirt",
    "lxml",
    "rich",
)
RESIZE = ("resize", "web-1", "--flavor", "c2", "--to-host", "cmp2a")


def break_step(
    monkeypatch: pytest.MonkeyPatch, step: type, error: Callable[[], Any], method: str = "execute"
) -> None:
    """Let a step do its work and then fail."""
    real = getattr(step, method)

    def broken(self: Any, *args: Any) -> None:
        real(self, *args)
        error()

    monkeypatch.setattr(step, method, broken)


@pytest.mark.parametrize(
    "argv", [["--help"], ["resize", "--help"], ["--version"], ["completion", "bash"], ["resize"]]
)
def test_help_imports_nothing_heavy(argv: list[str]) -> None:
    """Counted in modules, not in seconds: a busy machine must not make it red."""
    code = (
        "import sys; from cellmove.cli.commands import run; "
        f"from contextlib import redirect_stdout; code = run({argv!r}); "
        f"print('heavy:', *[m for m in {HEAVY!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = done.stdout.splitlines()[-1].split()[1:]
    # A usage error is printed like every other error.
    assert heavy == (["rich"] if argv == ["resize"] else [])


def test_every_command_says_what_it_does(capsys: pytest.CaptureFixture[str]) -> None:
    for name, command in cellmove.commands.items():
        assert run([name, "--help"]) == 0
        out = capsys.readouterr().out
        assert "--json" in out
        assert "\\b" not in out
        assert command.get_short_help_str(200).endswith(".")
        for parameter in command.params:
            if parameter.param_type_name == "option" and not getattr(parameter, "hidden", False):
                assert getattr(parameter, "help", None), f"{name} {parameter.name}"


def test_every_exit_code_is_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    run(["--help"])
    out = capsys.readouterr().out
    for code in Exit:
        assert f"  {int(code)}  " in out


@pytest.mark.parametrize("option", ["--json", "--debug", "-q", "--quiet"])
@pytest.mark.parametrize("place", ["before", "after"])
def test_shared_options_are_taken_before_and_after_the_command(
    terminal: Terminal, option: str, place: str
) -> None:
    argv = [option, "moves"] if place == "before" else ["moves", option]
    ran = terminal.type(*argv)
    assert ran.code == 0
    assert (option == "--json") is ran.out.startswith("{")


def test_the_journal_of_the_flag_goes_over_the_configured_one(
    terminal: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CELLMOVE_JOURNAL_URL", str(tmp_path / "configured.db"))
    assert terminal.type("moves", "--json").json["journal"] == str(tmp_path / "configured.db")
    flag = str(tmp_path / "flag.db")
    assert terminal.type("moves", "--json", "--journal", flag).json["journal"] == flag


@pytest.mark.parametrize(
    "argv", [["resize"], ["moves", "--nonsense"], ["nonsense"], ["completion", "tcsh"], []]
)
def test_wrong_usage_ends_with_2_and_names_the_help(terminal: Terminal, argv: list[str]) -> None:
    ran = terminal.type(*argv)
    assert ran.code == 2
    if argv:
        assert "--help" in ran.err
        assert ran.out == ""
    else:
        assert "Usage:" in ran.err


def test_wrong_usage_is_json_when_that_was_asked_for(terminal: Terminal) -> None:
    ran = terminal.type("resize", "--json")
    assert ran.json["error"]["exit_code"] == 2
    assert ran.err == ""


def test_a_resize_says_where_the_server_is_and_what_to_type_next(terminal: Terminal) -> None:
    ran = terminal.type(*RESIZE)
    assert ran.code == 0
    nvram = "/var/lib/libvirt/qemu/nvram/instance-00000066_VARS.fd"
    assert [line for line in ran.out.splitlines() if "was off for" not in line] == [
        "web-1 is on cmp2a in cell2 with flavor c2 and waits to be confirmed (VERIFY_RESIZE).",
        f"Confirm it with cellmove: nova's own confirm leaves {nvram} on cmp1a.",
        "Next: cellmove confirm web-1",
        "  or: cellmove revert web-1",
    ]


@pytest.mark.parametrize("verb", ["confirm", "revert"])
def test_a_resized_server_is_confirmed_or_reverted(terminal: Terminal, verb: str) -> None:
    terminal.type(*RESIZE)
    ran = terminal.type(verb, "web-1", "--yes", "--json")
    assert ran.code == 0
    (result,) = ran.json["results"]
    assert result["host"] == ("cmp2a" if verb == "confirm" else "cmp1a")
    assert result["flavor"] == ("c2" if verb == "confirm" else "c1")
    assert result["next"] == []
    hosts = terminal.world.hosts.by_name
    assert hosts[result["host"]].domain(SERVER) is not None


def test_progress_goes_to_stderr_and_only_the_result_to_stdout(terminal: Terminal) -> None:
    ran = terminal.type(*RESIZE, "--json")
    assert ran.json["results"][0]["server"] == SERVER
    lines = ran.err.splitlines()
    assert lines[0].startswith("Move 1: resize web-1: ")
    assert any("copy-disks" in line for line in lines)
    assert any("disk: " in line and "/s" in line for line in lines)


def test_quiet_shows_no_progress(terminal: Terminal) -> None:
    assert terminal.type(*RESIZE, "-q").err == ""


def test_one_request_id_stands_in_the_services_and_in_the_journal(terminal: Terminal) -> None:
    terminal.type(*RESIZE)
    moves = terminal.type("moves", "--json").json["moves"]
    assert [move["request_id"] for move in moves] == terminal.requests


@pytest.mark.parametrize("verb", ["resize", "confirm", "revert"])
def test_a_dry_run_changes_nothing_and_makes_no_journal(terminal: Terminal, verb: str) -> None:
    if verb != "resize":
        terminal.type(*RESIZE)
        rows = sqlite3.connect(terminal.journal).execute("select count(*) from events").fetchall()
    before = terminal.world.snapshot()
    argv = RESIZE if verb == "resize" else (verb, "web-1")
    ran = terminal.type(*argv, "--dry-run", "--json")
    assert ran.code == 0
    assert terminal.world.snapshot() == before
    if verb == "resize":
        assert not terminal.journal.exists()
    else:
        after = sqlite3.connect(terminal.journal).execute("select count(*) from events").fetchall()
        assert after == rows
    (plan,) = ran.json["plans"]
    assert plan["move"]["target"] == {"host": "cmp2a", "cell": "cell2", "flavor": "c2"}
    assert [step["number"] for step in plan["steps"]] == list(range(1, len(plan["steps"]) + 1))
    assert all(step["does"] for step in plan["steps"])


def test_a_dry_run_is_a_table_with_every_step(terminal: Terminal) -> None:
    names = [
        step["name"]
        for step in terminal.type(*RESIZE, "--dry-run", "--json").json["plans"][0]["steps"]
    ]
    ran = terminal.type(*RESIZE, "--dry-run")
    assert all(name in ran.out for name in names)
    assert "to copy" in ran.out
    assert ran.out.endswith("Nothing was changed. Run it without --dry-run to do it.\n")


def test_a_dry_run_lists_every_refusal(terminal: Terminal) -> None:
    terminal.world.hosts.by_name["cmp2a"].free = 0
    terminal.world.hosts.by_name["cmp1a"].domains.clear()
    ran = terminal.type(*RESIZE, "--dry-run")
    assert ran.code == 1
    assert ran.out == ""
    assert ran.err.count("\n- ") >= 2
    assert len(terminal.type(*RESIZE, "--dry-run", "--json").json["error"]["reasons"]) >= 2


def test_an_unknown_server_is_refused_with_1(terminal: Terminal) -> None:
    ran = terminal.type("resize", "web-9")
    assert ran.code == 1
    assert "web-9" in ran.err
    assert "Traceback" not in ran.err


def test_a_failure_is_taken_back_with_3(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = terminal.world.snapshot()
    monkeypatch.setattr(CopyDisks, "execute", lambda *_: failing("The cable broke.")())
    ran = terminal.type(*RESIZE)
    assert ran.code == 3
    assert "The cable broke." in ran.err
    assert "taking back" in ran.err
    after = terminal.world.snapshot()
    assert after["hosts"] == before["hosts"]
    assert after["placement"] == before["placement"]
    assert "taken back" in terminal.type("show", "1").out


def test_a_failure_stays_with_4_when_asked_and_is_resumed(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(CopyDisks, "execute", lambda *_: failing("The cable broke.")())
        ran = terminal.type(*RESIZE, "--on-failure", "stop")
    assert ran.code == 4
    assert "cellmove resume 1" in ran.err
    shown = terminal.type("show", "1", "--json").json
    assert shown["next"] == ["cellmove resume 1", "cellmove undo 1"]
    (failed,) = [step for step in shown["steps"] if step["mark"] == "failed"]
    assert failed["name"] == "copy-disks"
    assert "The cable broke." in failed["note"]
    assert terminal.type("resume").code == 0
    assert terminal.type("show", "1", "--json").json["move"]["state"] == "finished"


def test_an_open_move_is_undone(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(CopyDisks, "execute", lambda *_: failing()())
        terminal.type(*RESIZE, "--on-failure", "stop")
    ran = terminal.type("undo", "1")
    assert ran.code == 0
    assert ran.out == "Move 1 is wholly taken back: web-1 is as it was before.\n"


def test_an_undo_that_is_stuck_ends_with_4_and_resume_goes_on_with_it(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(CopyDisks, "execute", lambda *_: failing()())
        patch.setattr(StopSourceGuest, "undo", lambda *_: failing("It does not start.")())
        ran = terminal.type(*RESIZE)
    assert ran.code == 4
    assert "It does not start." in ran.err
    assert "cellmove undo 1" in ran.err
    ran = terminal.type("resume", "1", "--json")
    assert ran.code == 0
    assert ran.json["move"]["state"] == "taken back"


def test_a_server_under_way_is_refused_naming_the_move(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CopyDisks, "execute", lambda *_: failing()())
    terminal.type(*RESIZE, "--on-failure", "stop")
    for argv in (RESIZE, (*RESIZE, "--dry-run"), ("resize", SERVER)):
        ran = terminal.type(*argv)
        assert ran.code == 1
        assert "cellmove resume 1" in ran.err


def test_ctrl_c_ends_with_5_after_the_step_and_resume_goes_on(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        break_step(patch, CopyDisks, lambda: os.kill(os.getpid(), signal.SIGINT))
        ran = terminal.type(*RESIZE)
    assert ran.code == 5
    assert "Stopping after this step" in ran.err
    assert "cellmove resume 1" in ran.err
    steps = terminal.type("show", "1", "--json").json["steps"]
    marks = {step["name"]: step["mark"] for step in steps}
    assert marks["copy-disks"] == "done"
    assert list(marks.values()).count(None) > 5
    assert terminal.type("resume").code == 0


def test_a_second_ctrl_c_ends_with_5_inside_the_step(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    def twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        break_step(patch, CopyDisks, twice)
        ran = terminal.type(*RESIZE)
    assert ran.code == 5
    assert "inside copy-disks" in ran.err
    assert terminal.type("resume").code == 0


def test_ctrl_c_during_an_undo_waits_until_it_is_complete(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    def twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(StartTargetGuest, "execute", lambda *_: failing()())
    break_step(monkeypatch, StopSourceGuest, twice, method="undo")
    ran = terminal.type(*RESIZE)
    assert ran.code == 3
    assert ran.err.count("that is finished before anything stops") == 2


def test_an_irreversible_failure_ends_with_4_and_is_resumed(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal.type(*RESIZE)
    with monkeypatch.context() as patch:
        break_step(patch, RemoveSourceDisks, failing("The rack burns."))
        ran = terminal.type("confirm", "web-1", "--yes")
    assert ran.code == 4
    assert "cellmove resume 2" in ran.err
    assert terminal.type("undo", "2").code == 1
    assert terminal.type("resume").code == 0


@pytest.mark.parametrize("verb", ["confirm", "revert"])
def test_a_destructive_verb_without_terminal_and_yes_is_wrong_usage(
    terminal: Terminal, verb: str
) -> None:
    terminal.type(*RESIZE)
    before = terminal.world.snapshot()
    ran = terminal.type(verb, "web-1")
    assert ran.code == 2
    assert "--yes" in ran.err
    assert terminal.world.snapshot() == before


def test_a_destructive_verb_asks_on_a_terminal(
    terminal: Terminal, answers: Callable[[str], None]
) -> None:
    terminal.type(*RESIZE)
    before = terminal.world.snapshot()
    answers("n\n")
    ran = terminal.type("confirm", "web-1")
    assert ran.code == 1
    assert SERVER in ran.err
    assert "cmp1a in cell1" in ran.err
    assert terminal.world.snapshot() == before
    answers("y\n")
    assert terminal.type("confirm", "web-1").code == 0


def test_of_several_servers_those_that_can_are_done_and_6_says_so(terminal: Terminal) -> None:
    terminal.type(*RESIZE)
    other = NEIGHBOURS["cmp1a"]
    ran = terminal.type("confirm", other, "web-1", SERVER, "--yes", "--json")
    assert ran.code == 6
    first, second = ran.json["results"]
    assert (first["asked"], first["exit_code"]) == (other, 1)
    assert first["error"]["what"]
    assert (second["server"], second["exit_code"]) == (SERVER, 0)
    # Written twice, by name and by id, it is one server.
    assert len(terminal.type("moves", "--json").json["moves"]) == 2


def test_several_servers_that_share_an_end_share_its_code(terminal: Terminal) -> None:
    ran = terminal.type("confirm", *NEIGHBOURS.values(), "--yes")
    assert ran.code == 1
    assert f"0 of {len(NEIGHBOURS)} servers done." in ran.out


def test_resume_without_a_number_wants_a_single_open_move(terminal: Terminal) -> None:
    ran = terminal.type("resume")
    assert ran.code == 1
    assert "No move is open" in ran.err


@pytest.mark.parametrize("command", ["resume", "undo", "show"])
def test_a_move_that_does_not_exist_is_refused(terminal: Terminal, command: str) -> None:
    ran = terminal.type(command, "7")
    assert ran.code == 1
    assert "There is no move 7" in ran.err


def test_a_finished_resize_is_reverted_not_undone(terminal: Terminal) -> None:
    terminal.type(*RESIZE)
    for command in ("undo", "resume"):
        assert terminal.type(command, "1").code == 1
    assert f"cellmove revert {SERVER}" in terminal.type("undo", "1").err
    terminal.type("confirm", "web-1", "--yes")
    assert "revert" not in terminal.type("undo", "1").err
    assert terminal.type("show", "1", "--json").json["next"] == []


def test_no_traceback_without_debug(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    def defect(*_: object, **__: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr("cellmove.cli.planning.intake_resize", defect)
    ran = terminal.type(*RESIZE)
    assert ran.code == 1
    assert "ZeroDivisionError: oops" in ran.err
    assert "Traceback" not in ran.err
    ran = terminal.type(*RESIZE, "--debug", "--json")
    assert "Traceback" in ran.err
    assert ran.json["error"]["exit_code"] == 1


def test_an_error_is_three_sentences_on_stderr_and_an_object_in_json(terminal: Terminal) -> None:
    ran = terminal.type("show", "7")
    assert ran.out == ""
    assert len(ran.err.splitlines()) == 3
    error = terminal.type("show", "7", "--json").json["error"]
    assert ran.err.splitlines() == [f"Error: {error['what']}", error["seen"], error["do"]]


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    code = "from cellmove.cli.commands import main; main()"
    argv = [sys.executable, "-c", code, "--journal", str(tmp_path / "j.db"), "moves"]
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(argv, stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")


def test_the_end_takes_no_modules_apart_but_does_what_was_registered(tmp_path: Path) -> None:
    code = """
import atexit, sys
class Module:
    def __del__(self): print("taken apart")
sys.modules["kept"] = Module()
from cellmove.cli import commands
run = commands.run
def with_handler(argv):
    atexit.register(print, "handled")
    return run(argv)
commands.run = with_handler
commands.main()
"""
    argv = [sys.executable, "-c", code, "--journal", str(tmp_path / "j.db"), "show", "7"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "handled\n")
    assert "There is no move 7." in done.stderr


def test_output_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    code = "from cellmove.cli.commands import main; main()"
    argv = [sys.executable, "-c", code, "--journal", str(tmp_path / "j.db"), "--help"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(argv, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode != 0
    assert "No space left on device" in done.stderr


@pytest.mark.parametrize("options", [(), ("--json",)])
@pytest.mark.parametrize(
    ("command", "code", "answer"),
    [
        (("moves",), Exit.DONE, "There are no moves in"),
        (("show", "7"), Exit.REFUSED, "There is no move 7."),
    ],
)
def test_an_answer_that_cannot_be_written_goes_to_standard_error(
    tmp_path: Path, options: tuple[str, ...], command: tuple[str, ...], code: Exit, answer: str
) -> None:
    """The exit code stays that of the cloud: 1 would say that nothing was touched."""
    program = "from cellmove.cli.commands import main; main()"
    argv = [sys.executable, "-c", program, "--journal", str(tmp_path / "j.db"), *command, *options]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(argv, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == code
    assert answer in done.stderr
    assert ("No space left on device. The answer is:" in done.stderr) == (
        command == ("moves",) or options == ("--json",)
    )
    assert "Traceback" not in done.stderr


def _fails_for_want_of_room() -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("flush", "left_with"), [(lambda: None, [3]), (_fails_for_want_of_room, [])]
)
def test_output_that_cannot_be_written_at_the_end_is_left_to_python_to_tell(
    monkeypatch: pytest.MonkeyPatch, flush: Callable[[], None], left_with: list[int]
) -> None:
    left: list[int] = []
    monkeypatch.setattr("os._exit", left.append)
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(flush=flush))
    commands._end([3])
    assert left == left_with


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(terminal: Terminal, shell: str) -> None:
    assert "_CELLMOVE_COMPLETE" in terminal.type("completion", shell).out
    assert terminal.type("completion", shell, "--json").json["shell"] == shell


def test_the_shell_completes_commands_without_a_configuration() -> None:
    environ = os.environ | {
        "_CELLMOVE_COMPLETE": "bash_complete",
        "COMP_WORDS": "cellmove re",
        "COMP_CWORD": "1",
    }
    code = "from cellmove.cli.commands import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True
    )
    words = [line.partition(",")[2] for line in done.stdout.split()]
    assert words == ["resize", "revert", "resume"]


def test_what_a_failed_dry_run_says_is_not_that_something_was_taken_back(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The world was only looked at: nothing was touched, whatever kind of error ended it."""
    monkeypatch.setattr(CopyDisks, "inspect", lambda *_: failing("Neutron is ill.", StepFailed)())
    assert terminal.type(*RESIZE, "--dry-run").code == 1
