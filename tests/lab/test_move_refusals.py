"""What is refused at planning: each reason is named, the exit code is 1, nothing is touched."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence

import pytest

from tests.lab.kit.nova import Nova
from tests.lab.kit.program import Cellmove
from tests.lab.kit.traces import dump_databases, dump_hosts, settled

pytestmark = [pytest.mark.lab, pytest.mark.alone]

SOURCE, TARGET = "cmp1b", "cmp2b"
TWINS = f"twins-{uuid.uuid4().hex[:8]}"
VOLUME = {
    "source_type": "blank",
    "destination_type": "volume",
    "volume_type": "nfs",
    "volume_size": 1,
    "boot_index": -1,
    "delete_on_termination": True,
}
OF_FLAVOR_E1 = {"A root disk never shrinks.", "A first ephemeral disk is not made yet."}
ELSEWHERE = ("--to-cell", "cell2")
OF_THE_PLAIN = {
    "a host of its own cell": (("--to-host", "cmp1a"), "Host cmp1a cannot be the target."),
    "an unknown host": (("--to-host", "nowhere"), "nova knows no host 'nowhere'."),
    "a host of another cell than asked for": (
        ("--to-host", TARGET, "--to-cell", "cell1"),
        f"Host {TARGET} is not in cell cell1.",
    ),
    "an unknown flavor": ((*ELSEWHERE, "--flavor", "none"), "There is no flavor 'none'."),
    "the flavor that it has": (
        (*ELSEWHERE, "--flavor", "c2"),
        "The server has flavor 'c2' already.",
    ),
    "a smaller root disk": ((*ELSEWHERE, "--flavor", "c1"), "A root disk never shrinks."),
    "no cell, where its own is best": ((), "The best host for the server is cmp1a, in its own"),
}


@pytest.fixture(scope="module")
def plain(admin_nova: Nova, blank: str) -> Iterator[str]:
    """A server that could be moved."""
    server = admin_nova.boot(TWINS, SOURCE, "c2", more={"imageRef": blank})
    yield server
    admin_nova.discard(server)


@pytest.fixture(scope="module")
def laden(admin_nova: Nova, blank: str) -> Iterator[str]:
    """A server of the same name, with a volume, an ephemeral disk and two ports."""
    image = {
        "source_type": "image",
        "destination_type": "local",
        "boot_index": 0,
        "uuid": blank,
        "delete_on_termination": True,
    }
    more = {"imageRef": blank, "block_device_mapping_v2": [image, VOLUME]}
    server = admin_nova.boot(TWINS, SOURCE, "e1", ports=2, more=more)
    yield server
    admin_nova.discard(server)


@pytest.fixture(scope="module")
def before(plain: str, laden: str, admin_nova: Nova) -> dict[str, str]:
    """Everything there is before the first refusal."""
    for server in (plain, laden):
        admin_nova.wait_port(server, SOURCE)
    return settled(everything)


def everything() -> dict[str, str]:
    """All databases and hosts."""
    return dump_databases() | dump_hosts()


def refused(cellmove: Cellmove, *argv: str) -> Sequence[str]:
    """What the program names as reasons, one or several."""
    done = cellmove(*argv, "--json", check=False)
    assert done.code == 1, done
    error = done.json()["error"]
    assert error["exit_code"] == 1
    return [reason["what"] for reason in error["reasons"]] or [error["what"]]


@pytest.mark.usefixtures("before")
def test_all_reasons_are_named_at_once(plain: str, cellmove: Cellmove) -> None:
    wish = ("--flavor", "e1", "--to-host", TARGET)
    assert set(refused(cellmove, "resize", plain, *wish)) >= OF_FLAVOR_E1


@pytest.mark.usefixtures("before")
@pytest.mark.parametrize("case", OF_THE_PLAIN)
def test_a_wish_that_cannot_be_is_refused(case: str, plain: str, cellmove: Cellmove) -> None:
    wish, what = OF_THE_PLAIN[case]
    (told,) = refused(cellmove, "resize", plain, *wish)
    assert told.startswith(what)


@pytest.mark.usefixtures("before")
def test_a_flavor_without_the_ephemeral_disk_is_refused(laden: str, cellmove: Cellmove) -> None:
    what = "Ephemeral disks never shrink."
    assert what in refused(cellmove, "resize", laden, "--flavor", "c1", "--to-host", TARGET)


@pytest.mark.usefixtures("before")
@pytest.mark.parametrize("verb", ["confirm", "revert"])
def test_only_a_resized_server_is_confirmed_or_reverted(
    verb: str, plain: str, cellmove: Cellmove
) -> None:
    what = ["The server does not wait to be confirmed or reverted."]
    assert refused(cellmove, verb, plain, "--yes") == what


@pytest.mark.usefixtures("before")
def test_a_name_that_two_servers_bear_is_refused_with_both_uuids(
    plain: str, laden: str, cellmove: Cellmove
) -> None:
    done = cellmove("resize", TWINS, "--to-host", TARGET, check=False)
    assert done.code == 1
    assert plain in done.stderr
    assert laden in done.stderr


@pytest.mark.usefixtures("before")
def test_an_unknown_server_is_refused(cellmove: Cellmove) -> None:
    assert refused(cellmove, "resize", "nobody") == ["No single server is named 'nobody'."]
    unknown = str(uuid.uuid4())
    assert refused(cellmove, "resize", unknown) == [f"There is no server {unknown} in any cell."]


def test_no_refusal_has_touched_anything(
    before: dict[str, str], plain: str, laden: str, cellmove: Cellmove
) -> None:
    refused(cellmove, "resize", laden, "--flavor", "c1", "--to-host", TARGET)
    refused(cellmove, "confirm", plain, "--yes")
    assert everything() == before
