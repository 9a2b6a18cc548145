"""The documentation builds without a warning, and what it says is what the code does."""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from html import unescape
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest

from cellmove.cli.commands import cellmove
from cellmove.cli.commands import run as run_command
from cellmove.dbcopy.tables import COPIED
from cellmove.errors import Exit, Refused
from cellmove.journal import Verb
from cellmove.plan import SCORES
from tests.fakes.databases import CELL1, CELL2, HOSTS
from tests.fakes.invariants import foreign
from tests.fakes.world import SERVER, World
from tests.unit.conftest import Terminal
from tests.unit.rehearsal import Rehearsal, rehearsed

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PROGRAMS = f"{ROOT / '.venv' / 'bin'}:{os.environ['PATH']}"


def extension(name: str) -> ModuleType:
    """One of the documentation's own, as Sphinx loads it."""
    spec = importlib.util.spec_from_file_location(name, DOCS / "_ext" / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages, made with every warning an error."""
    out = tmp_path_factory.mktemp("docs")
    options = ["-q", "-n", "-W", "--keep-going", "-b", "html", "-d", str(out / "trees")]
    argv = [sys.executable, "-m", "sphinx", *options, str(DOCS), str(out)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out


def test_every_page_that_the_readme_names_is_there() -> None:
    links = re.findall(r"<((?:docs/|CONTRIBUTING)[^>]+)>`_", (ROOT / "README.rst").read_text())
    assert len(links) > 15
    assert [link for link in links if not (ROOT / link).exists()] == []


def text_of(page: Path) -> str:
    """What a reader sees of it, blanks made one."""
    return " ".join(unescape(re.sub(r"<[^>]+>", "", page.read_text())).split())


def test_no_page_leads_to_another_site_for_anything(built: Path) -> None:
    for page in built.rglob("*.html"):
        assert not re.findall(r'(?:src|rel="stylesheet"[^>]* href)="https?:', page.read_text())


def test_every_step_of_every_score_is_drawn_in_its_order(built: Path) -> None:
    html = (built / "how.html").read_text()
    drawings = dict(re.findall(r"<title>(\w+), step by step</title>(.*?)</svg>", html, re.DOTALL))
    assert set(drawings) == {*SCORES, "undo"}
    for verb, drawing in drawings.items():
        names = re.findall(r'font-family="monospace" [^>]*>(?:undo )?([\w-]+)<', drawing)
        score = SCORES["resize"][::-1] if verb == "undo" else SCORES[verb]
        assert names == [step.name for step in score]


def test_every_checkpoint_and_phase_of_a_score_is_drawn(built: Path) -> None:
    html = (built / "how.html").read_text()
    for text in (
        "Claim: nothing is felt by the guest",
        "From here on only forward",
        "checkpoint 1: the server is locked",
        "checkpoint 12: the switch",
        "checkpoint 15c: confirmed",
    ):
        assert f">{text}</text>" in html


Done = Callable[[Verb], Rehearsal]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Done:
    """Each verb once; whoever changes its world puts it back to some moment first."""

    @functools.cache
    def of(verb: Verb) -> Rehearsal:
        return rehearsed(tmp_path_factory.mktemp(verb), verb)

    return of


@pytest.mark.parametrize("verb", ["resize", "confirm", "revert"])
def test_a_step_changes_the_system_that_its_drawing_shows(verb: Verb, done: Done) -> None:
    system = extension("scores").system
    whole = done(verb)
    wrong = {}
    for number, step in enumerate(whole.steps):
        before, after = (whole.moments[n].snapshot for n in (number, number + 1))
        changed = set(_changed(before, after))
        if any(each.endswith(" host") for each in changed):
            changed.discard("Neutron")  # its agent has seen the port come or go
        if changed and changed != {system(type(step))}:
            wrong[step.name] = changed
    assert not wrong


def _changed(before: dict[str, Any], after: dict[str, Any]) -> Iterator[str]:
    names = {
        "api": "API database",
        CELL1.uuid: "source cell",
        CELL2.uuid: "target cell",
        "network": "Neutron",
        "placement": "Placement",
        "volumes": "Cinder",
    }
    for key, name in names.items():
        if before[key] != after[key]:
            yield name
    for host in HOSTS:
        if before["hosts"][host] != after["hosts"][host]:
            yield "source host" if HOSTS[host] == CELL1 else "target host"


def test_a_step_whose_class_does_not_tell_what_it_touches_fails_the_build() -> None:
    scores = extension("scores")

    class Strange:
        name = "do-something"

    Strange.__module__ = "cellmove.steps.strange"
    with pytest.raises(scores.ExtensionError, match="do-something"):
        scores.system(Strange)


def test_every_error_has_its_place_in_the_runbook(built: Path) -> None:
    refusals = extension("refusals")
    page = text_of(built / "runbook.html")
    assert len(refusals.raised()) > 150
    for each in refusals.raised():
        assert refusals.family(each.module), f"no page has `.. refusals::` of {each.module}"
        for said in (each.what, each.seen, each.do):
            assert " ".join(said.replace("`", "").split()) in page, each


def test_every_exit_code_has_a_chapter_in_the_runbook_that_says_what_the_help_says() -> None:
    chapters = re.findall(r"^(\d): (.+)\n~~~", (DOCS / "runbook.rst").read_text(), re.MULTILINE)
    assert {int(code): text for code, text in chapters} == {
        **extension("exit_codes").codes(),
        5: "stopped on request",
    }
    assert int(chapters[0][0]) == Exit.NOT_TAKEN_BACK


def test_every_key_is_in_the_table_with_its_default_and_variable(built: Path) -> None:
    page = text_of(built / "keys.html")
    keys = extension("config_keys").keys()
    assert len(keys) > 25
    for key in keys:
        assert f"[{key.section}] {key.name} {key.variable} {key.kind} {key.default}" in page


def test_every_command_and_option_is_in_the_reference(built: Path) -> None:
    page = (built / "commands.html").read_text()
    for name, command in cellmove.commands.items():
        assert f'id="cellmove-{name}"' in page
        for option in command.params:
            if isinstance(option, click.Option) and not option.hidden:
                assert f'id="cmdoption-cellmove-{name}-{option.opts[0].lstrip("-")}"' in page


def test_there_is_a_manual_page_of_each_command(tmp_path: Path) -> None:
    argv = [sys.executable, str(DOCS / "_ext" / "manual.py"), str(tmp_path)]
    subprocess.run(argv, check=True, capture_output=True)
    found = {path.name for path in tmp_path.glob("*.1")}
    assert found == {"cellmove.1", *(f"cellmove-{name}.1" for name in cellmove.commands)}
    page = (tmp_path / "cellmove-confirm.1").read_text()
    for words in ("there is no way back", "\\-\\-yes", "failed, wholly taken back"):
        assert words in page


@pytest.mark.parametrize("script", sorted(DOCS.glob("scripts/*.sh")), ids=lambda path: path.name)
def test_a_worked_script_is_sound_and_shown(script: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True)
    assert "\nset -euo pipefail\n" in script.read_text()
    assert os.access(script, os.X_OK)
    assert f".. literalinclude:: scripts/{script.name}" in (DOCS / "scripts.rst").read_text()


def asked(words: str, *more: str) -> list[str]:
    """What bash, having sourced the completion, offers at the end of this line."""
    code = f"""
    eval "$(cellmove completion bash)"
    COMP_WORDS=({words}) COMP_CWORD={len(words.split()) - 1}
    "$(complete -p cellmove | sed 's/.*-F \\([^ ]*\\).*/\\1/')" cellmove
    printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    argv = ["bash", "--norc", "-c", code, *more]
    environment = {**os.environ, "PATH": PROGRAMS}
    done = subprocess.run(argv, capture_output=True, text=True, env=environment, check=True)
    return done.stdout.split()


def test_bash_completes_commands_options_and_choices() -> None:
    assert asked("cellmove mov") == ["moves"]
    assert "--to-cell" in asked("cellmove resize --to-")
    assert asked("cellmove resize --on-failure u") == ["undo"]


def test_no_command_asks_without_a_terminal(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Nobody:
        @staticmethod
        def isatty() -> bool:
            return False

        def __getattr__(self, name: str) -> Any:
            pytest.fail(f"somebody wants to {name} from standard input")

    monkeypatch.setattr(sys, "stdin", Nobody())
    terminal.type("resize", SERVER, "--to-host", "cmp2a")
    for name, command in cellmove.commands.items():
        assert not any(getattr(each, "prompt", None) for each in command.params)
        needed = [each for each in command.params if isinstance(each, click.Argument)]
        values = ["bash" if name == "completion" else SERVER for each in needed if each.required]
        assert run_command([name, *values]) in set(Exit)


@pytest.mark.parametrize("name", sorted(cellmove.commands))
def test_every_command_takes_the_options_that_scripts_need(name: str) -> None:
    taken = {opt for each in cellmove.commands[name].params for opt in each.opts}
    assert {"--json", "--quiet", "--config", "--journal"} <= taken


# The SQL of docs/recovery.rst, tried on the fake cloud's real schema.


PAGE = (DOCS / "recovery.rst").read_text()


def by_hand(world: World, title: str, database: str, **names: str) -> None:
    """Type a block of the page into this database, but for what it only looks at."""
    (block,) = re.findall(rf"-- by hand: {title}\n((?:(?: +.*)?\n)+?)(?=\S|\n\S|\Z)", PAGE)
    for statement in block.replace("'U'", f"'{SERVER}'").split(";"):
        text = statement.strip()
        for old, new in names.items():
            text = text.replace(old.replace("_", "-"), new)
        if text.startswith(("UPDATE", "DELETE")):
            world._files[database]._raw.execute(text)


def moment_before(step: str, rehearsal: Rehearsal) -> World:
    """The world as it was when this step began; its journal is lost."""
    number = next(n for n, each in enumerate(rehearsal.steps) if each.name == step)
    rehearsal.world.load(rehearsal.moments[number].state)
    return rehearsal.world


def row(world: World, cell: str) -> dict[str, Any]:
    (found,) = world.query(cell, "SELECT * FROM instances WHERE uuid = ?", SERVER)
    return found


@pytest.mark.parametrize("step", ["bind-ports", "copy-disks", "show-target", "point-mapping"])
def test_by_hand_a_move_before_the_switch_leaves_the_databases_as_they_were(
    step: str, done: Done
) -> None:
    world = moment_before(step, done("resize"))
    before, others = done("resize").moments[0].snapshot, foreign(world)

    by_hand(world, "in the target cell, when the mapping leads to the source cell", CELL2.uuid)
    by_hand(world, "in the source cell, when the mapping leads to the source cell", CELL1.uuid)

    after = world.snapshot()
    assert after[CELL2.uuid] == before[CELL2.uuid]
    changed = {name for name, rows in before[CELL1.uuid].items() if after[CELL1.uuid][name] != rows}
    assert changed <= {
        *("migrations", "instance_actions", "instance_actions_events"),  # its history
        *("instance_extra", "instances"),
    }
    home = row(world, CELL1.uuid)
    assert (home["vm_state"], home["task_state"], home["hidden"]) == ("active", None, 0)
    assert foreign(world) == others


def test_by_hand_every_table_that_is_copied_is_emptied_of_the_server() -> None:
    (block,) = re.findall(r"in the target cell, when .* source cell\n(.*?)\n5\.", PAGE, re.DOTALL)
    assert {each.name for each in COPIED} == set(re.findall(r"DELETE FROM (\w+)", block))


@pytest.mark.parametrize("step", ["hide-source", "update-request-spec", "close-source-events"])
def test_by_hand_a_move_after_the_switch_can_be_confirmed(step: str, done: Done) -> None:
    world = moment_before(step, done("resize"))
    by_hand(world, "in the target cell, when the mapping leads to the target cell", CELL2.uuid)
    by_hand(world, "in the source cell, when the mapping leads to the target cell", CELL1.uuid)
    Rehearsal(world, "confirm")
    assert row(world, CELL2.uuid)["vm_state"] == "active"


@pytest.mark.parametrize(
    "step", ["carry-history-over", "remove-source-disks", "delete-source-records"]
)
def test_by_hand_half_a_confirm_is_confirmed_again(step: str, done: Done) -> None:
    world = moment_before(step, done("confirm"))
    by_hand(world, "in the target cell, a confirm that nobody works on", CELL2.uuid)
    Rehearsal(world, "confirm")
    assert row(world, CELL2.uuid)["vm_state"] == "active"


@pytest.mark.parametrize("vm_state", ["active", "stopped"])
def test_by_hand_a_confirm_whose_source_is_gone_is_finished(vm_state: str, tmp_path: Path) -> None:
    world = moment_before("finish-confirm", rehearsed(tmp_path, "confirm", vm_state))
    by_hand(world, "in the target cell, when the source's row is gone", CELL2.uuid)
    there = row(world, CELL2.uuid)
    assert (there["vm_state"], there["task_state"]) == (vm_state, None)
    query = "SELECT status FROM migrations WHERE instance_uuid = ? ORDER BY id"
    assert world.query(CELL2.uuid, query, SERVER)[-1]["status"] == "confirmed"


def release_revert(world: World) -> None:
    by_hand(world, "in the target cell, a revert that has not stopped the guest", CELL2.uuid)
    by_hand(world, "in the source cell, a revert that has not stopped the guest", CELL1.uuid)


@pytest.mark.parametrize("step", ["carry-state-home", "reserve-target-attachments"])
def test_by_hand_a_revert_that_has_not_stopped_the_guest_is_reverted_again(
    step: str, done: Done
) -> None:
    world = moment_before(step, done("revert"))
    release_revert(world)
    Rehearsal(world, "revert")
    assert row(world, CELL1.uuid)["vm_state"] == "active"


def test_by_hand_a_revert_that_had_reserved_volumes_says_which_attachments_to_delete(
    done: Done,
) -> None:
    world = moment_before("stop-target-guest", done("revert"))
    release_revert(world)
    with pytest.raises(Refused, match="Delete it: `cinder attachment-delete"):
        Rehearsal(world, "revert")


def test_by_hand_the_mapping_is_led_home(done: Done) -> None:
    world = moment_before("point-mapping-home", done("revert"))
    title = "in the API database, a revert whose guest is off at both hosts"
    by_hand(world, title, "api", SOURCE_CELL="cell1")
    query = "SELECT cell_id FROM instance_mappings WHERE instance_uuid = ?"
    (mapping,) = world.query("api", query, SERVER)
    assert mapping["cell_id"] == CELL1.id
