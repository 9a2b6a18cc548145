"""`cellmove check --server`: every reason at once, and nothing touched."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lab.kit.nova import Nova
from tests.lab.kit.program import Cellmove

pytestmark = [pytest.mark.lab, pytest.mark.alone]


def test_all_reasons_are_told_at_once_and_none_when_there_is_none(
    nova: Nova, blank: str, cellmove: Cellmove, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = nova.boot("looked-at", "cmp1b", more={"imageRef": blank})
    before = nova.show(server)

    good = cellmove("check", "--server", server, "--to-cell", "cell2", "--json").json()
    assert (good["server"], good["host"], good["cell"]) == (server, "cmp1b", "cell1")
    assert good["to_host"] in ("cmp2a", "cmp2b")
    assert (good["to_cell"], good["reasons"], good["exit_code"]) == ("cell2", [], 0)

    monkeypatch.setenv("CELLMOVE_POLICY_FILE", "")
    monkeypatch.setenv("CELLMOVE_NOVA_QUOTA_RAM_MB", "1")
    strict = Cellmove(tmp_path)
    wish = ("--server", server, "--flavor", "c2", "--to-host", "cmp1a")
    bad = strict("check", *wish, "--json", check=False)
    assert bad.code == bad.json()["exit_code"] == 7
    told = [each["what"] for each in bad.json()["reasons"]]
    assert "The policy does not allow you to do this to the server." in told
    assert any("has no quota for flavor c2" in what for what in told)
    assert "Host cmp1a cannot be the target." in told
    assert bad.json()["to_host"] is None

    table = strict("check", *wish, check=False)
    assert "cannot be moved:" in table.stdout
    assert nova.show(server) == before
    assert [each["action"] for each in nova.actions(server)] == ["create"]


def test_a_server_that_is_not_there_is_no_finding(cellmove: Cellmove) -> None:
    done = cellmove("check", "--server", "there-is-none", check=False)
    assert (done.code, done.stdout) == (1, "")
