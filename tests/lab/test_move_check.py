"""`cellmove check`: all is well on the lab, and what is broken is named."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.kit.places import OUTPUTS, sql
from tests.lab.kit.program import Cellmove

pytestmark = [pytest.mark.lab, pytest.mark.alone]

DATABASES = {"api": "nova_api", "cell1": "nova_cell1", "cell2": "nova_cell2"}
READER = "cellmove_reader"
"""An account that may read all and write nothing."""


@pytest.fixture
def reader() -> Iterator[str]:
    """Password of `READER`."""
    password = secrets.token_hex(12)
    for server, schema in DATABASES.items():
        sql(server, f"CREATE OR REPLACE USER {READER} IDENTIFIED BY '{password}'")
        sql(server, f"GRANT SELECT ON {schema}.* TO {READER}")
    yield password
    for server in DATABASES:
        sql(server, f"DROP USER {READER}")


def failed(cellmove: Cellmove, config: Path) -> dict[str, str]:
    """What the check finds failed with this configuration, and what it saw."""
    done = cellmove("check", "--config", str(config), "--json", check=False)
    assert done.code == 7, done
    found = done.json()["findings"]
    return {each["what"]: each["seen"] for each in found if each["result"] == "fail"}


def test_all_is_well(cellmove: Cellmove) -> None:
    done = cellmove("check")
    assert done.stdout.splitlines()[-1].endswith(" 0 failed.")
    for name in ("cmp1a: sudo", "cmp2b: libvirt", "cell cell1: grants", "bastion"):
        assert name in done.stdout


def test_a_host_with_another_key_than_it_is_known_by_is_named(
    cellmove: Cellmove, tmp_path: Path
) -> None:
    keys = (OUTPUTS / "known_hosts").read_text().splitlines()
    other = next(line.split(maxsplit=1)[1] for line in keys if "cmp2a " in line)
    changed = [re.sub(r"(.*,cmp2b) .*", rf"\1 {other}", line) for line in keys]
    assert changed != keys
    (tmp_path / "known_hosts").write_text("\n".join(changed) + "\n")
    _copy_changed(tmp_path, "ssh_config", f"{OUTPUTS}/known_hosts", f"{tmp_path}/known_hosts")
    config = _copy_changed(
        tmp_path, "cellmove.toml", f"{OUTPUTS}/ssh_config", f"{tmp_path}/ssh_config"
    )
    assert list(failed(cellmove, config)) == ["cmp2b: SSH"]


def test_an_account_without_a_grant_is_named_with_the_table(
    cellmove: Cellmove, tmp_path: Path, reader: str
) -> None:
    (tmp_path / "password").write_text(reader)
    (tmp_path / "password").chmod(0o600)
    _copy_changed(tmp_path, "cellmove.toml", "//cellmove@", f"//{READER}@")
    old = re.search(r'password_file = "(.*)"', (OUTPUTS / "cellmove.toml").read_text())
    assert old
    config = tmp_path / "cellmove.toml"
    config.write_text(config.read_text().replace(old[1], f"{tmp_path}/password"))

    seen = failed(cellmove, config)
    assert len(seen) == 3
    assert all(what.endswith(": grants") for what in seen)
    (api,) = (text for what, text in seen.items() if "API" in what)
    assert "instance_mappings: no UPDATE" in api
    assert "migrations: no DELETE, INSERT, UPDATE" in seen["cell cell1: grants"]


def _copy_changed(folder: Path, name: str, old: str, new: str) -> Path:
    text = (OUTPUTS / name).read_text()
    assert old in text
    (folder / name).write_text(text.replace(old, new))
    (folder / name).chmod(0o600)
    return folder / name
