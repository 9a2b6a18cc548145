"""What a hostile guest, host or name could try, as docs/security.rst lists it."""

from __future__ import annotations

import json
import re
import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cellmove
from cellmove.errors import CellmoveError, StepFailed
from cellmove.hosts import line as line_module
from cellmove.hosts.blocks import volume_disks, with_volumes
from cellmove.hosts.disks import Layout, as_user, checked_disk, checked_uuid
from cellmove.hosts.line import Line
from cellmove.hosts.xml import GuestXml
from tests.fakes.world import DOMAIN, SERVER
from tests.unit.hosts.test_sudoers import AS_NOVA, AS_ROOT, allowed, render

QUICK = settings(derandomize=True, database=None, deadline=None, max_examples=150)
WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30)
GUEST = DOMAIN.format(
    name="instance-00000001", server=SERVER, mac="fa:16:3e:00:00:01", device="tap0"
)
LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10 if n else "ha" * 50}">' for n in range(12))


class Host:
    """A channel whose other end says what it is told to, for ever if need be."""

    def __init__(self, *said: bytes) -> None:
        self.sent = b""
        self._said = list(said)

    def settimeout(self, _seconds: float) -> None: ...
    def exec_command(self, _command: str) -> None: ...
    def get_transport(self) -> Host:
        return self

    def send_ignore(self, _count: int) -> None: ...
    def close(self) -> None: ...
    def sendall(self, data: bytes) -> None:
        self.sent += data

    def recv(self, _count: int) -> bytes:
        return self._said.pop(0) if len(self._said) > 1 else self._said[0]


def ask(host: Host, *argv: str) -> Any:
    return Line(host, 1).ask(argv, b"", 30, 30)  # type: ignore[arg-type]


@QUICK
@given(st.lists(WORDS, min_size=1, max_size=4))
def test_words_reach_a_host_as_they_are_and_no_shell_on_the_way(words: list[str]) -> None:
    host = Host(b"[0, 0, 0]\n")
    ask(host, *as_user("nova", words))
    command, _, _ = json.loads(host.sent)
    assert command == ["sudo", "-n", "-u", "nova", "--", *words]
    # What an error shows may be pasted.
    assert shlex.split(shlex.join(command)) == command


@pytest.mark.parametrize(
    "said",
    [b"what?\n", b"[]\n", b"{}\n", b"[0, -1, 0]\n", b"[null, 0, 0]\n", b"\xff\n", b"[0, 1]\n"],
)
def test_a_host_that_talks_nonsense_is_told_as_one(said: bytes) -> None:
    with pytest.raises(EOFError):
        ask(Host(said), "true")


@pytest.mark.parametrize("begin", [b"", b"[0, 1000000000000, 0]\n", b"[0, 0, 1000000000000]\n"])
def test_a_host_that_never_ends_does_not_fill_our_memory(
    begin: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line_module, "MOST_BYTES", 1 << 20)
    host = Host(begin or b"x", b"x" * (1 << 16))
    with pytest.raises(EOFError, match="says more than 1 MiB"):
        ask(host, "true")


@pytest.mark.parametrize("read", [GuestXml, lambda xml: with_volumes(xml, {}), volume_disks])
def test_a_definition_reads_no_file_and_asks_no_network(
    read: Callable[[str], Any], tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("canary")
    for system in (secret.as_uri(), "http://127.0.0.1:9/x"):
        entity = f'<!DOCTYPE domain [<!ENTITY x SYSTEM "{system}">]>'
        evil = entity + GUEST.replace("<vcpu>1<", "<title>&x;</title><vcpu>1<")
        assert "canary" not in repr(read(evil))
        parameter = f'<!DOCTYPE domain [<!ENTITY % x SYSTEM "{system}"> %x;]>'
        assert "canary" not in repr(read(parameter + GUEST))


@pytest.mark.parametrize("read", [GuestXml, lambda xml: with_volumes(xml, {}), volume_disks])
def test_a_definition_cannot_blow_itself_up(read: Callable[[str], Any]) -> None:
    evil = f"<!DOCTYPE domain [{LAUGHS}]>" + GUEST.replace("<vcpu>", "<title>&l11;</title><vcpu>")
    began = time.monotonic()
    try:
        size = len(repr(read(evil)))
    except CellmoveError:
        size = 0
    assert size < 1 << 20
    assert time.monotonic() - began < 20


def test_all_xml_goes_through_the_one_careful_parser() -> None:
    sources = {path.name: path.read_text() for path in Path(cellmove.__path__[0]).rglob("*.py")}
    reads = re.compile(r"etree\.(fromstring|XML|parse|iterparse)\b|xml\.(etree|sax|dom)")
    assert {name for name, text in sources.items() if reads.search(text)} == {"tree.py"}


@QUICK
@given(WORDS)
def test_only_nova_s_own_names_become_a_path(word: str) -> None:
    layout = Layout()
    for hostile in (word, f"../{word}", f"{SERVER}\n", f"{SERVER}/{word}", f"disk\n{word}"):
        for make in (checked_uuid, layout.directory, layout.info, layout.guest_socket):
            if not re.fullmatch(r"[0-9a-f-]{36}", hostile):
                with pytest.raises(StepFailed):
                    make(hostile)
        if not re.fullmatch(r"disk(\.[a-z0-9]+)?", hostile):
            with pytest.raises(StepFailed):
                checked_disk(hostile)
            with pytest.raises(StepFailed):
                layout.half(SERVER, hostile)


@pytest.mark.parametrize("user", ["nova", "root"])
def test_sudo_takes_none_of_our_commands_with_anything_more_or_other_in_it(user: str) -> None:
    rules = allowed(render(), user)
    assert rules
    for what, argv in (AS_NOVA if user == "nova" else AS_ROOT).items():
        for changed in _spoilt(argv):
            line = " ".join(changed[1:])
            taken = [
                expression
                for program, expression in rules
                if program == changed[0] and re.fullmatch(expression, line)
            ]
            assert not taken, (what, changed)


def _spoilt(argv: tuple[str, ...]) -> list[tuple[str, ...]]:
    """The command with one thing more, in each place."""
    paths = [n for n, word in enumerate(argv) if word.startswith("/") and n]
    return [
        *((*argv, more) for more in ("/etc/shadow", "-x", "--", ";id", "\n/etc/shadow", "$(id)")),
        *((*argv[:n], f"{argv[n]}{more}", *argv[n + 1 :])
          for n in paths for more in ("/../../x", "\n", "/.", " /etc/shadow", "\0", "//x")),
        *((*argv[:n], f"/x/..{argv[n]}", *argv[n + 1 :]) for n in paths),
        (f"/tmp{argv[0]}", *argv[1:]),
        (argv[0].rpartition("/")[2], *argv[1:]),
    ]  # fmt: skip


def test_every_threat_of_the_docs_is_held_by_a_test_that_exists() -> None:
    repository = Path(__file__).parents[2]
    text = (repository / "docs" / "security.rst").read_text()
    rows = text.partition(":header-rows:")[2].partition("\nFaults, and")[0].split("   * - ")[2:]
    assert len(rows) >= 20
    for row in rows:
        named = re.findall(r"``(tests/\S+\.py)::(\w+)``", row)
        assert named, row
        for file, test in named:
            assert f"\ndef {test}(" in (repository / file).read_text(), test
