"""Cellmove's database account: exactly the rights it needs."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.lab.inside import OUTPUTS

pytestmark = pytest.mark.lab

PASSWORD_FILE = Path("/var/lib/cellmove-lab/secrets/cellmove_database")
SERVERS = {"nova_api": "10.98.0.30", "nova_cell1": "10.98.0.31", "nova_cell2": "10.98.0.32"}
WRITTEN_IN_CELLS = (
    "instances",
    "instance_extra",
    "instance_info_caches",
    "instance_metadata",
    "instance_system_metadata",
    "block_device_mapping",
    "virtual_interfaces",
    "tags",
    "instance_actions",
    "instance_actions_events",
    "migrations",
    "instance_faults",
    "instance_id_mappings",
)
DELETED_IN_CELLS = ("security_group_instance_association", "console_auth_tokens")
CELL_RIGHTS = {
    (table, right) for table in WRITTEN_IN_CELLS for right in ("INSERT", "UPDATE", "DELETE")
} | {(table, "DELETE") for table in DELETED_IN_CELLS}
RIGHTS = {
    "nova_api": {("instance_mappings", "UPDATE"), ("request_specs", "UPDATE")},
    "nova_cell1": CELL_RIGHTS,
    "nova_cell2": CELL_RIGHTS,
}
REFUSED = (
    ("nova_api", "UPDATE cell_mappings SET name = 'x' WHERE 1 = 0"),
    ("nova_api", "DELETE FROM instance_mappings WHERE 1 = 0"),
    ("nova_api", "INSERT INTO request_specs (spec, instance_uuid) VALUES ('{}', 'x')"),
    ("nova_api", "SELECT 1 FROM keystone.user"),
    ("nova_api", "SELECT 1 FROM neutron.ports"),
    ("nova_cell1", "UPDATE compute_nodes SET memory_mb = 0 WHERE 1 = 0"),
    ("nova_cell1", "DELETE FROM services WHERE 1 = 0"),
    ("nova_cell2", "DROP TABLE instances"),
    ("nova_cell2", "CREATE TABLE x (y INT)"),
    ("nova_cell2", "SELECT 1 FROM mysql.user"),
)


def as_cellmove(database: str, query: str) -> subprocess.CompletedProcess[str]:
    """A query with cellmove's own account, from the conductor's side."""
    environment = os.environ | {"MYSQL_PWD": PASSWORD_FILE.read_text().strip()}
    client = ["mariadb", "--no-defaults", "-N", "-B", "-u", "cellmove", "-h", SERVERS[database]]
    return subprocess.run(
        [OUTPUTS / "enter", "cond", *client, "-e", query, database],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("database", SERVERS)
def test_the_account_writes_exactly_the_tables_of_a_server(database: str) -> None:
    answer = as_cellmove(
        database, "SELECT table_name, privilege_type FROM information_schema.table_privileges"
    )
    assert {tuple(line.split("\t")) for line in answer.stdout.splitlines()} == RIGHTS[database]


@pytest.mark.parametrize("database", SERVERS)
def test_the_account_reads_its_database_and_no_other(database: str) -> None:
    answer = as_cellmove(
        database,
        "SELECT table_schema, privilege_type FROM information_schema.schema_privileges;"
        "SELECT privilege_type FROM information_schema.user_privileges",
    )
    assert answer.stdout.splitlines() == [f"{database}\tSELECT", "USAGE"]


@pytest.mark.parametrize("database", ["nova_cell1", "nova_cell2"])
def test_the_account_may_change_a_record_of_a_server(database: str) -> None:
    answer = as_cellmove(database, "UPDATE instances SET hidden = hidden WHERE 1 = 0")
    assert (answer.returncode, answer.stderr) == (0, "")


@pytest.mark.parametrize(("database", "query"), REFUSED)
def test_the_account_is_refused(database: str, query: str) -> None:
    answer = as_cellmove(database, query)
    assert answer.returncode == 1
    assert "denied" in answer.stderr
