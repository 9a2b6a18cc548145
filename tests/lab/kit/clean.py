"""Whether a server is whole and has left nothing over: what `cellmove audit` says of it."""

from __future__ import annotations

import pytest

from tests.lab.kit.program import Cellmove


def assert_whole(cellmove: Cellmove, server: str) -> None:
    """Fail the test when the audit finds anything of the server; it may be gone already."""
    done = cellmove("audit", "--server", server, "--json", check=False)
    if done.code:
        found = done.json().get("findings") if done.stdout else done.stderr
        pytest.fail(f"the audit of {server} ended with {done.code}: {found}")
