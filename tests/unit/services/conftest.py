from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.services.cloud_on_loopback import LoopbackCloud, loopback_cloud


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackCloud]:
    """A cloud on loopback, and the clouds.yaml that names it `here`."""
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(tmp_path / "clouds.yaml"))
    for name in ("OS_CLOUD", "OS_AUTH_URL", "OS_USERNAME", "OS_PASSWORD", "OS_PROJECT_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("keystoneauth1.session._Retries.__next__", lambda self: 0.0)
    with loopback_cloud() as made:
        (tmp_path / "clouds.yaml").write_text(made.clouds_yaml())
        yield made
