"""The check's looks, each with what it must find; run whole over the fakes and in the lab."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cellmove.check import Finding, Result, databases, hosts, run, services
from cellmove.check.findings import guarded, ok
from cellmove.check.grants import API_NEEDS, EVERY_TABLE, cell_needs, missing, parsed
from cellmove.config import Config, DatabaseConfig, NotificationsConfig
from cellmove.dbcopy.database import Database
from cellmove.errors import Refused, Unreachable
from cellmove.hosts import disks, firmware, switch
from cellmove.hosts.disks import Argv, Layout
from cellmove.journal import Journal
from cellmove.policy import CROSS_CELL, PolicyFile
from cellmove.services.service import Absent, Answer
from cellmove.services.session import Identity
from tests.fakes.databases import CELL1, CELL2, fake_databases
from tests.unit import samples

EXACT = [
    "GRANT USAGE ON *.* TO `cellmove`@`%` IDENTIFIED BY PASSWORD '*ABCDEF'",
    "GRANT SELECT ON `nova_cell1`.* TO `cellmove`@`%`",
    "GRANT INSERT, UPDATE, DELETE ON `nova_cell1`.`instances` TO `cellmove`@`%`",
    "GRANT UPDATE (`hidden`) ON `nova_cell1`.`migrations` TO `cellmove`@`%`",
    "GRANT DELETE ON `nova_cell1`.`tags` TO `cellmove`@`%` WITH GRANT OPTION",
]
ALL = frozenset({"SELECT", "INSERT", "UPDATE", "DELETE"})


def lacking(lines: Sequence[str], schema: str = "nova_cell1", **needs: frozenset[str]) -> Any:
    return missing(lines, schema, needs)


def test_grants_are_read_table_by_table() -> None:
    assert lacking(EXACT, instances=ALL, tags=frozenset({"SELECT", "DELETE"})) == {}
    assert lacking(EXACT, tags=ALL) == {"tags": ["INSERT", "UPDATE"]}
    assert lacking(EXACT, schema="nova_cell2", tags=frozenset({"SELECT"})) == {"tags": ["SELECT"]}


def test_a_grant_on_some_columns_is_not_enough() -> None:
    assert lacking(EXACT, migrations=frozenset({"UPDATE"})) == {"migrations": ["UPDATE"]}


@pytest.mark.parametrize(
    "line",
    [
        "GRANT ALL PRIVILEGES ON *.* TO `root`@`localhost` WITH GRANT OPTION",
        "GRANT ALL PRIVILEGES ON `nova_cell1`.* TO `cellmove`@`%`",
        "GRANT ALL PRIVILEGES ON `nova\\_%`.* TO `cellmove`@`%`",
        "GRANT SELECT, INSERT, UPDATE, DELETE, CREATE ON `nova_cell_`.* TO `cellmove`@`%`",
        "GRANT SELECT (`a`, `b`), SELECT, INSERT, UPDATE, DELETE ON *.* TO `cellmove`@`%`",
    ],
)
def test_a_wide_grant_covers_the_table(line: str) -> None:
    assert lacking([line], instances=ALL) == {}


@pytest.mark.parametrize("line", ["GRANT ALL PRIVILEGES ON `nova`.* TO x", "GRANT `role` TO x", ""])
def test_a_grant_elsewhere_covers_nothing(line: str) -> None:
    assert lacking([line], instances=frozenset({"SELECT"})) == {"instances": ["SELECT"]}


def test_a_pattern_in_a_schemas_name_is_one_only_unescaped() -> None:
    (escaped,) = parsed(["GRANT SELECT ON `nova\\_cell1`.* TO x"])
    assert escaped.gives("SELECT", "nova_cell1", "tags")
    assert not escaped.gives("SELECT", "novaXcell1", "tags")


def test_a_cells_needs_are_those_of_the_census() -> None:
    needs = cell_needs()
    assert needs["instances"] == ALL
    assert needs["console_auth_tokens"] == {"SELECT", "DELETE"}
    assert "share_mapping" not in needs


class Account(Database):
    """A fake database whose account has these grants."""

    lines: Sequence[str] = ()

    def grants(self) -> tuple[str, list[str]]:
        return "nova_cell1", list(self.lines)


@pytest.fixture
def account(tmp_path: Path) -> Iterator[Account]:
    _api, cells = fake_databases(tmp_path)
    account = Account(cells[CELL1.uuid]._engine.url, name="cell cell1")
    yield account
    account.close()


def results(findings: Iterator[Finding]) -> dict[str, Result]:
    return {finding.what: finding.result for finding in findings}


def grants_of(account: Account, *lines: str) -> Finding:
    account.lines = lines
    found = {f.what: f for f in databases.database(account, cell_needs())}
    return found["cell cell1: grants"]


def test_missing_grants_are_named_but_nothing_of_the_account(account: Account) -> None:
    found = grants_of(account, *EXACT)
    assert found.result is Result.FAIL
    assert "migrations: no DELETE, INSERT, UPDATE" in found.seen
    assert "ABCDEF" not in found.seen
    assert "playbooks/databases.yml" in found.do


def test_an_account_that_sees_only_the_tables_of_today_is_not_enough(account: Account) -> None:
    lines = [
        f"GRANT {', '.join(rights)} ON `nova_cell1`.`{table}` TO x"
        for table, rights in cell_needs().items()
        if table != EVERY_TABLE
    ]
    found = grants_of(account, *lines)
    assert (found.result, found.seen) == (Result.FAIL, "*: no SELECT.")
    assert grants_of(account, *lines, "GRANT SELECT ON `nova_cell1`.* TO x").result is Result.OK


def test_a_role_may_give_what_is_not_seen(account: Account) -> None:
    assert grants_of(account, *EXACT, "GRANT `mover` TO `cellmove`@`%`").result is Result.WARN


def test_all_that_a_move_needs_is_well(account: Account) -> None:
    assert grants_of(account, "GRANT ALL PRIVILEGES ON *.* TO us").result is Result.OK


def test_a_database_that_does_not_answer_is_a_finding_not_an_end() -> None:
    database = Database("mysql+pymysql://me:hunter2@127.0.0.1:1/nova", name="cell x")
    found = list(databases.database(database, cell_needs()))
    assert [each.result for each in found] == [Result.FAIL, Result.FAIL]
    assert not any("hunter2" in each.seen for each in found)


def test_cells_of_different_releases_want_a_look() -> None:
    assert results(databases.same_release({"cell1": "a", "cell2": "b"})) == {
        "cells: release": Result.WARN
    }
    assert results(databases.same_release({"cell1": "a", "cell2": "a"})) == {}


@dataclass
class FakeService:
    """Answers by path."""

    answers: Mapping[str, Answer] = field(default_factory=dict)

    def get(self, path: str, **_query: str) -> Answer:
        return self.answers.get(path, Answer(404, {}))

    def send(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Answer:
        raise AssertionError("the check changes nothing")


def test_neutron_must_have_extended_bindings() -> None:
    there = FakeService({"/extensions/binding-extended": Answer(200, {})})
    assert results(services.network(there)) == {"Neutron": Result.OK}
    assert results(services.network(FakeService())) == {"Neutron": Result.FAIL}


@pytest.mark.parametrize(
    ("newest", "result"),
    [("1.39", Result.OK), ("1.36", Result.OK), ("1.9", Result.FAIL), ("", Result.FAIL)],
)
def test_placement_must_know_consumer_generations(newest: str, result: Result) -> None:
    versions = {"versions": [{"max_version": newest}]} if newest else {}
    service = FakeService({"/": Answer(200, versions)})
    assert results(services.placement(service)) == {"Placement": result}


@pytest.mark.parametrize(
    ("answer", "result"),
    [(Answer(200, {"attachments": []}), Result.OK), (Answer(404, {}), Result.WARN)],
)
def test_cinder_must_know_attachments_if_servers_have_volumes(
    answer: Answer, result: Result
) -> None:
    service = FakeService({"/attachments": answer})
    assert results(services.volumes(service)) == {"Cinder": result}


def test_a_cloud_without_cinder_wants_a_look_and_no_more() -> None:
    absent = Absent(Unreachable("The catalog does not have it.", "No endpoint.", "Look."))
    assert results(services.volumes(absent)) == {"Cinder": Result.WARN}


@pytest.mark.parametrize(("text", "result"), [("@", Result.OK), ("!", Result.WARN)])
def test_the_policy_is_asked(tmp_path: Path, text: str, result: Result) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(f'"{CROSS_CELL}": "{text}"')
    who = Identity("u", "p", frozenset({"admin"}))
    policy = PolicyFile(who.credentials, str(file))
    assert results(services.permission(who, policy)) == {"policy": result}


@pytest.mark.parametrize(("version", "failed"), [(47, 0), (66, 0), (46, 1), (None, 1)])
def test_nova_compute_must_be_able_to_confirm(version: int | None, failed: int) -> None:
    found = list(databases.computes("cell1", {"cmp1a": 66, "cmp1b": version}))
    assert len(found) == failed
    assert all("cmp1b" in each.seen and "cmp1a" not in each.seen for each in found)


def test_a_look_without_a_bus_says_nothing_of_it() -> None:
    assert list(services.bus(NotificationsConfig())) == []


@pytest.mark.parametrize(("role", "result"), [("admin", Result.OK), ("member", Result.WARN)])
def test_somebody_else_than_an_administrator_wants_a_look(role: str, result: Result) -> None:
    who = Identity("u", "p", frozenset({role}))
    assert results(services.identity(who)) == {"Keystone": result}


@dataclass(frozen=True)
class Said:
    stdout: str
    status: int


@dataclass
class FakeFar:
    """A host on which all is well but for what a test breaks."""

    refused: Callable[[Sequence[str]], bool] = lambda _argv: False
    free_bytes: int = 100 * samples.GIB
    unreachable: bool = False
    asked: list[tuple[str, ...]] = field(default_factory=list)

    def connect(self) -> None:
        if self.unreachable:
            raise Unreachable("cmp1a cannot be reached.", "No route.", "Run `cellmove check`.")

    def run(self, argv: Sequence[str]) -> Said:
        self.asked.append(tuple(argv))
        return Said(f"Avail\n{self.free_bytes}\n", int(self.refused(argv)))

    def libvirt_version(self) -> int:
        return 9_000_002


def host_findings(far: FakeFar) -> dict[str, Finding]:
    found = hosts.hypervisor("cmp1a", "cmp1a.mgmt", far, Layout(), "/etc/ssh_config")
    return {finding.what: finding for finding in found}


def test_a_host_on_which_all_is_well() -> None:
    found = host_findings(FakeFar())
    assert {f.result for f in found.values()} == {Result.OK}
    assert found["cmp1a: libvirt"].seen == "version 9.0.2"
    assert found["cmp1a: instances"].seen == "/var/lib/nova/instances, 100.0 GiB free"


def test_a_host_that_is_not_reached_is_asked_nothing_and_told_how_to_reach() -> None:
    far = FakeFar(unreachable=True)
    found = host_findings(far)
    assert list(found) == ["cmp1a: SSH"]
    assert "ssh -F /etc/ssh_config cmp1a.mgmt" in found["cmp1a: SSH"].do
    assert far.asked == []


@pytest.mark.parametrize(
    ("word", "what", "result"),
    [
        ("/usr/bin/ovs-vsctl", "sudo", Result.FAIL),
        ("python3", "programs", Result.FAIL),
        ("virt-ssh-helper", "programs", Result.FAIL),
        ("/var/lib/cellmove", "sockets", Result.FAIL),
        ("df", "instances", Result.FAIL),
    ],
)
def test_what_a_host_lacks_is_found_and_named(word: str, what: str, result: Result) -> None:
    found = host_findings(FakeFar(refused=lambda argv: word in argv))
    assert found[f"cmp1a: {what}"].result is result
    assert found[f"cmp1a: {what}"].do
    assert [f.result for f in found.values()].count(Result.FAIL) == 1


@pytest.mark.parametrize(("said", "result"), [("", Result.OK), ("no key", Result.FAIL)])
def test_a_bastion_that_is_to_copy_is_asked_whether_it_can(said: str, result: Result) -> None:
    (found,) = hosts.copies("cmp1a", lambda: said)
    assert (found.what, found.result) == ("cmp1a: copies by the bastion", result)
    assert said in found.seen


def test_little_room_wants_a_look() -> None:
    found = host_findings(FakeFar(free_bytes=samples.GIB))
    assert found["cmp1a: instances"].result is Result.WARN


def test_a_host_without_iscsi_lacks_nothing() -> None:
    def refused(argv: Sequence[str]) -> bool:
        return "/usr/sbin/iscsiadm" in argv

    assert {found.result for found in host_findings(FakeFar(refused=refused)).values()} == {
        Result.OK
    }


def test_sudo_is_only_asked_whether_it_would() -> None:
    """Among the commands are deletions: `-l` lists, it does not run."""
    far = FakeFar()
    host_findings(far)
    through_sudo = [argv for argv in far.asked if argv[0] == "sudo"]
    assert len(through_sudo) == len(hosts.privileged(Layout()))
    assert all(argv[2:4][0] == "-u" and argv[4:6] == ("-l", "--") for argv in through_sudo)


def test_every_privileged_command_of_a_move_is_asked_about() -> None:
    """A new builder of a command must be among them, or said here to need no privilege."""
    unprivileged = {"as_user", "free"}
    asked = {argv[0].rpartition("/")[2] for _user, argv in hosts.privileged(Layout())}
    source = inspect.getsource(hosts.privileged)
    for module in (disks, firmware, switch):
        for name, builder in inspect.getmembers(module, inspect.isfunction):
            made_here = builder.__module__ == module.__name__ and not name.startswith("_")
            if made_here and inspect.signature(builder).return_annotation in ("Argv", Argv):
                called = f"{module.__name__.rpartition('.')[2]}.{name}("
                assert called in source or name in unprivileged, called
    assert {"rm", "mv", "tee", "qemu-img", "qemu-nbd", "ovs-vsctl"} <= asked


def test_an_error_ends_one_look_and_is_its_finding() -> None:
    def look() -> Iterator[Finding]:
        yield ok("first", "fine")
        raise Refused("It is not so.", "It was seen.", "Do it.")

    assert list(guarded("whole", look)) == [
        ok("first", "fine"),
        Finding("whole", Result.FAIL, "It is not so. It was seen.", "Do it."),
    ]


def test_without_a_configuration_nothing_else_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/nonexistent")
    for found in (
        run(Config, partial(pytest.fail, "too far"), print),
        run(partial(_refuse), partial(pytest.fail, "too far"), print),
    ):
        assert [f.what for f in found] == ["configuration"]
        assert found[0].result is Result.FAIL


def _refuse() -> Config:
    raise Refused("The configuration cannot be read.", "It is gone.", "Write it.")


def test_the_whole_check_goes_on_past_what_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keystone is not there and the bastion neither; databases and journal are."""
    api, _cells = fake_databases(tmp_path)
    monkeypatch.setattr("cellmove.check.whole.signed_in", _no_keystone)
    config = Config(database=DatabaseConfig(url=str(api._engine.url)))
    journal = Journal(tmp_path / "journal.db")
    move = samples.move()
    journal.open_move("resize", move)
    said: list[str] = []
    found = {f.what: f for f in run(lambda: config, lambda: journal, said.append)}
    assert found["journal"].result is Result.WARN
    assert found["Keystone"].result is Result.FAIL
    for cell in (CELL1, CELL2):
        assert found[f"cell {cell.name}: grants"].result is Result.OK
        assert found[f"cell {cell.name}: hypervisors"].result is Result.OK
    assert found["cmp1a: SSH"].result is Result.FAIL
    assert said == ["Looking at 4 hypervisors..."]
    journal.close()


def _no_keystone(*_: object) -> Any:
    raise Unreachable("Keystone cannot be reached.", "No route.", "Check auth_url.")


def test_api_needs_cover_what_a_move_changes() -> None:
    assert {t for t, p in API_NEEDS.items() if "UPDATE" in p} == {
        "instance_mappings",
        "request_specs",
    }
