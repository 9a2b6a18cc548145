"""`playbooks/check.yml` passes hosts as `hosts.yml` leaves them, and names what is not so."""

from __future__ import annotations

import os
import re
import subprocess

import pytest

from tests.lab.inside import HYPERVISORS
from tests.lab.kit.places import REPOSITORY

pytestmark = [pytest.mark.lab, pytest.mark.alone]


def play(*more: str) -> tuple[int, str]:
    """Exit code and output of the playbook over the lab's hosts."""
    program = REPOSITORY / ".venv" / "bin" / "ansible-playbook"
    done = subprocess.run(
        [str(program), "playbooks/check.yml", *more],
        cwd=REPOSITORY,
        env={**os.environ, "ANSIBLE_CONFIG": "playbooks/ansible.cfg", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return done.returncode, done.stdout


def test_hosts_that_the_playbook_has_prepared_pass_and_nothing_is_changed() -> None:
    code, said = play()
    assert code == 0, said
    counts = re.findall(r"^(\S+) +: ok=\d+ +changed=(\d+) .*failed=(\d+)", said, re.MULTILINE)
    assert set(counts) == {(host, "0", "0") for host in ("lab-bastion", *HYPERVISORS)}


def test_all_that_is_amiss_on_a_host_is_said_at_once() -> None:
    wrong = ["-e", "cellmove_public_key=another", "-e", "instances_path=/elsewhere"]
    code, said = play("--limit", HYPERVISORS[0], "-e", "qemu_user=root", *wrong)
    assert code == 2
    for words in (
        "Another key than cellmove_public_key signs in.",
        "/var/lib/cellmove-guests is libvirt-qemu cellmove 2770, not root cellmove 2770.",
        "/etc/sudoers.d/cellmove is not what this version needs.",
        "Run playbooks/hosts.yml for this host.",
    ):
        assert words in " ".join(said.split())
