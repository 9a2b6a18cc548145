"""pytest hooks for whatever is marked `lab`; conftest files import them."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack

import pytest

from tests.lab.kit.places import CONDUCTOR, OUTPUTS, conductor_namespace
from tests.lab.kit.program import Cellmove


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Run a lab test, its fixtures included, on the conductor's side of the lab."""
    with ExitStack() as stack:
        if item.get_closest_marker("lab") and CONDUCTOR.exists():
            stack.enter_context(conductor_namespace())
        return (yield)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Nothing is skipped silently: without a lab its tests fail."""
    there = CONDUCTOR.exists() and (OUTPUTS / "clouds.yaml").exists()
    if item.get_closest_marker("lab") and not there:
        pytest.fail("The lab is not up: run `make lab` first.", pytrace=False)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown() -> None:
    """Before any fixture goes."""
    Cellmove.end_all()
