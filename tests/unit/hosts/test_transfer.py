"""A disk's way over two real SSH connections through a real bastion."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from cellmove.errors import StepFailed
from cellmove.hosts import transfer
from cellmove.hosts.disks import Argv
from cellmove.hosts.far import Program, far_program
from cellmove.hosts.openssh import configuration, resolved, written
from cellmove.hosts.relay import obstacle
from cellmove.hosts.transfer import End, Masters, Pace, carry
from tests.unit.hosts.conftest import Sshd, ends_soon
from tests.unit.hosts.images import MIB, make, overlay, same_content, server
from tests.unit.hosts.test_stream import big, servers


def end(host: str, image: Path, image_format: str, *, read_only: bool) -> End:
    where = image.with_suffix(f".{host}.sock")
    return End(host, str(where), tuple(server(image, image_format, where, read_only=read_only)))


def nobody(_done: int, _total: int) -> None:
    """Somebody who does not watch."""


@pytest.fixture(params=["", "bastion"])
def relay(request: pytest.FixtureRequest) -> str:
    """Where the two ends are joined: here, or on the bastion."""
    return str(request.param)


def test_a_disk_arrives_whole_and_its_way_is_told(sshd: Sshd, tmp_path: Path, relay: str) -> None:
    source, target = overlay(tmp_path), make(tmp_path / "target", "qcow2", 30 * MIB)
    told: list[tuple[int, int]] = []

    digest = carry(
        end("one", source, "qcow2", read_only=True),
        end("two", target, "qcow2", read_only=False),
        configuration(sshd.config, "bastion"),
        lambda done, total: told.append((done, total)),
        relay=relay,
    )

    assert same_content(source, target)
    assert len(digest) == 64
    assert told == sorted(told)
    assert told[-1][0] == told[-1][1] > 0
    assert servers(tmp_path) == []


def test_what_fails_at_an_end_is_told_with_its_host(sshd: Sshd, tmp_path: Path, relay: str) -> None:
    source = overlay(tmp_path)

    with pytest.raises(
        StepFailed, match=rf"from one to two broke.*{relay or 'two'}:.*No such file"
    ):
        carry(
            end("one", source, "qcow2", read_only=True),
            end("two", tmp_path / "missing", "qcow2", read_only=False),
            configuration(sshd.config, "bastion"),
            nobody,
            relay=relay,
        )

    assert servers(tmp_path) == []


def test_a_target_that_is_too_small_is_told(sshd: Sshd, tmp_path: Path, relay: str) -> None:
    source, target = overlay(tmp_path), make(tmp_path / "target", "raw", MIB)

    with pytest.raises(StepFailed, match="too small"):
        carry(
            end("one", source, "qcow2", read_only=True),
            end("two", target, "raw", read_only=False),
            configuration(sshd.config, "bastion"),
            nobody,
            relay=relay,
        )


def test_an_unknown_host_key_is_refused(sshd: Sshd, tmp_path: Path, relay: str) -> None:
    sshd.known_hosts.write_text("")

    with pytest.raises(StepFailed, match="Host key verification failed"):
        carry(
            end("one", overlay(tmp_path), "qcow2", read_only=True),
            end("two", make(tmp_path / "target", "qcow2", MIB), "qcow2", read_only=False),
            configuration(sshd.config, "bastion"),
            nobody,
            relay=relay,
        )


def test_a_copy_that_does_not_move_is_given_up(sshd: Sshd, tmp_path: Path, relay: str) -> None:
    source = End("one", str(tmp_path / "s"), ("sleep", "300"))
    target = end("two", make(tmp_path / "target", "qcow2", MIB), "qcow2", read_only=False)

    with pytest.raises(StepFailed, match="does not move"):
        carry(
            source,
            target,
            configuration(sshd.config, "bastion"),
            nobody,
            Pace(stall_seconds=2),
            relay=relay,
        )

    assert all(ends_soon(pid) for pid in servers(tmp_path))


def test_a_copy_is_not_faster_than_its_limit_and_arrives_whole(
    sshd: Sshd, tmp_path: Path, relay: str
) -> None:
    source, target = big(tmp_path), make(tmp_path / "target", "raw", 64 * MIB)
    config, heard = configuration(sshd.config, "bastion"), []
    began = time.monotonic()

    carry(
        end("one", source, "raw", read_only=True),
        end("two", target, "raw", read_only=False),
        config,
        lambda done, _total: heard.append(done),
        Pace(limit_bytes_per_second=32 * MIB),
        relay=relay,
    )

    assert same_content(source, target)
    assert time.monotonic() - began >= heard[-1] / (32 * MIB)


def test_a_packed_copy_arrives_whole(
    sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, relay: str
) -> None:
    source, target = overlay(tmp_path), make(tmp_path / "target", "qcow2", 25 * MIB)
    roles: list[str] = []

    def spied(name: Program, role: str, *more: str) -> Argv:
        roles.append(role)
        return far_program(name, role, *more)

    monkeypatch.setattr(transfer, "far_program", spied)
    carry(
        end("one", source, "qcow2", read_only=True),
        end("two", target, "qcow2", read_only=False),
        configuration(sshd.config, "bastion"),
        nobody,
        Pace(packed=True),
        relay=relay,
    )

    assert roles == ["pack", "receive"]
    assert same_content(source, target)


def test_a_watcher_that_raises_ends_both_ends(sshd: Sshd, tmp_path: Path, relay: str) -> None:
    def interrupted(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        carry(
            end("one", big(tmp_path), "raw", read_only=True),
            end("two", make(tmp_path / "target", "raw", 64 * MIB), "raw", read_only=False),
            configuration(sshd.config, "bastion"),
            interrupted,
            relay=relay,
        )

    assert all(ends_soon(pid) for pid in servers(tmp_path))


def test_nothing_outlives_us_when_we_are_killed(sshd: Sshd, tmp_path: Path, relay: str) -> None:
    ends = [
        end("one", big(tmp_path), "raw", read_only=True),
        end("two", make(tmp_path / "target", "raw", 64 * MIB), "raw", read_only=False),
    ]
    config, slow = configuration(sshd.config, "bastion"), Pace(limit_bytes_per_second=MIB)
    program = (
        "from cellmove.hosts.transfer import End, Pace, carry\n"
        "told = lambda done, total: print(done, flush=True)\n"
        f"carry(*{ends!r}, {config!r}, told, {slow!r}, relay={relay!r})\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout
        assert process.stdout.readline()  # bytes travel
        deadline = time.monotonic() + 60
        while len(served := servers(tmp_path)) < len(ends) and time.monotonic() < deadline:
            time.sleep(0.05)  # the sender may be ahead of the receiver
        process.send_signal(signal.SIGKILL)

    assert len(served) == len(ends)
    assert all(ends_soon(pid) for pid in served)


def test_the_users_configuration_keeps_what_bulk_does_not_need(sshd: Sshd) -> None:
    path = Path(sshd.config).with_name("bulk")
    path.write_text(configuration(sshd.config, "bastion"))
    command = ["ssh", "-F", str(path), "-G"]

    far, bastion = (
        subprocess.run([*command, host], capture_output=True, text=True, check=True).stdout
        for host in ("far", "bastion")
    )

    assert "\nciphers aes128-gcm@openssh.com,aes256-gcm@openssh.com," in far
    assert "\nciphers aes128-gcm@openssh.com,aes256-gcm@openssh.com," in bastion
    assert "\nproxyjump bastion\n" in far
    assert "\nproxyjump " not in bastion
    assert "\nstricthostkeychecking true\n" in far
    assert f"\nport {sshd.port}\n" in far


def test_a_kept_connection_carries_copies_and_ends_with_us(sshd: Sshd, tmp_path: Path) -> None:
    masters = Masters()
    config = configuration(sshd.config, "bastion", masters.directory)
    assert not Path(masters.directory).exists()
    masters.keep(("one",), config)  # "two" is the same host of the same name to ssh.
    # Nothing but a kept connection helps from here on.
    sshd.known_hosts.write_text("")
    source, target = overlay(tmp_path), make(tmp_path / "target", "qcow2", 30 * MIB)

    carry(
        end("one", source, "qcow2", read_only=True),
        end("two", target, "qcow2", read_only=False),
        config,
        nobody,
    )
    assert same_content(source, target)

    masters.close()
    assert not Path(masters.directory).exists()
    with pytest.raises(StepFailed, match="Host key verification failed"):
        carry(
            end("one", source, "qcow2", read_only=True),
            end("two", target, "qcow2", read_only=False),
            config,
            nobody,
        )


def test_what_a_killed_process_left_is_removed_by_the_next_one(
    sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "place"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    config = configuration(sshd.config, "bastion")
    script = (
        "import sys, time\n"
        "from cellmove.hosts.transfer import Masters\n"
        "masters = Masters()\n"
        "masters.keep(('one',), sys.stdin.read())\n"
        "print(masters.directory, flush=True)\n"
        "time.sleep(600)\n"
    )
    killed = subprocess.Popen(
        [sys.executable, "-c", script],
        env={**os.environ, "TMPDIR": str(place)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert killed.stdin
    assert killed.stdout
    killed.stdin.write(config)
    killed.stdin.close()
    left = Path(killed.stdout.readline().strip())
    killed.kill()
    killed.wait()
    killed.stdout.close()
    own = place / "cellmove-ssh-key-notes"  # an operator's
    own.mkdir()
    (place / "cellmove-ssh-999999999-mine").mkdir()
    (place / "cellmove-ssh-999999999-mine" / "notes").write_text("keep")
    living, masters = Masters(), Masters()
    Path(living.directory).mkdir()
    assert left.is_dir()

    masters.keep(("one",), config)
    masters.close()

    assert not left.exists()
    assert own.exists()
    assert Path(living.directory).exists()
    assert (place / "cellmove-ssh-999999999-mine" / "notes").exists()


def test_a_configuration_is_read_like_a_file_and_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    with written("Host far\n  Port 2222\n") as path:
        assert resolved(path, "far")["port"] == "2222"
        assert list(tmp_path.iterdir()) == []
    assert not Path(path).exists()


def test_nothing_is_removed_where_a_link_leads(
    sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, elsewhere = tmp_path / "place", tmp_path / "elsewhere"
    place.mkdir()
    elsewhere.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    with socket.socket(socket.AF_UNIX) as service:
        service.bind(str(elsewhere / "service"))
    (place / "cellmove-ssh-999999999-abc").symlink_to(elsewhere)
    masters = Masters()

    masters.keep(("one",), configuration(sshd.config, "bastion"))
    masters.close()

    assert (elsewhere / "service").is_socket()
    assert (place / "cellmove-ssh-999999999-abc").is_symlink()


def test_a_bastion_that_cannot_sign_in_is_told_with_what_it_said(sshd: Sshd) -> None:
    config = configuration(sshd.config, "bastion")
    assert obstacle(config, "bastion", "one", "two") == ""

    known = sshd.keys / "known_hosts"
    text = known.read_text()
    known.write_text("")
    try:
        assert "Host key verification failed" in obstacle(config, "bastion", "one", "two")
    finally:
        known.write_text(text)


def test_a_host_whose_place_is_not_told_cannot_be_joined(tmp_path: Path) -> None:
    with pytest.raises(StepFailed, match="does not say where one is"):
        obstacle(f'Include "{tmp_path}"\nNonsense yes\n', "bastion", "one")
