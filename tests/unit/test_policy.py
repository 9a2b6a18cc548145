"""Who may move a server: nova's rules and defaults, over nova's own kind of policy file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cellmove.errors import Refused
from cellmove.policy import CONFIRM, CROSS_CELL, MIGRATE, RESIZE, REVERT, PolicyFile

ADMIN = {"user_id": "u1", "project_id": "p1", "roles": ["admin", "member", "reader"]}
MEMBER = ADMIN | {"roles": ["member", "reader"]}
READER = ADMIN | {"roles": ["reader"]}
SYSTEM = ADMIN | {"project_id": None, "system_scope": "all"}
OWN, OTHER = ("p1", "u1"), ("p2", "u2")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """nova's policy file, as in the lab."""
    path = tmp_path / "policy.yaml"
    path.write_text(f'# ours\n"{CROSS_CELL}": "rule:admin_api"\n"os_compute_api:os-x": "!"\n')
    return path


def allowed(who: dict[str, Any], rule: str, owner: tuple[str, str], file: Path | str = "") -> bool:
    return not list(PolicyFile(who, str(file)).refusals(rule, *owner))


@pytest.mark.parametrize("who", [ADMIN, MEMBER, READER, SYSTEM, {}])
def test_nobody_may_cross_cells_unless_a_file_says_so(who: dict[str, Any]) -> None:
    assert not allowed(who, CROSS_CELL, OWN)


@pytest.mark.parametrize(
    ("who", "may"), [(ADMIN, True), (MEMBER, False), (READER, False), (SYSTEM, False), ({}, False)]
)
def test_a_file_may_let_administrators(file: Path, who: dict[str, Any], may: bool) -> None:
    assert allowed(who, CROSS_CELL, OTHER, file) is may


@pytest.mark.parametrize("rule", [CONFIRM, REVERT, RESIZE])
@pytest.mark.parametrize(
    ("who", "owner", "may"),
    [
        (ADMIN, OTHER, True),
        (MEMBER, OWN, True),
        (MEMBER, OTHER, False),
        (READER, OWN, False),
        (SYSTEM, OTHER, False),
    ],
)
def test_owners_and_administrators_may_end_a_resize(
    rule: str, who: dict[str, Any], owner: tuple[str, str], may: bool
) -> None:
    assert allowed(who, rule, owner) is may


def test_only_administrators_may_migrate() -> None:
    assert allowed(ADMIN, MIGRATE, OTHER)
    assert not allowed(MEMBER, MIGRATE, OWN)


@pytest.mark.parametrize(
    ("check", "may"),
    [
        ("", True),
        ("@", True),
        ("!", False),
        ("role:mover", False),
        ("project_id:p1 or role:mover", True),
        ("user_id:%(user_id)s", True),
        ("rule:admin_or_owner", True),
        ("rule:there_is_none", False),
        ("((", False),
    ],
)
def test_a_rule_is_read_as_nova_reads_it(tmp_path: Path, check: str, may: bool) -> None:
    path = tmp_path / "policy.json"
    path.write_text(f'{{"{CROSS_CELL}": "{check}"}}')
    assert allowed(MEMBER, CROSS_CELL, OWN, path) is may


def test_what_an_administrator_is_the_file_may_say(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(f'context_is_admin: "role:boss"\n"{CROSS_CELL}": "is_admin:True"\n')
    assert allowed(READER | {"roles": ["boss"]}, CROSS_CELL, OTHER, path)
    assert not allowed(ADMIN, CROSS_CELL, OTHER, path)


def test_a_refusal_says_who_one_is_and_how_to_allow_it(file: Path) -> None:
    (default,) = PolicyFile(ADMIN).refusals(CROSS_CELL, *OWN)
    assert default.seen == (
        f"Rule {CROSS_CELL} is `!` (nova's default); "
        "you are user u1 with admin, member, reader in project p1."
    )
    assert f'"{CROSS_CELL}": "rule:admin_api"' in default.do
    assert "[policy]" in default.do
    (filed,) = PolicyFile(MEMBER, str(file)).refusals(CROSS_CELL, *OWN)
    assert f"`rule:admin_api` ({file})" in filed.seen
    assert filed.do.endswith(f"into {file}.")


def test_a_token_without_a_project_is_told_to_get_one(file: Path) -> None:
    (refused,) = PolicyFile(SYSTEM, str(file)).refusals(CROSS_CELL, *OWN)
    assert "no project" in refused.seen
    assert refused.do.startswith("Sign in to a project")


@pytest.mark.parametrize("text", ["- a\n- b\n", "a: [", "only words", f'"{CROSS_CELL}": 5'])
def test_a_file_that_is_no_policy_is_refused_and_lets_nobody(tmp_path: Path, text: str) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(text)
    with pytest.raises(Refused, match="The policy cannot be read") as refused:
        allowed(ADMIN, CROSS_CELL, OWN, path)
    assert str(path) in refused.value.seen


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="there is no such file"):
        allowed(ADMIN, CROSS_CELL, OWN, tmp_path / "nowhere.yaml")


def test_what_is_configured_for_other_programs_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "policy.yaml").write_text(f'"{CROSS_CELL}": "@"\n')
    (tmp_path / "policy.d").mkdir()
    (tmp_path / "policy.d" / "more.yaml").write_text(f'"{CROSS_CELL}": "@"\n')
    monkeypatch.chdir(tmp_path)
    assert not allowed(ADMIN, CROSS_CELL, OWN)


def test_what_only_a_debug_log_needs_is_not_loaded_but_there() -> None:
    code = """
import sys
from importlib.util import _LazyModule
from cellmove.policy import CROSS_CELL, PolicyFile, prepare

prepare()
prepare()  # as when a second cloud is opened
assert len(list(PolicyFile({"roles": ["admin"]}).refusals(CROSS_CELL, "p", "u"))) == 1
late = sys.modules["oslo_utils.strutils"]
assert type(late) is _LazyModule
import oslo_utils.strutils as strutils
assert strutils is late and strutils.mask_password("password = 'x'") == "password = '***'"
"""
    subprocess.run([sys.executable, "-c", code], check=True)
