"""What the host decides: asked from its libvirt and from its guests, and written into a guest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import libvirt
import pytest

from cellmove.errors import StepFailed
from cellmove.hosts.machine import (
    Console,
    Offer,
    ask,
    console_ports,
    consoles,
    fitted,
    listened,
    places,
    unplaced,
    unversioned,
)
from cellmove.hosts.xml import NOVA, GuestXml

CAPABILITIES = (Path(__file__).parents[2] / "data" / "xml" / "host-capabilities.xml").read_text()
HERE, THERE = "10.1.0.11", "10.2.0.22"
SERVER = "11111111-2222-3333-4444-555555555555"
CONSOLES = """
    <graphics type='vnc' port='-1' autoport='yes' listen='{address}'>
      <listen type='address' address='{address}'/>
    </graphics>
    <serial type='tcp'><source mode='bind' host='{address}' service='{port}'/></serial>
    <console type='tcp'><source mode='bind' host='{address}' service='{port}'/></console>
"""


class Said(libvirt.libvirtError):  # type: ignore[misc]
    """An error as libvirt raises it."""

    def __init__(self, code: int, words: str) -> None:
        super().__init__(words)
        self._code, self._words = code, words

    def get_error_code(self) -> int:
        return self._code

    def get_error_message(self) -> str:
        return self._words


@dataclass
class FakeDomain:
    """A guest that is there already."""

    xml: str

    def XMLDesc(self, _flags: int) -> str:  # noqa: N802
        if not self.xml:
            raise Said(libvirt.VIR_ERR_NO_DOMAIN, "it went")
        return self.xml


@dataclass
class FakeLibvirt:
    """A host's libvirt: what it has, and what it says to the rest."""

    machines: frozenset[str] = frozenset({"pc-i440fx-7.2", "pc"})
    compared: Mapping[str, int] = field(default_factory=dict)
    guests: tuple[str, ...] = ()
    alive: bool = True
    asked: list[tuple[Any, ...]] = field(default_factory=list)

    def getDomainCapabilities(  # noqa: N802
        self, _emulator: None, arch: str, machine: str, kind: str, _flags: int
    ) -> str:
        self.asked.append((arch, machine, kind))
        if machine not in self.machines:
            words = f"invalid argument: the machine '{machine}' is not supported"
            raise Said(libvirt.VIR_ERR_INVALID_ARG, words)
        return CAPABILITIES

    def compareHypervisorCPU(self, *asked: Any) -> int:  # noqa: N802
        text = asked[4]
        for model, answer in self.compared.items():
            if f">{model}<" in text:
                return answer
        raise Said(libvirt.VIR_ERR_INTERNAL_ERROR, "Unknown CPU model")

    def listAllDomains(self) -> list[FakeDomain]:  # noqa: N802
        return [FakeDomain(xml) for xml in self.guests]

    def isAlive(self) -> bool:  # noqa: N802
        return self.alive


def guest(
    *,
    machine: str = "pc-i440fx-7.2",
    cpu: str = "",
    os: str = "",
    devices: str = "",
    uuid: str = SERVER,
    novas: bool = True,
) -> GuestXml:
    mark = f"<metadata><n:instance xmlns:n='{NOVA}'/></metadata>" if novas else ""
    return GuestXml(
        f"<domain type='qemu'><name>g</name><uuid>{uuid}</uuid>{mark}<vcpu>1</vcpu>"
        f"<os><type arch='x86_64' machine='{machine}'>hvm</type>{os}</os>{cpu}"
        f"<devices>{devices}</devices></domain>"
    )


def talking(address: str, port: int = 10000, **more: Any) -> GuestXml:
    return guest(devices=CONSOLES.format(address=address, port=port), **more)


def other(number: int, **more: Any) -> str:
    return guest(uuid=f"99999999-0000-0000-0000-{number:012}", **more).text


def test_consoles_are_told_with_their_kind_and_place() -> None:
    assert consoles(talking(HERE)) == (
        Console("vnc", HERE, None),
        Console("serial", HERE, 10000),
    )


def test_a_pty_is_no_console_on_the_network() -> None:
    assert consoles(guest(devices="<serial type='pty'/><console type='pty'/>")) == ()


def test_a_console_on_the_hosts_own_address_is_on_the_targets_own() -> None:
    moved = fitted(talking(HERE), Offer(), here=HERE, there=THERE)
    assert HERE not in moved.text
    assert {console.address for console in consoles(moved)} == {THERE}


@pytest.mark.parametrize("address", ["0.0.0.0", "127.0.0.1", "::"])
def test_a_console_everywhere_or_on_loopback_stays_so(address: str) -> None:
    moved = fitted(talking(address), Offer(), here=HERE, there=THERE)
    assert {console.address for console in consoles(moved)} == {address}


def test_novas_guests_there_show_where_consoles_listen() -> None:
    offer = Offer(listen={"vnc": "0.0.0.0", "serial": "10.9.9.9"})
    vnc, serial = consoles(fitted(talking(HERE), offer, here=HERE, there=THERE))
    assert (vnc.address, serial.address) == ("0.0.0.0", "10.9.9.9")


def test_a_guest_without_a_console_gets_none() -> None:
    plain = guest()
    moved = fitted(plain, Offer(listen={"vnc": THERE}), here=HERE, there=THERE)
    assert moved.tree().find("devices/graphics") is None


def test_a_console_on_another_address_has_a_place_only_where_guests_show_one() -> None:
    strange = talking("172.16.0.1")
    (reason,) = unplaced(strange, Offer(), HERE)
    assert "172.16.0.1" in reason
    assert unplaced(strange, Offer(listen={"vnc": THERE, "serial": THERE}), HERE) == ()
    assert unplaced(talking(HERE), Offer(), HERE) == ()


def test_a_serial_console_gets_a_port_that_is_free_there() -> None:
    offer = Offer(ports=frozenset({19999, 19998, 19996}))
    moved = fitted(talking(HERE, 19999), offer, here=HERE, there=THERE)
    assert console_ports([moved]) == {19997}
    serial, console = (moved.tree().find(f"devices/{tag}/source") for tag in ("serial", "console"))
    assert serial is not None
    assert console is not None
    assert serial.get("service") == console.get("service") == "19997"


def test_two_serial_consoles_get_two_ports() -> None:
    two = guest(
        devices="".join(
            f"<serial type='tcp'><source mode='bind' host='{HERE}' service='{port}'/></serial>"
            for port in (10000, 10001)
        )
    )
    assert console_ports([fitted(two, Offer(), here=HERE, there=THERE)]) == {19999, 19998}


def test_a_port_outside_novas_usual_range_is_looked_for_from_there_on() -> None:
    offer = Offer(ports=frozenset({30000, 30001}))
    assert console_ports([fitted(talking(HERE, 30000), offer, here=HERE, there=THERE)]) == {30002}


def test_no_free_port_is_told() -> None:
    offer = Offer(ports=frozenset(range(10000, 20000)))
    with pytest.raises(StepFailed, match="no free port"):
        fitted(talking(HERE), offer, here=HERE, there=THERE)


def test_fitting_twice_is_fitting_once() -> None:
    offer = Offer(machine="pc", cpu="<cpu mode='host-model'/>", listen={"vnc": THERE})
    once = fitted(guest(cpu="<cpu mode='host-passthrough'/>"), offer, here=HERE, there=THERE)
    assert fitted(once, offer, here=HERE, there=THERE) == once


def test_most_guests_show_the_place_and_loopback_counts_least() -> None:
    many = [talking("127.0.0.1"), talking("127.0.0.1"), talking(THERE)]
    assert places(many) == {"vnc": THERE, "serial": THERE}
    assert places([talking("127.0.0.1")])["vnc"] == "127.0.0.1"
    assert places([guest()]) == {}


def test_a_host_that_has_all_offers_the_guests_own_machine() -> None:
    offer = ask(FakeLibvirt(), guest(cpu="<cpu><topology sockets='1'/></cpu>"))
    assert offer == Offer()


def test_a_machine_that_is_not_there_becomes_the_one_that_nova_would_take() -> None:
    connection = FakeLibvirt()
    offer = ask(connection, guest(machine="pc-i440fx-9.9"))
    assert (offer.machine, offer.problems) == ("pc", ())
    moved = fitted(guest(machine="pc-i440fx-9.9"), offer, here=HERE, there=THERE)
    assert moved.machine == "pc"
    assert connection.asked[-1] == ("x86_64", "pc", "qemu")


@pytest.mark.parametrize("machine", ["pc-q35-9.9", "strange"])
def test_a_machine_without_any_like_it_is_a_problem(machine: str) -> None:
    (problem,) = ask(FakeLibvirt(), guest(machine=machine)).problems
    assert machine in problem
    assert "not supported" in problem


@pytest.mark.parametrize(
    ("machine", "family"),
    [
        ("pc-i440fx-7.2", "pc"),
        ("pc-q35-7.2", "q35"),
        ("virt-7.2", "virt"),
        ("s390-ccw-virtio-7.2", "s390-ccw-virtio"),
        ("pc-i440fx-rhel7.6.0", ""),
        ("pc", ""),
        ("", ""),
    ],
)
def test_families_of_machines_are_named_as_nova_names_them(machine: str, family: str) -> None:
    assert unversioned(machine) == family


@pytest.mark.parametrize(
    ("cpu", "problem"),
    [
        ("<cpu mode='host-model'/>", ""),
        ("<cpu mode='host-passthrough'/>", "host-passthrough is not there"),
        ("<cpu mode='custom' check='none'><model>qemu64</model></cpu>", ""),
        ("<cpu mode='custom' check='none'><model>Bogus</model></cpu>", "Bogus is not there"),
        ("<cpu mode='custom' check='partial'><model>kvm64</model></cpu>", ""),
        ("<cpu mode='custom' check='partial'><model>Westmere</model></cpu>", "lacks"),
        ("<cpu mode='custom' check='partial'><model>Bogus</model></cpu>", "Unknown CPU"),
    ],
)
def test_the_guests_cpu_must_be_there(cpu: str, problem: str) -> None:
    connection = FakeLibvirt(compared={"kvm64": 2, "Westmere": 0})
    found = ask(connection, guest(cpu=cpu)).problems
    assert [problem in each for each in found] == ([True] if problem else [])


def test_a_cpu_that_is_not_there_becomes_that_of_novas_guests_there() -> None:
    kept = "<cpu mode='host-passthrough'><topology sockets='4'/></cpu>"
    policy = "<cpu mode='host-model'><topology sockets='9'/></cpu>"
    offer = ask(FakeLibvirt(guests=(other(1, cpu=policy),)), guest(cpu=kept))
    assert offer.problems == ()
    cpu = fitted(guest(cpu=kept), offer, here=HERE, there=THERE).tree().find("cpu")
    assert cpu is not None
    assert cpu.get("mode") == "host-model"
    assert [each.get("sockets") for each in cpu.iterfind("topology")] == ["4"]


def test_guests_that_nova_did_not_make_show_nothing() -> None:
    text = talking(THERE, uuid="99999999-0000-0000-0000-000000000001", novas=False).text
    assert ask(FakeLibvirt(guests=(text,)), guest()) == Offer()


def test_novas_guests_tell_places_and_ports_and_one_that_goes_is_left_out() -> None:
    text = talking(THERE, 10007, uuid="99999999-0000-0000-0000-000000000001").text
    mine = talking("10.3.3.3", 10008).text
    offer = ask(FakeLibvirt(guests=("", text, mine)), guest())
    assert offer == Offer(listen={"vnc": THERE, "serial": THERE}, ports=frozenset({10007}))


@pytest.mark.parametrize(
    ("path", "problems"), [("/usr/share/OVMF/OVMF_CODE_4M.fd", 0), ("/usr/share/old.fd", 1)]
)
def test_the_guests_firmware_must_be_there(path: str, problems: int) -> None:
    assert len(ask(FakeLibvirt(), guest(os=f"<loader>{path}</loader>")).problems) == problems


def test_a_libvirt_that_does_not_answer_says_nothing_about_the_guest() -> None:
    with pytest.raises(libvirt.libvirtError):
        ask(FakeLibvirt(alive=False), guest(machine="pc-q35-9.9"))


def test_listening_ports_are_read() -> None:
    printed = (
        "LISTEN 0      128         0.0.0.0:22    0.0.0.0:*\n"
        "LISTEN 0      1        10.98.2.12:5900  0.0.0.0:*\n"
        "LISTEN 0      128            [::]:10022    [::]:*\n"
    )
    assert listened(printed) == {22, 5900, 10022}
