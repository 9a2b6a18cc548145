"""Both ends of a disk's way, as processes, with a real qemu-nbd behind each."""

from __future__ import annotations

import ast
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from io import BufferedRWPair
from pathlib import Path

import pytest

from cellmove.hosts import nbd, stream, wire
from cellmove.hosts.content import WINDOW
from cellmove.hosts.far import Program, far_program
from tests.unit.hosts.conftest import ends_soon
from tests.unit.hosts.images import MIB, edit, make, overlay, same_content, server

Wire = BufferedRWPair
Ended = subprocess.CompletedProcess[bytes]


class Ends:
    """A source and a target in one directory."""

    def __init__(self, directory: Path, source: Path, source_format: str) -> None:
        self.directory = directory
        self.reads = self._command("send", source, source_format)
        self.target = directory / "target"

    def writes(self, target_format: str, size_bytes: int) -> list[str]:
        make(self.target, target_format, size_bytes)
        return self._command("receive", self.target, target_format)

    def packs(self, source: Path, source_format: str) -> list[str]:
        return self._command("pack", source, source_format)

    def socket(self, role: str) -> Path:
        return self.directory / f"{role}.sock"

    def _command(self, role: str, image: Path, image_format: str) -> list[str]:
        where = self.socket(role)
        far = server(image, image_format, where, read_only=role != "receive")
        return list(far_program("stream.py", role, "20", "0", "", "", str(where), *far))


@pytest.fixture(scope="session")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A disk that the tests only read."""
    return overlay(tmp_path_factory.mktemp("disk"))


@pytest.fixture(scope="session")
def whole(disk: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The disk's stream."""
    return sent(Ends(tmp_path_factory.mktemp("whole"), disk, "qcow2").reads).stdout


@pytest.fixture
def ends(tmp_path: Path, disk: Path) -> Ends:
    return Ends(tmp_path, disk, "qcow2")


def sent(command: list[str], known: bytes = b"") -> Ended:
    """Everything that a sender says; its input stays open until it has ended."""
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    with process:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        process.stdin.write(known)
        process.stdin.flush()
        out = process.stdout.read()
        errors = process.stderr.read()
    return subprocess.CompletedProcess(command, process.wait(), out, errors)


def received(command: list[str], data: bytes) -> Ended:
    return subprocess.run(command, input=data, capture_output=True, check=False, timeout=60)


def fact(ended: Ended, word: str) -> str:
    lines = ended.stderr.decode().splitlines()
    return [line.split()[1] for line in lines if line.startswith(f"cellmove-{word} ")][-1]


def offsets(data: bytes) -> list[tuple[int, int]]:
    """Where the frames of a stream belong, zeros with the bit for them, and how long they are."""
    position, found = len(wire.MAGIC) + wire.HEAD.size, []
    while position < len(data):
        offset, length = wire.FRAME.unpack_from(data, position)
        carries = offset == wire.END or not offset & wire.ZERO
        position += wire.FRAME.size + (length if carries else 0)
        found.append((offset, length))
    return found


def offsets_of_data(data: bytes) -> list[tuple[int, int]]:
    """Those frames that carry data."""
    return [frame for frame in offsets(data)[:-1] if not frame[0] & wire.ZERO]


@pytest.mark.parametrize(
    ("target_format", "growth"), [("qcow2", 0), ("qcow2", 7 * MIB + 512), ("raw", 0), ("raw", MIB)]
)
def test_the_content_arrives_and_both_hashes_agree(
    ends: Ends, disk: Path, target_format: str, growth: int
) -> None:
    read = sent(ends.reads)
    written = received(ends.writes(target_format, 24 * MIB + 4096 + growth), read.stdout)

    assert (read.returncode, written.returncode) == (0, 0), written.stderr
    assert same_content(disk, ends.target)
    assert fact(read, "hash") == fact(written, "found")


def test_packed_data_arrives_in_less_and_what_does_not_get_smaller_as_it_is(
    ends: Ends, tmp_path: Path
) -> None:
    source = make(tmp_path / "mixed", "raw", 12 * MIB)
    with source.open("r+b") as file:
        file.write(b"log line 17: nothing happened\n" * (4 * MIB // 30))
        file.seek(6 * MIB)
        file.write(random.Random(1).randbytes(4 * MIB))
    plain = sent(ends._command("send", source, "raw"))
    read = sent(ends.packs(source, "raw"))
    written = received(ends.writes("raw", 12 * MIB), read.stdout)

    assert (read.returncode, written.returncode) == (0, 0), written.stderr
    assert same_content(source, ends.target)
    assert fact(read, "hash") == fact(written, "found") == fact(plain, "hash")
    assert 4 * MIB < int(fact(read, "sent")) < 5 * MIB < 7 * MIB < int(fact(plain, "sent"))
    noise = [offset for offset, length in offsets(read.stdout) if length == MIB]
    assert noise == [at * MIB for at in range(6, 10)]


@pytest.mark.parametrize("small", [b"no zlib", zlib.compress(bytes(2 * MIB)), b""])
def test_packed_data_that_is_none_ends_the_copy(ends: Ends, small: bytes) -> None:
    frame = wire.FRAME.pack(wire.PACKED, len(small)) + small
    head = wire.MAGIC + wire.HEAD.pack(4 * MIB, 0)
    written = received(ends.writes("raw", 4 * MIB), head + frame)
    assert (written.returncode, b"the stream is damaged" in written.stderr) == (1, True)


def dirtied(directory: Path) -> tuple[Path, list[str]]:
    """A disk with a bitmap of what was written to it lately, and the command that sends that."""
    source = overlay(directory)
    subprocess.run(["qemu-img", "bitmap", "--add", "-f", "qcow2", str(source), "b"], check=True)
    edit(
        source,
        "qcow2",
        "write -P 9 13M 100k",
        "write -z 2M 1M",  # over data
        "write -P 0 20M 64k",  # over data
        "discard 12M 64k",
        "write -P 8 24M 4k",  # the disk ends within a block
    )
    socket_ = directory / "part.sock"
    far = server(source, "qcow2", socket_, read_only=True)
    far.insert(-1, "--bitmap=b")
    return source, list(far_program("stream.py", "send", "20", "0", "", "b", str(socket_), *far))


@pytest.mark.parametrize("target_format", ["qcow2", "raw"])
def test_a_part_makes_an_old_copy_the_same_also_where_it_became_zero(
    tmp_path: Path, target_format: str
) -> None:
    ends = Ends(tmp_path, overlay(tmp_path), "qcow2")
    receives = ends.writes(target_format, 26 * MIB)
    assert received(receives, sent(ends.reads).stdout).returncode == 0
    source, sends = dirtied(tmp_path)
    assert not same_content(source, ends.target)

    part = sent(sends)
    done = received(receives, part.stdout)

    assert (part.returncode, done.returncode) == (0, 0), part.stderr + done.stderr
    assert same_content(source, ends.target)
    assert fact(part, "hash") == fact(done, "found")
    assert len(part.stdout) < 2 * MIB


def test_a_part_that_was_cut_off_is_made_whole_by_sending_it_again(tmp_path: Path) -> None:
    ends = Ends(tmp_path, overlay(tmp_path), "qcow2")
    receives = ends.writes("qcow2", 26 * MIB)
    assert received(receives, sent(ends.reads).stdout).returncode == 0
    source, sends = dirtied(tmp_path)
    part = sent(sends)

    assert received(receives, part.stdout[: len(part.stdout) // 2]).returncode != 0
    assert received(receives, part.stdout).returncode == 0

    assert same_content(source, ends.target)


def test_a_bitmap_that_the_disk_does_not_have_is_an_error(tmp_path: Path) -> None:
    source = overlay(tmp_path)
    socket_ = tmp_path / "s"
    far = server(source, "qcow2", socket_, read_only=True)
    done = sent(list(far_program("stream.py", "send", "20", "0", "", "b", str(socket_), *far)))

    assert done.returncode == 1
    assert b"does not tell of qemu:dirty-bitmap:b" in done.stderr


def test_a_server_that_is_there_already_is_read_by_the_disks_name_and_left_alone(
    tmp_path: Path,
) -> None:
    source, target = overlay(tmp_path), make(tmp_path / "target", "raw", 26 * MIB)
    socket_ = tmp_path / "guest.sock"
    command = ["qemu-nbd", "--read-only", "-t", "-x", "disk", "-f", "qcow2"]
    with subprocess.Popen([*command, f"--socket={socket_}", str(source)]) as guest:
        wait_for_server(tmp_path)
        while not socket_.exists():
            time.sleep(0.02)
        read = sent(list(far_program("stream.py", "send", "20", "0", "disk", "", str(socket_))))
        assert guest.poll() is None
        assert socket_.exists()
        guest.terminate()
    writes = server(target, "raw", tmp_path / "t.sock", read_only=False)
    into = far_program("stream.py", "receive", "20", "0", "", "", str(tmp_path / "t.sock"), *writes)

    assert received(list(into), read.stdout).returncode == 0
    assert same_content(source, target)


def test_the_hash_is_of_the_content_not_of_how_it_is_stored(tmp_path: Path) -> None:
    whole, sparse = make(tmp_path / "whole", "raw", 5 * MIB), make(tmp_path / "s", "qcow2", 9 * MIB)
    edit(whole, "raw", "write -P 0 0 5M", "write -P 7 3M 4k")
    edit(sparse, "qcow2", "write -P 7 3M 4k")
    other = make(tmp_path / "other", "qcow2", 9 * MIB)
    edit(other, "qcow2", "write -P 7 4M 4k")
    digests = []
    for path, image_format in ((whole, "raw"), (sparse, "qcow2"), (other, "qcow2")):
        digests.append(fact(sent(Ends(tmp_path, path, image_format).reads), "hash"))

    assert digests[0] == digests[1]
    assert digests[0] != digests[2]


def test_zeros_do_not_travel(tmp_path: Path) -> None:
    disk = make(tmp_path / "d", "raw", 300 * MIB)
    edit(disk, "raw", "write -P 0 10M 100M", "write -P 1 200M 4k")

    read = sent(Ends(tmp_path, disk, "raw").reads)

    assert [frame for frame in offsets(read.stdout) if frame[1]][:-1] == [(200 * MIB, 65536)]
    assert fact(read, "done") == fact(read, "total")


def test_a_limit_is_kept_to_and_time_not_used_is_not_saved_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, slept = [100.0], []

    def sleep(seconds: float) -> None:
        slept.append(round(seconds, 3))
        now[0] += seconds

    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "sleep", sleep)
    pace = wire.Pace(4 * MIB)

    pace.sent(MIB)
    now[0] += 0.1  # Reading the next block: its time counts.
    pace.sent(MIB)
    now[0] += 60
    pace.sent(MIB)

    assert slept == [0.25, 0.25, 0.25]


def test_an_empty_disk_is_a_disk(tmp_path: Path) -> None:
    ends = Ends(tmp_path, make(tmp_path / "d", "qcow2", 3 * MIB), "qcow2")

    read = sent(ends.reads)
    written = received(ends.writes("qcow2", 3 * MIB), read.stdout)

    assert (read.returncode, written.returncode) == (0, 0)
    assert fact(read, "hash") == fact(written, "found")


@pytest.mark.parametrize("keep", [0, 10, 30, 5000, -1, -64, -80])
def test_a_truncated_stream_is_not_taken_for_a_whole_one(
    ends: Ends, whole: bytes, keep: int
) -> None:
    data = whole[:keep]

    written = received(ends.writes("qcow2", 25 * MIB), data)

    assert written.returncode == 1
    assert b"broke off" in written.stderr


def test_a_changed_byte_is_found(ends: Ends, whole: bytes) -> None:
    data = bytearray(whole)
    data[100_000] ^= 1

    written = received(ends.writes("qcow2", 25 * MIB), bytes(data))

    assert written.returncode == 1
    assert b"content differs" in written.stderr


def test_what_the_target_held_before_is_found(ends: Ends, whole: bytes) -> None:
    command = ends.writes("qcow2", 25 * MIB)
    edit(ends.target, "qcow2", "write -P 9 17M 4k")

    written = received(command, whole)

    assert b"content differs" in written.stderr


def test_a_disk_does_not_go_into_a_smaller_one(ends: Ends, whole: bytes) -> None:
    written = received(ends.writes("qcow2", 24 * MIB), whole)

    assert written.returncode == 1
    assert b"too small" in written.stderr


def test_what_a_login_shell_prints_is_not_a_disk(ends: Ends, whole: bytes) -> None:
    data = b"Welcome to cmp1a!\n" + whole

    written = received(ends.writes("qcow2", 25 * MIB), data)

    assert b"not a disk" in written.stderr


def test_a_server_that_cannot_start_is_told(tmp_path: Path) -> None:
    ends = Ends(tmp_path, tmp_path / "missing", "qcow2")

    read = sent(ends.reads)

    assert read.returncode == 1
    assert b"No such file" in read.stderr
    assert not ends.socket("send").exists()


def test_nothing_stays_behind(ends: Ends) -> None:
    received(ends.writes("qcow2", 25 * MIB), sent(ends.reads).stdout)

    assert not ends.socket("send").exists()
    assert not ends.socket("receive").exists()
    assert servers(ends.directory) == []


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_the_server_ends_with_a_killed_receiver(ends: Ends, whole: bytes, how: int) -> None:
    command = ends.writes("qcow2", 25 * MIB)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin
        assert process.stderr
        process.stdin.write(whole[:200_000])
        process.stdin.flush()
        process.stderr.readline()  # It has begun.
        (served,) = servers(ends.directory)
        process.send_signal(how)

    assert ends_soon(served)


def test_a_sender_ends_when_its_input_does(tmp_path: Path) -> None:
    ends = Ends(tmp_path, big(tmp_path), "raw")
    process = subprocess.Popen(
        ends.reads, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    with process:
        (served,) = wait_for_server(tmp_path)
        assert process.stdin
        process.stdin.close()  # Nobody reads its output either: it is stuck.

        assert process.wait(60) == 3
        assert ends_soon(served)


def test_a_receiver_that_hears_nothing_gives_up(ends: Ends) -> None:
    command = ends.writes("qcow2", 25 * MIB)
    command[command.index("20")] = "2"
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        (served,) = wait_for_server(ends.directory)

        assert process.wait(60) == -signal.SIGALRM
        assert ends_soon(served)


def test_a_server_that_was_left_alone_is_ended_by_the_next_try(ends: Ends, whole: bytes) -> None:
    command = ends.writes("qcow2", 25 * MIB)
    stale = subprocess.Popen(server(ends.target, "qcow2", ends.socket("receive"), read_only=False))
    (served,) = wait_for_server(ends.directory)

    written = received(command, whole)

    assert written.returncode == 0, written.stderr
    assert stale.wait(60) == 0
    assert not Path(f"/proc/{served}").exists()


def test_a_socket_that_was_left_is_no_obstacle(ends: Ends) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(ends.socket("send")))

    assert sent(ends.reads).returncode == 0


def test_replies_may_come_in_any_order_and_in_pieces(tmp_path: Path) -> None:
    content = random.Random(1).randbytes(12 * MIB + 512)
    path = str(tmp_path / "s")
    listener = socket.socket(socket.AF_UNIX)
    with listener:
        listener.bind(path)
        listener.listen()
        threading.Thread(target=answer_backwards, args=(listener, content), daemon=True).start()
        disk = nbd.Disk(path, 10)
        blocks = dict(disk.read(disk.data_parts()))
        disk.hang_up()

    assert disk.size == len(content)
    assert list(blocks) == sorted(blocks)
    assert b"".join(blocks.values()) == content


def test_a_server_that_goes_away_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "s"
    command = server(make(tmp_path / "d", "raw", MIB), "raw", path, read_only=True)
    client, process = stream.serve(str(path), command)
    process.kill()
    process.wait()

    with pytest.raises((nbd.StreamError, OSError)):
        client.data_parts()
    client.hang_up()


@pytest.mark.parametrize("name", ["stream.py", "leash.py"])
def test_a_far_program_is_one_that_python_36_reads(name: Program) -> None:
    source = far_program(name)[4]

    tree = ast.parse(source, feature_version=(3, 6))

    imported = {
        alias.name if isinstance(node, ast.Import) else node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert imported <= set(sys.stdlib_module_names)
    assert "__future__" not in imported  # `annotations` came with 3.7


def big(directory: Path) -> Path:
    """A disk with more content than pipes hold."""
    path = make(directory / "big", "raw", 64 * MIB)
    edit(path, "raw", "write -P 1 0 64M")
    return path


def servers(directory: Path) -> list[int]:
    """Processes of qemu-nbd that serve something of this directory."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if words[0] == b"qemu-nbd" and any(os.fsencode(directory) in word for word in words):
            found.append(int(process.name))
    return found


def wait_for_server(directory: Path) -> list[int]:
    for _ in range(1200):
        if (found := servers(directory)) and any(directory.glob("*.sock")):
            return found
        time.sleep(0.05)
    pytest.fail("no server of the disk started")


def answer_backwards(listener: socket.socket, content: bytes) -> None:
    """An NBD server that answers the last question first, in small chunks."""
    peer, _ = listener.accept()
    with peer, peer.makefile("rwb") as wire:
        greet(wire, len(content))
        asked: list[tuple[int, int, int]] = []
        while True:
            _, _, kind, cookie, start, length = struct.unpack(">IHHQQI", wire.read(28))
            if kind == nbd.DISCONNECT:
                return
            if kind == nbd.STATUS:
                chunk(wire, cookie, nbd.CHUNK_STATUS, struct.pack(">III", 1, length, 0))
                chunk(wire, cookie, 0, b"", last=True)
            else:
                asked.append((cookie, start, length))
            if len(asked) == nbd.DEPTH or start + length == len(content):
                while asked:
                    tell_backwards(wire, content, *asked.pop())
            wire.flush()


def greet(wire: Wire, size_bytes: int) -> None:
    """An NBD server's side of the negotiation."""
    reply = 0x3E889045565A9
    wire.write(b"NBDMAGICIHAVEOPT\0\3")
    wire.flush()
    wire.read(4)
    option = 0
    while option != nbd.OPT_GO:
        _, option, length = struct.unpack(">8sII", wire.read(16))
        wire.read(length)
        if option == nbd.OPT_SET_CONTEXT:
            wire.write(struct.pack(">QIIII", reply, option, nbd.REP_CONTEXT, 4, 1))
        if option == nbd.OPT_GO:
            info = struct.pack(">HQH", 0, size_bytes, 1)
            wire.write(struct.pack(">QIII", reply, option, nbd.REP_INFO, len(info)) + info)
        wire.write(struct.pack(">QIII", reply, option, nbd.REP_ACK, 0))
        wire.flush()


def tell_backwards(wire: Wire, content: bytes, cookie: int, start: int, length: int) -> None:
    for at in reversed(range(start, start + length, 300_000)):
        piece = content[at : min(at + 300_000, start + length)]
        chunk(wire, cookie, nbd.CHUNK_DATA, struct.pack(">Q", at) + piece)
    chunk(wire, cookie, 0, b"", last=True)


def chunk(wire: Wire, cookie: int, kind: int, data: bytes, *, last: bool = False) -> None:
    wire.write(struct.pack(">IHHQI", nbd.STRUCTURED_REPLY, last, kind, cookie, len(data)))
    wire.write(data)


def based(directory: Path, image: Path) -> tuple[list[str], list[str], Path]:
    """Commands to send what `images.overlay` made without its base, and to receive it."""
    base = image.with_name("base")
    below = directory / "below.sock"
    served = server(base, "raw", below, read_only=True)
    sends = Ends(directory, image, "qcow2").reads
    target = make(directory / "target", "qcow2", 24 * MIB + 4096, base)
    where = directory / "receive.sock"
    writes = server(target, "qcow2", where, read_only=False)
    receives = far_program("stream.py", "receive", "20", "0", "", "", str(where), *writes)
    return [*sends, "--base", str(below), *served], list(receives), target


def test_over_a_base_only_what_differs_travels_and_both_ends_hash_all(
    tmp_path: Path, disk: Path, whole: bytes
) -> None:
    sends, receives, target = based(tmp_path, disk)

    read = sent(sends)
    written = received(receives, read.stdout)

    assert (read.returncode, written.returncode) == (0, 0), read.stderr + written.stderr
    assert same_content(disk, target)
    assert fact(read, "hash") == fact(written, "found") == _hash_in(whole)
    pieces = [offset for offset, length in offsets_of_data(read.stdout) if length]
    assert pieces == [2496 * 1024, 24 * MIB]  # what was written with 3, with 4
    assert int(fact(read, "sent")) == (64 << 10) + 4096
    assert list(tmp_path.glob("*.sock")) == []


def test_a_receiver_with_another_base_is_found_out(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    sends, receives, _ = based(tmp_path, overlay(tmp_path / "disk"))
    read = sent(sends)
    edit(tmp_path / "disk" / "base", "raw", "write -P 6 22M 4k")

    written = received(receives, read.stdout)

    assert written.returncode == 1
    assert b"the content differs" in written.stderr


def test_a_disk_may_be_larger_or_smaller_than_its_base(tmp_path: Path) -> None:
    base = make(tmp_path / "base", "raw", 3 * MIB + 512)
    edit(base, "raw", "write -P 1 0 3M", "write -P 2 3M 512")
    for size_bytes, change in ((9 * MIB, "write -P 3 8M 4k"), (2 * MIB, "write -P 3 1M 4k")):
        directory = tmp_path / str(size_bytes)
        directory.mkdir()
        image = make(directory / "image", "qcow2", size_bytes, base)
        edit(image, "qcow2", change)
        below, where = directory / "below.sock", directory / "receive.sock"
        sends = [*Ends(directory, image, "qcow2").reads, "--base", str(below)]
        read = sent([*sends, *server(base, "raw", below, read_only=True)])
        target = make(directory / "target", "qcow2", size_bytes, base)
        writes = server(target, "qcow2", where, read_only=False)
        receives = far_program("stream.py", "receive", "20", "0", "", "", str(where), *writes)
        done = received(list(receives), read.stdout)
        assert (read.returncode, done.returncode) == (0, 0), read.stderr + done.stderr
        assert same_content(image, target)
        assert int(fact(read, "sent")) == 64 << 10


def test_a_disk_can_be_hashed_where_it_is(tmp_path: Path, disk: Path, whole: bytes) -> None:
    served = server(disk, "qcow2", tmp_path / "s", read_only=True)
    how = ("hash", "20", "0", "", "", str(tmp_path / "s"))
    done = received([*far_program("stream.py", *how), *served], b"")
    assert done.returncode == 0
    assert fact(done, "hash") == _hash_in(whole)


def _hash_in(data: bytes) -> str:
    return data[-64:].decode()


def test_a_copy_that_broke_off_goes_on_with_what_has_not_arrived(tmp_path: Path) -> None:
    source, window = make(tmp_path / "source", "raw", 160 * MIB), WINDOW
    with source.open("r+b") as file:
        file.write(random.Random(2).randbytes(40 * MIB))
        file.seek(64 * MIB)
        file.write(random.Random(3).randbytes(96 * MIB))
    ends = Ends(tmp_path, source, "raw")
    stream_ = sent(ends.reads).stdout
    receives = ends.writes("qcow2", 160 * MIB)
    assert received(receives, stream_[: len(stream_) - 8 * MIB]).returncode == 1
    # Somebody writes where a part has arrived, and where the source has nothing.
    edit(ends.target, "qcow2", "write -P 9 5M 64k", "write -P 9 50M 64k")

    told = windows_of(tmp_path, ends.target)
    read = sent([*ends.reads, "--known"], told)
    written = received(receives, read.stdout)

    assert (read.returncode, written.returncode) == (0, 0), written.stderr
    assert same_content(source, ends.target)
    assert fact(read, "hash") == fact(written, "found")
    frames = [at & ~wire.ZERO for at, length in offsets(read.stdout)[:-1] if length]
    assert {at // window for at in frames} == {0, 1, 4}


def test_over_a_base_only_what_has_not_arrived_is_sent_again(tmp_path: Path) -> None:
    source = overlay(tmp_path)
    under = server(tmp_path / "base", "raw", tmp_path / "base.sock", read_only=True)
    base = ["--base", str(tmp_path / "base.sock"), *under]
    ends = Ends(tmp_path, source, "qcow2")
    receives = ends.writes("qcow2", 25 * MIB)
    make(ends.target, "qcow2", 25 * MIB, tmp_path / "base")
    assert received(receives, sent([*ends.reads, *base]).stdout).returncode == 0
    edit(ends.target, "qcow2", "write -P 9 3M 64k")

    sizes = []
    for _ in range(2):
        read = sent([*ends.reads, *base, "--known"], windows_of(tmp_path, ends.target))
        assert received(receives, read.stdout).returncode == 0
        sizes.append(int(fact(read, "sent")))

    assert same_content(source, ends.target)
    assert sizes[0] > sizes[1] == 0


def windows_of(directory: Path, image: Path) -> bytes:
    """What a sender is told of a copy that was begun earlier."""
    serves = server(image, "qcow2", directory / "w", read_only=False)
    how = ("windows", "20", "0", "", "", str(directory / "w"))
    done = received([*far_program("stream.py", *how), *serves], b"")
    assert done.returncode == 0, done.stderr
    words = [line.split() for line in done.stderr.decode().splitlines()]
    told = [f"{each[1]} {each[2]}" for each in words if each[0] == "cellmove-window"]
    return "".join(f"{line}\n" for line in (len(told), *told)).encode()
