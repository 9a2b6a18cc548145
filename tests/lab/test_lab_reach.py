"""Who reaches whom in the lab, and who does not."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.lab.inside import inside

pytestmark = pytest.mark.lab

APIS = {
    f"{name} API": ("10.98.0.10", port)
    for name, port in {
        "identity": 5000,
        "placement": 8778,
        "image": 9292,
        "network": 9696,
        "volume": 8776,
        "compute": 8774,
    }.items()
}
DATABASES = {
    "API database": ("10.98.0.30", 3306),
    "cell1 database": ("10.98.0.31", 3306),
    "cell2 database": ("10.98.0.32", 3306),
}
BUSES = {
    "neutron bus": ("10.98.0.20", 5672),
    "cell1 bus": ("10.98.0.21", 5672),
    "cell2 bus": ("10.98.0.22", 5672),
}
CELL1 = {"cmp1a": ("10.98.1.11", 22), "cmp1b": ("10.98.1.12", 22)}
CELL2 = {"cmp2a": ("10.98.2.11", 22), "cmp2b": ("10.98.2.12", 22)}
BASTION = {
    "bastion": ("10.98.9.2", 22),
    "bastion in cell1": ("10.98.1.2", 22),
    "bastion in cell2": ("10.98.2.2", 22),
}
EVERYTHING = APIS | DATABASES | BUSES | CELL1 | CELL2 | BASTION

REACHES = {
    "cond": {*APIS, *DATABASES, "bastion"},
    "bastion": {*CELL1, *CELL2, *BASTION},
    "cmp1a": {*APIS, "neutron bus", "cell1 bus", *CELL1},
    "cmp1b": {*APIS, "neutron bus", "cell1 bus", *CELL1},
    "cmp2a": {*APIS, "neutron bus", "cell2 bus", *CELL2},
    "cmp2b": {*APIS, "neutron bus", "cell2 bus", *CELL2},
}


@pytest.mark.parametrize("origin", REACHES)
def test_each_place_reaches_what_it_must_and_nothing_else(origin: str) -> None:
    host = inside(origin)

    def answers(name: str) -> bool:
        address, port = EVERYTHING[name]
        return bool(host.addr(address).port(port).is_reachable)

    with ThreadPoolExecutor(len(EVERYTHING)) as pool:
        answering = dict(zip(EVERYTHING, pool.map(answers, EVERYTHING), strict=True))
    assert {name for name, yes in answering.items() if yes} == REACHES[origin]


@pytest.mark.parametrize("place", REACHES)
def test_no_place_forwards_packets(place: str) -> None:
    assert inside(place).file("/proc/sys/net/ipv4/ip_forward").content_string.strip() == "0"
