"""The page that tells which test asks what nova asks: every test that it names is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "accept.rst").read_text()
NAMED = re.findall(r"``(tests/\w+/test_\w+\.py)(?:::(test_\w+))?``", PAGE)


def claims_of(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    return {each.name for each in tree.body if isinstance(each, ast.FunctionDef)}


def test_every_test_that_the_page_names_exists() -> None:
    assert len(NAMED) > 40
    wanted = {(file, test) for file, test in NAMED if test}
    missing = [each for each in wanted if each[1] not in claims_of(ROOT / each[0])]
    assert missing == []
    assert [file for file, _ in NAMED if not (ROOT / file).exists()] == []


def test_every_test_of_the_suite_is_on_the_page() -> None:
    there = {
        (f"tests/accept/{path.name}", test)
        for path in (ROOT / "tests" / "accept").glob("test_*.py")
        for test in claims_of(path)
        if test.startswith("test_")
    }
    assert there - set(NAMED) == set()


def test_each_of_novas_scenarios_is_on_the_page_once() -> None:
    for scenario in (
        "test_resize_confirm_image_backed",
        "test_resize_revert_volume_backed",
        "test_resize_revert_detach_volume_while_resized",
        "test_delete_while_in_verify_resize_status",
        "test_cold_migrate_target_host_in_other_cell",
        "test_cold_migrate_cross_cell_weigher_stays_in_source_cell",
        "test_resize_cross_cell_weigher_filtered_to_target_cell_by_spec",
        "test_anti_affinity_group",
        "test_poll_unconfirmed_resizes_with_no_upcall",
        "test_resize_confirm_from_stopped",
        "test_resize_revert_from_stopped",
        "test_finish_snapshot_based_resize_at_dest_spawn_fails",
        "test_prep_snapshot_based_resize_at_source_destroy_fails",
    ):
        assert PAGE.count(f"* - ``{scenario}``") == 1, scenario
