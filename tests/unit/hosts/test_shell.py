"""Commands on a host, over a real sshd."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import paramiko
import pytest

from cellmove.errors import StepFailed, Unknown, Unreachable
from cellmove.hosts import shell as shell_module
from cellmove.hosts.bridge import Bridge
from cellmove.hosts.shell import Shell, Shells
from tests.unit.hosts.conftest import Sshd, ends_soon


def sleeper(note: Path) -> list[str]:
    """A command that notes its process id and would run for long."""
    return ["sh", "-c", f"echo $$ > {note}; exec sleep 300"]


def noted(note: Path) -> int:
    for _ in range(1200):
        if note.exists() and (text := note.read_text().strip()):
            return int(text)
        time.sleep(0.05)
    pytest.fail("the command did not begin")


def test_a_command_gives_what_it_said_and_its_status(shell: Shell) -> None:
    done = shell.run(["sh", "-c", "echo out; echo err >&2; exit 3"], check=False)

    assert (done.stdout, done.stderr, done.status) == ("out\n", "err\n", 3)


@pytest.mark.parametrize("word", ["", "a b", "$(id)", "'; id; '", '"', "*", "\n", "é", "-n"])
def test_a_word_arrives_as_it_was(shell: Shell, word: str) -> None:
    assert shell.run(["printf", "%s", word]).stdout == word


@pytest.mark.parametrize("count", [0, 1, 5_000_000])
def test_a_command_gets_its_input_and_then_its_end(shell: Shell, count: int) -> None:
    done = shell.run(["wc", "-c"], stdin=b"\0" * count)

    assert done.stdout.strip() == str(count)


def test_a_command_that_does_not_want_its_input_does_its_work(shell: Shell) -> None:
    assert shell.run(["echo", "done"], stdin=b"x" * 1_000_000).stdout == "done\n"


def test_much_is_heard_on_both_streams(shell: Shell) -> None:
    command = "head -c 3000000 /dev/zero; head -c 3000000 /dev/zero >&2"

    done = shell.run(["sh", "-c", command])

    assert (len(done.stdout), len(done.stderr)) == (3_000_000, 3_000_000)


def test_commands_follow_each_other_on_one_line(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = counted(shell, monkeypatch)

    said = [shell.run(["printf", "%s", word], stdin=b"x" * 9).stdout for word in ("a", "", "b")]

    assert said == ["a", "", "b"]
    assert len(opened) == 1


def test_the_line_that_was_got_ready_is_the_next_commands(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = counted(shell, monkeypatch)
    shell.get_ready()

    assert shell.run(["echo", "hello"], timeout_seconds=60).stdout == "hello\n"
    assert len(opened) == 1


def test_a_command_waits_for_the_line_that_is_being_got_ready(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = counted(shell, monkeypatch)
    channel, begun, enough = shell.channel, threading.Event(), threading.Event()

    def slow() -> paramiko.Channel:
        begun.set()
        assert enough.wait(60)
        return channel()

    monkeypatch.setattr(shell, "channel", slow)
    with ThreadPoolExecutor(2) as pool:
        ready = pool.submit(shell.get_ready)
        assert begun.wait(60)
        said = pool.submit(shell.run, ["echo", "hello"])
        time.sleep(0.2)  # for it to ask for a line
        enough.set()
        ready.result()
        assert said.result().stdout == "hello\n"
    assert len(opened) == 1


def test_commands_at_the_same_time_do_not_wait_for_each_other(shell: Shell, tmp_path: Path) -> None:
    """Each waits until the other has begun."""

    def meet(mine: str, others: str) -> str:
        wait = f"touch {tmp_path}/{mine}; while [ ! -e {tmp_path}/{others} ]; do sleep 0.1; done"
        return shell.run(["sh", "-c", f"{wait}; echo {mine}"], timeout_seconds=60).stdout

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(meet, ("a", "b"), ("b", "a"))) == ["a\n", "b\n"]


def test_a_line_that_ended_while_nobody_spoke_is_replaced(shell: Shell) -> None:
    far = int(shell.run(["sh", "-c", "echo $PPID"]).stdout)
    os.kill(far, signal.SIGKILL)
    assert ends_soon(far)

    assert shell.run(["echo", "again"]).stdout == "again\n"


def test_a_host_without_python_is_told(sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = ("no-such-python", "-c", "")
    monkeypatch.setattr("cellmove.hosts.line.far_program", lambda _name: missing)

    shells = Shells(sshd.config, "bastion")

    with pytest.raises(Unreachable, match=r"far cannot be reached.*no-such-python"):
        shells.shell("far").run(["true"])
    shells.close()


def counted(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """One for each channel that is opened from now on; none is open."""
    shell.close()
    opened: list[None] = []
    channel = shell.channel

    def counting() -> paramiko.Channel:
        opened.append(None)
        return channel()

    monkeypatch.setattr(shell, "channel", counting)
    return opened


def test_a_failed_command_is_told_with_what_it_said(shell: Shell) -> None:
    with pytest.raises(StepFailed, match=r"`ls /no/such` on far failed.*No such file"):
        shell.run(["ls", "/no/such"])


def test_a_command_that_is_not_there_is_told(shell: Shell) -> None:
    with pytest.raises(StepFailed, match=r"Status 127.*nonsense"):
        shell.run(["nonsense"])


def test_a_command_that_takes_too_long_is_unknown_and_ends(shell: Shell, tmp_path: Path) -> None:
    with pytest.raises(Unknown, match="its time was over"):
        shell.run(sleeper(tmp_path / "pid"), timeout_seconds=1)

    assert ends_soon(noted(tmp_path / "pid"))


def test_a_stubborn_command_ends_as_well(shell: Shell, tmp_path: Path) -> None:
    command = f"trap '' TERM; echo $$ > {tmp_path}/pid; while :; do sleep 1; done"
    with pytest.raises(Unknown):
        shell.run(["sh", "-c", command], timeout_seconds=1)

    assert ends_soon(noted(tmp_path / "pid"))


def test_an_answer_that_never_comes_is_unknown_and_the_command_ends(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shell_module, "_GRACE_SECONDS", -58)
    with pytest.raises(Unknown, match="no answer in time"):
        shell.run(sleeper(tmp_path / "pid"), timeout_seconds=60)

    assert ends_soon(noted(tmp_path / "pid"))


def test_a_command_ends_when_the_link_does(shell: Shell, tmp_path: Path) -> None:
    def cut() -> None:
        noted(tmp_path / "pid")
        shell.close()

    threading.Thread(target=cut).start()
    with pytest.raises(Unknown, match="No answer"):
        shell.run(sleeper(tmp_path / "pid"))

    assert ends_soon(noted(tmp_path / "pid"))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_command_ends_when_we_do(sshd: Sshd, tmp_path: Path, how: int) -> None:
    program = (
        "import sys\n"
        "from cellmove.hosts.shell import Shells\n"
        "Shells(sys.argv[1], 'bastion').shell('far').run(sys.argv[2:])\n"
    )
    command = [sys.executable, "-c", program, sshd.config, *sleeper(tmp_path / "pid")]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        pid = noted(tmp_path / "pid")
        process.send_signal(how)
        process.wait(60)

    assert ends_soon(pid)


def test_after_a_lost_link_the_next_command_opens_a_new_one(shell: Shell) -> None:
    shell.run(["true"])
    shell.close()

    assert shell.run(["echo", "again"]).stdout == "again\n"


def test_all_hosts_share_one_connection_to_the_bastion(sshd: Sshd) -> None:
    shells = Shells(sshd.config, "bastion")
    one, other = shells.shell("far"), shells.shell("farther")
    began = (sshd.keys / "log").read_text().count("Accepted publickey")

    for shell in (one, other, one):
        shell.run(["true"])

    assert shells.shell("far") is one
    assert (sshd.keys / "log").read_text().count("Accepted publickey") - began == 3
    shells.close()


def test_without_a_bastion_a_host_is_reached_directly(sshd: Sshd) -> None:
    shells = Shells(sshd.config, "")

    assert shells.shell("far").run(["echo", "hello"]).stdout == "hello\n"
    shells.close()


def test_a_small_packet_does_not_wait_for_the_last_one(sshd: Sshd) -> None:
    for bastion in ("", "bastion"):
        shells = Shells(sshd.config, bastion)
        shells.shell("host").run(["true"])
        first = (shells._bastion or shells.shell("host")).transport().sock
        assert isinstance(first, socket.socket)
        assert first.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        shells.close()


def test_an_unknown_host_key_is_refused(sshd: Sshd) -> None:
    sshd.known_hosts.write_text("")
    shells = Shells(sshd.config, "bastion")

    with pytest.raises(Unreachable, match=r"bastion cannot be reached.*not in known_hosts"):
        shells.shell("far").run(["true"])


def test_an_unknown_host_key_is_refused_even_if_the_user_would_take_it(sshd: Sshd) -> None:
    sshd.known_hosts.write_text("")
    config = Path(sshd.config)
    config.write_text("Host *\n  StrictHostKeyChecking no\n" + config.read_text())

    with pytest.raises(Unreachable, match="not in known_hosts"):
        Shells(sshd.config, "bastion").shell("far").run(["true"])


def test_another_host_key_is_refused(sshd: Sshd, tmp_path: Path) -> None:
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "k")]
    subprocess.run(command, check=True)
    stranger = " ".join((tmp_path / "k.pub").read_text().split()[:2])
    sshd.known_hosts.write_text(f"[127.0.0.1]:{sshd.port} {stranger}\n")

    with pytest.raises(Unreachable, match="not the one in known_hosts"):
        Shells(sshd.config, "bastion").shell("far").run(["true"])


def test_a_key_that_is_not_ours_is_told(sshd: Sshd) -> None:
    config = Path(sshd.config)
    config.write_text(config.read_text().replace("/user_key", "/host_key"))

    with pytest.raises(Unreachable, match="does not accept our user and key"):
        Shells(sshd.config, "bastion").shell("far").run(["true"])


def test_the_hop_that_fails_is_named(sshd: Sshd) -> None:
    config = Path(sshd.config)
    config.write_text("Host far\n  Port 1\n" + config.read_text())

    with pytest.raises(Unreachable, match=r"far cannot be reached through bastion\..*check"):
        Shells(sshd.config, "bastion").shell("far").run(["true"])


def test_a_host_that_accepts_and_says_nothing_is_given_up(
    sshd: Sshd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shell_module, "CONNECT_SECONDS", 1)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        config = Path(sshd.config)
        config.write_text(f"Host far\n  Port {silent.getsockname()[1]}\n" + config.read_text())
        began = time.monotonic()

        with pytest.raises(Unreachable, match="far cannot be reached"):
            Shells(sshd.config, "bastion").shell("far").run(["true"])

    assert time.monotonic() - began < 15


def test_a_missing_configuration_is_an_empty_one_and_a_broken_one_is_told(tmp_path: Path) -> None:
    Shells(str(tmp_path / "none"), "bastion")
    (tmp_path / "broken").write_text("Host *\n  nonsense\n")

    with pytest.raises(Unreachable, match="cannot be read"):
        Shells(str(tmp_path / "broken"), "bastion")


def test_a_refusal_of_sudo_is_told_as_one(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    refusal = ("sh", "-c", "echo 'sudo: a password is required' >&2; exit 1")
    monkeypatch.setattr(shell_module, "as_user", lambda user, argv: refusal)

    with pytest.raises(StepFailed, match=r"does not let us run.*playbooks/hosts\.yml"):
        shell.run(["id"], sudo="nova", check=False)


def test_a_bridge_joins_a_socket_with_a_program_there(shell: Shell) -> None:
    bridge = Bridge(shell.channel, "tr a-z A-Z")
    with socket.socket(socket.AF_UNIX) as near:
        near.connect(bridge.path)
        near.sendall(b"hello")
        near.shutdown(socket.SHUT_WR)
        heard = near.makefile("rb").read()
        assert not Path(bridge.path).parent.exists()
    bridge.close()

    assert heard == b"HELLO"


def test_a_bridge_that_nobody_took_leaves_nothing(shell: Shell) -> None:
    bridge = Bridge(shell.channel, "cat")
    bridge.close()

    assert not Path(bridge.path).parent.exists()


def test_a_bridge_is_open_to_its_owner_only(shell: Shell) -> None:
    bridge = Bridge(shell.channel, "cat")
    mode = Path(bridge.path).parent.stat().st_mode & 0o777
    bridge.close()

    assert mode == 0o700


def test_a_closed_bridge_wakes_who_waits(shell: Shell) -> None:
    bridge = Bridge(shell.channel, "cat")
    with socket.socket(socket.AF_UNIX) as near:
        near.connect(bridge.path)
        near.sendall(b"x")
        assert near.recv(1) == b"x"
        threading.Timer(0.2, bridge.close).start()

        assert near.recv(1) == b""


def test_a_bridge_to_nobody_tells_why(sshd: Sshd) -> None:
    sshd.known_hosts.write_text("")
    bridge = Bridge(Shells(sshd.config, "bastion").shell("far").channel, "cat")
    with socket.socket(socket.AF_UNIX) as near:
        near.connect(bridge.path)

        assert near.recv(1) == b""
    bridge.close()

    assert isinstance(bridge.why_not, Unreachable)
