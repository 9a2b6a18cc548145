"""nova's image cache as a host has it: files, links, and the images that lie on them."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cellmove.errors import StepFailed
from cellmove.hosts import disks
from cellmove.hosts.bases import Hashes, ImageCache
from cellmove.hosts.disks import Argv, Layout
from cellmove.hosts.hypervisor import RemoteHypervisor
from cellmove.hosts.shell import Completed
from cellmove.model import Disk
from tests.unit.hosts.images import MIB, edit, make

SERVER = "11111111-2222-3333-4444-555555555555"
OTHER = "99999999-2222-3333-4444-555555555555"
BASE = "0123456789abcdef0123456789abcdef01234567"


class Here:
    """This machine, in place of a hypervisor's shell."""

    host = "here"

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout_seconds: float = 0,
        sudo: str = "",
        check: bool = True,
        stdin: bytes = b"",
    ) -> Completed:
        said = stdin.decode()
        done = subprocess.run(argv, input=said, capture_output=True, text=True, check=False)
        if check and done.returncode:
            raise StepFailed(f"{argv[0]} as {sudo}", done.stderr, f"{timeout_seconds}")
        return Completed(done.stdout, done.stderr, done.returncode)


class Cache(ImageCache):
    """The image cache of a directory on this machine."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.base = directory / "_base" / BASE
        self.base.parent.mkdir()
        make(self.base, "raw", 4 * MIB)
        edit(self.base, "raw", "write -P 1 1M 1M")
        super().__init__(Here(), Layout(str(directory)))  # type: ignore[arg-type]

    def overlay(self, server: str, name: str) -> Path:
        (self.directory / server).mkdir(exist_ok=True)
        return make(self.directory / server / name, "qcow2", 8 * MIB, self.base)

    def _known_formats(self, server: str, listed: str) -> dict[str, str]:
        return {"disk": "qcow2", "disk.config": "raw"}


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path)


def described(cache: Cache, path: Path, *, chain: bool = True) -> Disk:
    argv: Argv = disks.image_info(str(path), "qcow2", chain=chain)
    printed = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    return disks.disk_of("disk", printed, f"{cache.directory}/_base")


def test_what_stood_in_the_way_of_a_directory_is_not_deleted_with_it(tmp_path: Path) -> None:
    host = RemoteHypervisor("here", Here(), Layout(str(tmp_path)))  # type: ignore[arg-type]
    foreign = tmp_path / SERVER
    foreign.symlink_to("/nowhere")
    host.remove_directory(SERVER)
    assert foreign.is_symlink()
    foreign.unlink()
    (foreign / "disk").mkdir(parents=True)
    for _ in range(2):
        host.remove_directory(SERVER)
    assert not foreign.exists()


def test_an_image_is_read_once_however_many_ask_and_anew_when_it_was_gone() -> None:
    hashes = Hashes()
    reads: list[float] = []

    def read() -> str:
        reads.append(time.monotonic())
        time.sleep(0.05)
        return "cellmove-hash 1"

    with ThreadPoolExecutor() as workers:
        told = set(workers.map(lambda _: hashes.of(("here", BASE), read), range(4)))
    assert (told, len(reads)) == ({"cellmove-hash 1"}, 1)
    hashes.of(("there", BASE), read)
    hashes.forget(("here", BASE))
    hashes.of(("here", BASE), read)
    assert len(reads) == 3


def test_a_disk_tells_what_it_lies_on_and_how_much_of_it_that_is(cache: Cache) -> None:
    disk = described(cache, cache.overlay(SERVER, "disk"))
    assert (disk.base, disk.why_flat, disk.chained) == (BASE, "", True)
    assert MIB <= disk.base_bytes < disk.allocated_bytes


def test_a_disk_tells_it_also_when_the_base_is_gone(cache: Cache) -> None:
    path = cache.overlay(SERVER, "disk")
    cache.base.unlink()
    disk = described(cache, path, chain=False)
    assert (disk.base, disk.chained, disk.size_bytes) == (BASE, True, 8 * MIB)


def test_a_chain_that_cannot_be_kept_says_why(cache: Cache, tmp_path: Path) -> None:
    first = cache.overlay(SERVER, "disk")
    create = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2"]
    longer = tmp_path / "longer"
    subprocess.run([*create, "-b", str(first), str(longer)], check=True)
    elsewhere = make(tmp_path / "elsewhere", "qcow2", MIB, make(tmp_path / "b", "raw", MIB))
    other = cache.base.with_name("f" * 40)
    make(other, "qcow2", MIB)
    on_qcow2 = tmp_path / "on-qcow2"
    subprocess.run([*create, "-b", str(other), str(on_qcow2)], check=True)
    flat = make(tmp_path / "flat", "qcow2", MIB)

    assert described(cache, longer).why_flat == "it lies on 2 images"
    assert "no image of the host's cache" in described(cache, elsewhere).why_flat
    assert described(cache, on_qcow2).why_flat == "its base is qcow2"
    assert not any(described(cache, path).chained for path in (longer, elsewhere, on_qcow2))
    assert (described(cache, flat).base, described(cache, flat).why_flat) == ("", "")


@pytest.mark.parametrize("name", ["disk", "disk.cellmove"])
def test_a_base_that_a_disk_lies_on_is_not_dropped(cache: Cache, name: str) -> None:
    cache.overlay(OTHER, name)
    cache.drop_base(BASE)
    assert cache.base.exists()


@pytest.mark.parametrize("name", ["", f"{OTHER}_resize", f"{OTHER}_del"])
def test_a_base_is_dropped_unless_nova_has_something_half_done(cache: Cache, name: str) -> None:
    (cache.directory / OTHER).mkdir()
    make(cache.directory / OTHER / "disk", "qcow2", MIB)
    make(cache.directory / OTHER / "disk.config", "raw", MIB)
    (cache.directory / name).mkdir(exist_ok=True)
    cache.drop_base(BASE)
    cache.drop_base(BASE)
    assert cache.base.exists() is bool(name)
    assert cache.has_base(BASE) is bool(name)


def test_a_disk_that_cannot_be_read_keeps_every_base(cache: Cache) -> None:
    (cache.directory / OTHER).mkdir()
    (cache.directory / OTHER / "disk").write_text("no image")
    with pytest.raises(StepFailed):
        cache.drop_base(BASE)
    assert cache.base.exists()


def test_a_kept_base_survives_the_cache_and_comes_back(cache: Cache) -> None:
    (cache.directory / SERVER).mkdir()
    cache.keep_base(SERVER, BASE)
    cache.keep_base(SERVER, BASE)
    assert cache.keeps_base(SERVER, BASE)
    content = cache.base.read_bytes()
    cache.base.unlink()
    cache.restore_base(SERVER, BASE)
    cache.restore_base(SERVER, BASE)
    assert cache.base.read_bytes() == content
    cache.release_base(SERVER, BASE)
    cache.release_base(SERVER, BASE)
    assert not cache.keeps_base(SERVER, BASE)
    assert cache.base.exists()


def test_a_base_that_nova_fetched_meanwhile_is_the_one_that_stays(cache: Cache) -> None:
    (cache.directory / SERVER).mkdir()
    half = make(cache.directory / SERVER / "disk.base.cellmove", "raw", MIB)
    before = cache.base.stat().st_ino
    cache.adopt_base(SERVER, BASE)
    assert cache.base.stat().st_ino == before
    assert not half.exists()


def test_a_base_is_adopted_whole_and_makes_the_cache_if_there_is_none(cache: Cache) -> None:
    (cache.directory / SERVER).mkdir()
    cache.base.unlink()
    cache.base.parent.rmdir()
    half = make(cache.directory / SERVER / "disk.base.cellmove", "raw", MIB)
    cache.adopt_base(SERVER, BASE)
    assert cache.has_base(BASE)
    assert not half.exists()


@pytest.mark.parametrize("name", ["../../etc/shadow", "x" * 40, "", "swap_64"])
def test_a_hostile_base_never_reaches_a_path(cache: Cache, name: str) -> None:
    with pytest.raises(StepFailed):
        cache.has_base(name)
