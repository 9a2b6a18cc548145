from __future__ import annotations

import base64
import os
import subprocess
from pathlib import Path

import pytest

from cellmove.errors import StepFailed
from cellmove.hosts import firmware

PATH = f"{firmware.DIRECTORY}/instance-0000000a_VARS.fd"


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/etc/passwd",
        f"{firmware.DIRECTORY}/../instance_VARS.fd",
        f"{firmware.DIRECTORY}/a/b_VARS.fd",
        f"{firmware.DIRECTORY}/-x_VARS.fd",
        f"{firmware.DIRECTORY}/x_VARS.fd\n",
        f"{firmware.DIRECTORY}/x_VARS.fd /etc/passwd",
        f"{firmware.DIRECTORY}/x.fd",
    ],
)
def test_no_command_is_made_for_another_file(path: str) -> None:
    assert not firmware.is_ours(path)
    for command in (firmware.exists, firmware.content, firmware.write, firmware.remove):
        with pytest.raises(StepFailed, match="no file of a firmware's variables"):
            command(path)


@pytest.mark.parametrize("name", ["instance-0000000a", "11111111-2222-3333-4444-555555555555", "A"])
def test_a_guests_own_file_is_known_by_its_place_and_ending(name: str) -> None:
    assert firmware.is_ours(f"{firmware.DIRECTORY}/{name}_VARS.fd")


def test_what_is_written_is_read_again_byte_for_byte(tmp_path: Path) -> None:
    content, file = os.urandom(540_672), tmp_path / "vars"
    at_file = [str(file) if each == PATH else each for each in firmware.write(PATH)]
    for _ in range(2):
        subprocess.run(at_file, input=content, check=True)
    assert file.stat().st_mode & 0o777 == 0o600
    command = [str(file) if each == PATH else each for each in firmware.content(PATH)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert firmware.decoded(printed, PATH) == content


def test_what_is_no_content_is_not_taken_for_one() -> None:
    with pytest.raises(StepFailed, match="cannot be read"):
        firmware.decoded("base64: invalid input", PATH)
    assert firmware.decoded(base64.b64encode(b"").decode(), PATH) == b""
