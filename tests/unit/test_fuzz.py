"""Whatever is typed or configured: one clear error, the documented exit code, nothing touched."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cellmove import opening
from cellmove.cli import desk
from cellmove.cli.commands import cellmove
from cellmove.errors import CellmoveError, Exit, Refused, Unreachable
from cellmove.services.session import sign_in
from tests.fakes.world import SERVER
from tests.unit.conftest import Ran, Terminal
from tests.unit.services.cloud_on_loopback import LoopbackCloud, loopback_cloud

FUZZ = settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=15,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
SECRET = "s3cr3t-canary"
TOUCHING = ("resize", "confirm", "revert", "drain")
HOSTILE = (
    *("", " ", "-", "--", "\n", "\x1b[2J", "\x7f", "'; DROP TABLE instances; --", "$(id)"),
    *("`id`", "%s%n", "%(name)s", "{0}", "../../etc/passwd", "[red]x[/red]", "[/]", "a" * 70_000),
    *("\u202eevil", "\U0001f4a5", "\udcff\udc80", "9" * 400, "-1", "1e999", "NaN", "null", "*"),
)


def commands(group: click.Group, *before: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command that can be typed, with its words."""
    for name, command in group.commands.items():
        words = (*before, name)
        if isinstance(command, click.Group):
            yield from commands(command, *words)
        else:
            yield words, command


COMMANDS = dict(commands(cellmove))
VALUES = st.one_of(
    st.sampled_from(HOSTILE),
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12),
    st.sampled_from(
        (SERVER[:-1], "web-2", "cell3", "cmp9", "12345678-1234-1234-1234-123456789abc")
    ),
).filter(lambda text: not text.startswith("/"))


@st.composite
def typed(draw: st.DrawFn, words: tuple[str, ...]) -> list[str]:
    """A command with some of its options and with arguments, most of them nonsense."""
    argv = list(words)
    for parameter in COMMANDS[words].params:
        if isinstance(parameter, click.Option) and draw(st.integers(0, 3)) == 0:
            argv.append(parameter.opts[0])
            if not parameter.is_flag and draw(st.integers(0, 9)):
                argv.append(draw(VALUES))
    argv += draw(st.lists(VALUES, max_size=2))
    return [word for word in argv if word not in ("--help", "-h")]


def require_clear(ran: Ran, why: object) -> None:
    """An answer, or one error that says what, and nothing that nobody foresaw."""
    assert ran.code in set(Exit), (why, ran)
    assert "cellmove has a defect" not in ran.err + ran.out, (why, ran)
    assert SECRET not in ran.err + ran.out, why
    if ran.code in (Exit.REFUSED, Exit.USAGE):
        assert ran.err or ran.out, why


@pytest.fixture
def idle(terminal: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    """A terminal in a directory of its own; the fake cloud must be what it was in the end."""
    deep = tmp_path / "a" / "b" / "c"
    deep.mkdir(parents=True)
    monkeypatch.chdir(deep)
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    monkeypatch.setattr("cellmove.cli.work.checks.run", lambda *_: [])  # it would knock on doors
    before = terminal.world.snapshot()
    yield terminal
    assert terminal.world.snapshot() == before


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_nonsense_on_the_command_line_is_told_and_touches_nothing(
    idle: Terminal, words: tuple[str, ...]
) -> None:
    @FUZZ
    @given(typed(words))
    def fuzz(argv: list[str]) -> None:
        ran = idle.type(*argv)
        require_clear(ran, argv)
        if "--debug" not in argv:
            assert "Traceback" not in ran.err, argv
        if words[0] in TOUCHING:
            assert ran.code in (Exit.REFUSED, Exit.USAGE, Exit.SOME_FAILED), (argv, ran)

    fuzz()


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_hostile_word_in_every_place_is_told_and_touches_nothing(
    idle: Terminal, words: tuple[str, ...]
) -> None:
    options = [each for each in COMMANDS[words].params if isinstance(each, click.Option)]
    named = [option.opts[0] for option in options if not option.is_flag]
    for word in HOSTILE:
        ran = idle.type(*words, word)
        require_clear(ran, word)
        assert "Traceback" not in ran.err
        # Every option meets every third word, another third than the one before it.
        for option in named[len(word) % 3 :: 3]:
            ran = idle.type(*words, option, word, "--json")
            require_clear(ran, (option, word))
            assert ran.code != 0 or words[0] not in TOUCHING


CONFIG = f"""
[database]
url = "mysql+pymysql://cellmove@192.0.2.1:3306/nova_api"
password_command = ["printf", "{SECRET}"]
cell_credentials = "same"
[cloud]
name = "lab"
[ssh]
bastion = "bastion"
address = "{{name}}.example"
[nova]
quota_cores = 20
block_storage_ips = ["cmp1=192.0.2.9"]
[notifications]
transport_url_file = "bus"
[scheduler]
cpu_weight_multiplier = 1.0
"""


def test_a_configuration_cut_or_changed_anywhere_is_read_or_refused(
    idle: Terminal, tmp_path: Path
) -> None:
    path = tmp_path / "cellmove.toml"
    whole = CONFIG.encode()
    path.write_bytes(whole)
    path.chmod(0o600)
    assert idle.type("moves", "--config", str(path)).code == 0
    spoilt = [whole[:at] for at in range(0, len(whole), 7)]
    for at in range(0, len(whole), 7):
        spoilt += [whole[:at] + each + whole[at + 1 :] for each in (b"\xff", b"\0", b'"', b"[")]
    refused = 0
    for content in spoilt:
        path.write_bytes(content)
        ran = idle.type("moves", "--config", str(path))
        require_clear(ran, content)
        assert ran.code in (0, 1), (content, ran)
        refused += ran.code
    assert refused > len(spoilt) / 2


URLS = (
    *("mysql://", "mysql+pymysql://", f"nosuch://u:{SECRET}@h/db", "://"),
    *(f"mysql+nodriver://u:{SECRET}@h/db", f"mysql+pymysql://u:{SECRET}@h:port/db"),
    *(f"mysql+pymysql://u:{SECRET}@[::1/db", f"mysql+pymysql://u:{SECRET}@h:99999999/db"),
    *(f"mysql+pymysql://u:{SECRET}@127.0.0.1:9/db", f"mysql+pymysql://u:{SECRET}"),
    *(
        f"mysql+pymysql://u:{SECRET}@127.0.0.1:9/db?ssl_ca=/none",
        f"mysql+pymysql://u:{SECRET}\n@/d",
    ),
    *(f"mysql+pymysql://u:{SECRET}@h/d?x=\x01", f"mysql+pymysql://{SECRET}:@@@@:/::"),
    *(f"postgresql://u:{SECRET}@127.0.0.1:9/db", f"mysql+pymysql://u:{SECRET}@127.0.0.1:9/d?y=1"),
)


@pytest.mark.parametrize("key", ["database", "journal"])
def test_a_broken_database_url_is_refused_and_its_password_not_told(
    idle: Terminal, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setattr(desk, "open_cloud", opening.open_cloud)
    for url in URLS:
        monkeypatch.setenv(f"CELLMOVE_{key.upper()}_URL", url)
        ran = idle.type("list" if key == "database" else "moves", "--debug")
        require_clear(ran, url)
        assert ran.code == 1, (url, ran)


@pytest.fixture
def loopback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackCloud]:
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(tmp_path / "clouds.yaml"))
    for name in [name for name in os.environ if name.startswith("OS_")]:
        if name != "OS_CLIENT_CONFIG_FILE":
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    with loopback_cloud() as made:
        made.password = SECRET
        yield made


def test_a_clouds_yaml_cut_or_changed_anywhere_signs_in_or_is_told(
    loopback: LoopbackCloud, tmp_path: Path
) -> None:
    path = tmp_path / "clouds.yaml"
    whole = loopback.clouds_yaml().replace("a-secret", SECRET).encode()
    spoilt = [whole[:at] for at in range(0, len(whole), 97)]
    for at in range(0, 330, 33):
        spoilt += [whole[:at] + each + whole[at + 1 :] for each in (b"\xff", b"{", b"\t", b"&")]
    told = 0
    path.write_bytes(whole)
    assert sign_in("here", "req-1").who.user_id == "operator"
    for content in spoilt:
        path.write_bytes(content)
        try:
            sign_in("here", "req-1")
        except CellmoveError as error:
            told += 1
            require_told(error, content)
    assert told > len(spoilt) / 3


def require_told(error: CellmoveError, why: object) -> None:
    assert isinstance(error, Refused | Unreachable), (why, error)
    assert error.what.endswith("."), why
    assert error.do.endswith("."), why
    assert SECRET not in str(error), why
    assert "\n" not in str(error), (why, str(error))


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"[]", b"3", b"clouds: 3", b"clouds: {here: 3}", b"clouds: {here: {auth: 3}}"),
        *(b"clouds: {here: {auth: {auth_url: 3}}}", b"clouds: {here: {auth: {auth_url: ''}}}"),
        *(
            b"clouds: {here: {profile: nosuch}}",
            b"clouds: {here: {auth_type: nosuch}}",
            b"a: &a *a",
        ),
        *(b"clouds: {here: {auth: {auth_url: 'file:///etc/passwd', username: u, password: p}}}",),
        *(b"!!python/object/apply:os.system ['touch /tmp/owned']", b"\x00", b"clouds: !!binary x"),
        *(b"clouds: {here: {region_name: [1, 2], auth: {}}}", b"clouds:\n  here:\n\tx: 1"),
        *(b"clouds: {here: {api_timeout: soon, auth: {auth_url: 'http://127.0.0.1:9'}}}",),
        *(b"clouds: {here: {verify: [], auth: {auth_url: 'https://127.0.0.1:9'}}}",),
    ],
    ids=range(18 + 1),
)
def test_a_clouds_yaml_that_makes_no_sense_is_told(
    loopback: LoopbackCloud, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "clouds.yaml").write_bytes(content)
    with pytest.raises(CellmoveError) as told:
        sign_in("here", "req-1").service("network")
    require_told(told.value, content)


def test_a_clouds_yaml_that_is_not_there_is_told(
    loopback: LoopbackCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("openstack.config.loader.CONFIG_FILES", [])  # found when it was imported
    with pytest.raises(Refused, match="not configured") as told:
        sign_in("here", "req-1")
    require_told(told.value, "missing")
