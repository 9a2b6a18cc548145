"""A token that is kept for the next command, as clouds.yaml says: Keystone vouches for it first."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import keyring
import pytest
from keyring.errors import KeyringLocked
from keyrings.alt.file import PlaintextKeyring

from cellmove.errors import Refused, Unreachable
from cellmove.services.session import Session, sign_in
from tests.unit.services.cloud_on_loopback import HANG_UP, LoopbackCloud

REQUEST = "req-00000000-0000-0000-0000-000000000001"
PATH = "/network/v2.0/ports"


@pytest.fixture(autouse=True)
def file(cloud: LoopbackCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The keyring's, which the cloud's tokens are kept in."""
    cloud.keeps = True
    (tmp_path / "clouds.yaml").write_text(cloud.clouds_yaml())
    before, path = keyring.get_keyring(), tmp_path / "keyring.cfg"
    monkeypatch.setattr(PlaintextKeyring, "file_path", str(path))
    keyring.set_keyring(PlaintextKeyring())
    yield path
    keyring.set_keyring(before)


def command() -> Session:
    return sign_in("here", REQUEST, service_cloud="service")


def test_the_next_command_needs_no_password(cloud: LoopbackCloud) -> None:
    command()
    assert sorted(cloud.passwords) == ["cellmove", "operator"]
    cloud.requests.clear()
    session = command()
    assert cloud.passwords == []
    assert (session.who.user_id, session.who.project_id) == ("operator", "p1")
    session.service("network").get("/ports")
    (request,) = cloud.asked(PATH)
    assert request.headers["x-auth-token"] == "token-of-operator"
    assert request.headers["x-service-token"] == "token-of-cellmove"


def test_nothing_is_kept_unless_the_cloud_wants_it(
    cloud: LoopbackCloud, tmp_path: Path, file: Path
) -> None:
    cloud.keeps = False
    (tmp_path / "clouds.yaml").write_text(cloud.clouds_yaml())
    for _ in range(2):
        command()
    assert sorted(cloud.passwords) == ["cellmove", "cellmove", "operator", "operator"]
    assert not file.exists()


def test_roles_that_were_taken_away_are_not_believed(cloud: LoopbackCloud) -> None:
    assert command().who.roles == {"admin"}
    cloud.roles = ("reader",)
    assert command().who.roles == {"reader"}
    assert sorted(cloud.passwords) == ["cellmove", "operator"]


def test_a_token_that_is_good_no_more_is_replaced(cloud: LoopbackCloud) -> None:
    command()
    cloud.revoke()
    cloud.requests.clear()
    session = command()
    assert sorted(cloud.passwords) == ["cellmove", "operator"]
    cloud.answers["GET", PATH] = [(200, {"ports": []})]
    assert session.service("network").get("/ports").ok
    cloud.requests.clear()
    assert command().who.user_id == "operator"
    assert cloud.passwords == []


@pytest.mark.parametrize("told", [(404, {}), (200, "nonsense"), (200, {"no": "token"})])
def test_a_token_that_keystone_does_not_vouch_for_is_not_used(
    cloud: LoopbackCloud, told: tuple[int, object]
) -> None:
    command()
    cloud.requests.clear()
    cloud.told = told
    assert command().who.user_id == "operator"
    assert sorted(cloud.passwords) == ["cellmove", "operator"]


def test_a_silent_keystone_is_unreachable_with_a_kept_token_too(cloud: LoopbackCloud) -> None:
    command()
    cloud.told = (HANG_UP, {})
    with pytest.raises(Unreachable, match="Keystone cannot be reached"):
        command()


def test_a_password_that_was_changed_is_not_asked_for_before_the_token_ends(
    cloud: LoopbackCloud,
) -> None:
    command()
    cloud.password = "another"
    command()
    cloud.revoke()
    with pytest.raises(Refused, match="Signing in to the cloud failed"):
        command()


@pytest.mark.parametrize("spoilt", ["", "[openstacksdk", "half"])
def test_a_keyring_that_another_command_is_writing_is_done_without(
    cloud: LoopbackCloud, file: Path, spoilt: str
) -> None:
    command()
    file.write_text(spoilt if spoilt != "half" else file.read_text()[:200])
    cloud.requests.clear()
    assert command().who.user_id == "operator"
    assert sorted(cloud.passwords) == ["cellmove", "operator"]


def test_a_locked_keyring_is_done_without(
    cloud: LoopbackCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    def locked(*_: object) -> None:
        raise KeyringLocked("Failed to unlock the collection")

    monkeypatch.setattr(PlaintextKeyring, "get_password", locked)
    monkeypatch.setattr(PlaintextKeyring, "set_password", locked)
    for _ in range(2):
        assert command().who.user_id == "operator"
    assert sorted(cloud.passwords) == ["cellmove", "cellmove", "operator", "operator"]
