"""The way to the bastion is cut or falls silent anywhere: what began is unknown, the rest did not.

A real sshd, behind a link that breaks after so many bytes. `Unreachable` promises that the command
did not begin; `Unknown` says that it may have. After the link is mended the same shell goes on.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from cellmove.errors import CellmoveError, Unknown, Unreachable
from cellmove.hosts import shell as shell_module
from cellmove.hosts.shell import Shell, Shells
from tests.faults.link import Link, link
from tests.unit.hosts.conftest import Sshd, acquainted

# A thread of paramiko's may end with EOFError: it closes a channel of a bastion that is gone.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")

CUTS = 8
"""Places in a session at which it is cut, from its first byte to the answer's last."""


@contextmanager
def through(sshd: Sshd, folder: Path) -> Iterator[tuple[Link, Shell]]:
    """A shell of a host behind the bastion, to which a link leads."""
    folder.mkdir()
    here = acquainted(sshd.keys, folder)
    with link(here.port) as between:
        config = Path(here.config)
        config.write_text(f"Host bastion\n  Port {between.port}\n" + config.read_text())
        known = here.known_hosts.read_text()
        here.known_hosts.write_text(known + known.replace(str(here.port), str(between.port)))
        shells = Shells(here.config, "bastion")
        try:
            yield between, shells.shell("far")
        finally:
            shells.close()


def ended(shell: Shell, note: Path, seconds: int = 20) -> CellmoveError | None:
    """Touch a file there; how that ended, which must be true."""
    said: CellmoveError | None = None
    try:
        shell.run(["touch", str(note)], timeout_seconds=seconds)
    except CellmoveError as error:
        said = error
    if said is None:
        assert note.exists()
    else:
        assert isinstance(said, Unreachable | Unknown), said
        assert all(part.endswith(".") for part in (said.what, said.seen, said.do)), said
        assert not (isinstance(said, Unreachable) and note.exists()), said
    return said


def require_whole_again(between: Link, shell: Shell, note: Path) -> None:
    between.mend()
    assert ended(shell, note) is None


def test_a_session_that_is_cut_anywhere_has_begun_nothing_or_says_that_it_may_have(
    sshd: Sshd, tmp_path: Path
) -> None:
    with through(sshd, tmp_path / "clean") as (between, shell):
        shell.get_ready()
        opened = between.bytes
        assert ended(shell, tmp_path / "clean" / "note") is None
        answered = between.bytes
    places = [opened * n // CUTS for n in range(CUTS)]
    places += [opened + (answered - opened) * n // 4 for n in range(1, 4)]

    with through(sshd, tmp_path / "cut") as (between, shell):
        kinds = set()
        for place in places:
            shell.close()
            shell._gateway.close()  # type: ignore[union-attr]
            between.mend()
            between.cut_after = place
            kinds.add(type(ended(shell, tmp_path / f"note-{place}")))
            require_whole_again(between, shell, tmp_path / f"again-{place}")
    assert Unreachable in kinds


def test_a_bastion_that_refuses_is_unreachable_and_named(sshd: Sshd, tmp_path: Path) -> None:
    with through(sshd, tmp_path / "refused") as (between, shell):
        between.cut_after = 0
        with pytest.raises(Unreachable, match="bastion cannot be reached"):
            shell.run(["touch", str(tmp_path / "note")])
        assert not (tmp_path / "note").exists()
        require_whole_again(between, shell, tmp_path / "note")


def test_a_link_that_falls_silent_is_given_up_in_time(
    sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shell_module, "CONNECT_SECONDS", 2)
    monkeypatch.setattr(shell_module, "_GRACE_SECONDS", 0)

    def silent(place: int | None) -> tuple[CellmoveError, CellmoveError | None]:
        folder = tmp_path / f"silent-{place}"
        with through(sshd, folder) as (between, shell):
            if place is None:
                shell.get_ready()
                # The line is checked, and given up: the command will not have begun.
                between.silent_after = between.bytes
            else:
                between.silent_after = place
            first = ended(shell, folder / "note", 3)
            assert first is not None
            between.mend()
            shell.close()
            shell._gateway.close()  # type: ignore[union-attr]
            return first, ended(shell, folder / "again")

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(silent, (1, 600, 2500, None)))
    assert {type(first) for first, _ in found} == {Unreachable}
    assert [again for _, again in found] == [None] * 4
