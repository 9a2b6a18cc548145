"""nova's own move is the oracle: at each checkpoint cellmove's has left the same records."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from cellmove.config import load
from tests.lab.kit.nova import Nova, lab_session
from tests.lab.kit.places import OUTPUTS
from tests.lab.oracle.checkpoints import CHECKPOINTS
from tests.lab.oracle.improvements import differences, undocumented, unseen
from tests.lab.oracle.moves import Found, Leg, Rivals

pytestmark = [pytest.mark.lab, pytest.mark.alone]

LEGS = (
    Leg(flavor=None, running=True, end="revert"),
    Leg(flavor="c2", running=False, end="revert"),
    Leg(flavor="c2", running=True, end="confirm"),
)


def discard_all(nova: Nova) -> None:
    for server in nova.servers:
        nova.discard(server)


@pytest.fixture(scope="module")
def rivals(
    admin_nova: Nova, blank: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Rivals]:
    admin_nova.servers.clear()
    with pytest.MonkeyPatch.context() as environment, ExitStack() as last:
        environment.setenv("OS_CLIENT_CONFIG_FILE", str(OUTPUTS / "clouds.yaml"))
        config = load(str(OUTPUTS / "cellmove.toml"), os.environ)
        last.callback(discard_all, admin_nova)
        folder = tmp_path_factory.mktemp("oracle")
        made = Rivals(config, admin_nova, lab_session(), blank, folder)
        last.callback(made.close)
        yield made


@pytest.fixture(scope="module", params=LEGS, ids=str)
def leg(request: pytest.FixtureRequest) -> Leg:
    chosen: Leg = request.param
    return chosen


@pytest.fixture(scope="module")
def found(rivals: Rivals, leg: Leg) -> Found:
    return rivals.run(leg)


def test_cellmove_goes_through_novas_checkpoints(leg: Leg, found: Found) -> None:
    assert found.astray == {}
    passed = [each for verb in ("resize", leg.end) for each in CHECKPOINTS[verb]]
    missed = [each.name for each in passed if not found.nova[each.name] and not each.brief]
    assert missed == []


def test_the_records_differ_in_nothing_but_what_is_documented(leg: Leg, found: Found) -> None:
    more, less = {}, {}
    for checkpoint, ours in found.cellmove.items():
        if found.nova[checkpoint]:
            seen = differences(found.nova[checkpoint], ours, checkpoint)
            more[checkpoint] = undocumented(seen, str(leg), checkpoint)
            less[checkpoint] = unseen(seen, str(leg), checkpoint)
    assert {name: each for name, each in more.items() if each} == {}
    assert {name: each for name, each in less.items() if each} == {}
