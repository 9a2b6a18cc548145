"""What a host decides about a guest that comes to it: machine, CPU, firmware, consoles.

All of it is asked from the host's own libvirt, and seen at the guests that nova has made there;
nothing is guessed from where the guest comes from.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import libvirt
from lxml import etree

from cellmove.errors import StepFailed
from cellmove.hosts.tree import parsed
from cellmove.hosts.xml import GuestXml

SERIAL: Final = "serial"
SERIAL_PORTS: Final = range(10000, 20000)
"""nova's `[serial_console]port_range`, unless a guest shows that it is another one."""
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
_ANYWHERE: Final = frozenset({"", "0.0.0.0", "::"}) | _LOOPBACK  # noqa: S104
_VERSIONED: Final = re.compile(r"(?:pc-(?P<pc>i440fx|q35)|(?P<other>[a-z][a-z0-9-]*?))-\d+(\.\d+)+")
_HOST_MODES: Final = ("host-model", "host-passthrough", "maximum")
_NOT_HERE: Final = frozenset(
    {
        libvirt.VIR_ERR_INVALID_ARG,
        libvirt.VIR_ERR_CONFIG_UNSUPPORTED,
        libvirt.VIR_ERR_CPU_INCOMPATIBLE,
        libvirt.VIR_ERR_INTERNAL_ERROR,
    }
)
"""How libvirt says that it has no such machine, architecture, accelerator or CPU model."""


@dataclass(frozen=True, slots=True)
class Console:
    """Where a guest's console listens on its host."""

    kind: str
    """`vnc`, `spice`, or `serial`."""
    address: str
    port: int | None
    """None: libvirt finds one at each start."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What a host answers to a guest that would come to it."""

    problems: tuple[str, ...] = ()
    """Why it cannot run the guest: one clause each."""
    machine: str = ""
    """The machine type that it has for the guest's; empty: the guest's own."""
    cpu: str = ""
    """The `<cpu>` of nova's guests there, for a guest whose own cannot be; empty: the guest's."""
    listen: Mapping[str, str] = field(default_factory=dict)
    """Kind of console -> where nova's guests there listen."""
    ports: frozenset[int] = frozenset()
    """TCP ports there that are taken."""


def consoles(guest: GuestXml) -> tuple[Console, ...]:
    """The guest's consoles that listen on the network of its host, each once."""
    found = (_console(kind, element) for kind, element in _console_elements(guest.tree()))
    return tuple(dict.fromkeys(found))


def fitted(guest: GuestXml, offer: Offer, *, here: str, there: str) -> GuestXml:
    """The guest as the host of the offer wants it; what the host does not decide stays.

    `here`, `there`: addresses of the guest's own host and of the offering one. A console that
    listens on `here` listens on `there`, unless nova's guests there show another place.

    Raises:
        StepFailed: every port for a serial console is taken.
    """

    def edit(root: etree._Element) -> None:
        if offer.machine:
            for element in root.iterfind("os/type"):
                element.set("machine", offer.machine)
        if offer.cpu:
            _replace_cpu(root, offer.cpu)
        taken = set(offer.ports)
        moved: dict[int, int] = {}
        for kind, element in list(_console_elements(root)):
            console = _console(kind, element)
            _set_address(element, _place(console, offer, here, there))
            if kind == SERIAL and console.port is not None:
                if console.port not in moved:
                    moved[console.port] = _free_port(console.port, taken)
                    taken.add(moved[console.port])
                _source(element).set("service", str(moved[console.port]))

    return guest.edited(edit)


def unplaced(guest: GuestXml, offer: Offer, here: str) -> tuple[str, ...]:
    """Consoles of which nobody can say where they would listen: one clause each."""
    lost = {
        console.address
        for console in consoles(guest)
        if console.address not in _ANYWHERE | {here} and console.kind not in offer.listen
    }
    return tuple(
        f"a console listens on {address}, which is not its host's address as nova knows it,"
        " and no guest there shows the like"
        for address in sorted(lost)
    )


def ask(connection: Any, guest: GuestXml) -> Offer:
    """What this libvirt says about the guest, without the ports that others than guests hold.

    Raises:
        libvirt.libvirtError: it says nothing.
    """
    others = tuple(_other_guests(connection, guest.uuid))
    seen = Offer(listen=places(others), ports=console_ports(others))
    try:
        machine, text = _machine(connection, guest)
    except libvirt.libvirtError as error:
        _require_answer(connection, error)
        return replace(seen, problems=(f"no machine like its {guest.machine}: {_words(error)}",))
    host = parsed(text)
    problems = list(_firmware_problems(guest, host))
    why = _cpu_problem(connection, guest, machine or guest.machine, host)
    cpu = next((found for other in others if (found := _cpu_of(other))), "") if why else ""
    if why and not cpu:
        problems.append(why)
    return replace(seen, problems=tuple(problems), machine=machine, cpu=cpu)


def places(guests: Iterable[GuestXml]) -> dict[str, str]:
    """Kind of console -> where most of these guests have it; loopback only when all have."""
    counts: dict[str, Counter[str]] = {}
    for guest in guests:
        for console in consoles(guest):
            if console.address:
                counts.setdefault(console.kind, Counter())[console.address] += 1
    return {
        kind: max(found, key=lambda address: (address not in _LOOPBACK, found[address], address))
        for kind, found in counts.items()
    }


def console_ports(guests: Iterable[GuestXml]) -> frozenset[int]:
    """Ports that these guests take when they run."""
    each = (console.port for guest in guests for console in consoles(guest))
    return frozenset(port for port in each if port is not None)


def listening() -> tuple[str, ...]:
    """The command that shows which TCP ports are listened on; anybody may."""
    return ("ss", "--no-header", "--tcp", "--listening", "--numeric")


def listened(printed: str) -> frozenset[int]:
    """The ports that `listening` gave."""
    ends = (line.split()[3].rpartition(":")[2] for line in printed.splitlines() if line.strip())
    return frozenset(int(port) for port in ends if port.isdigit())


def unversioned(machine: str) -> str:
    """Nova's name of a family of machines: `pc` of `pc-i440fx-7.2`; empty when it has none."""
    found = _VERSIONED.fullmatch(machine)
    if found is None:
        return ""
    return {"i440fx": "pc", "q35": "q35"}.get(found["pc"] or "", "") or found["other"] or ""


def _machine(connection: Any, guest: GuestXml) -> tuple[str, str]:
    """The machine to take instead of the guest's, if any, and what libvirt says about it."""
    kind, arch = guest.virt_type, guest.arch
    try:
        return "", connection.getDomainCapabilities(None, arch, guest.machine, kind, 0)
    except libvirt.libvirtError as error:
        _require_answer(connection, error)
        family = unversioned(guest.machine)
        if not family:
            raise
        return family, connection.getDomainCapabilities(None, arch, family, kind, 0)


def _require_answer(connection: Any, error: Any) -> None:
    """Raise the error again unless it is libvirt's way to say that it has no such thing."""
    if error.get_error_code() not in _NOT_HERE or not connection.isAlive():
        raise error


def _firmware_problems(guest: GuestXml, host: etree._Element) -> Iterator[str]:
    known = {value.text for value in host.iterfind("os/loader/value")}
    if guest.loader and guest.loader not in known:
        yield f"its firmware {guest.loader} is not there"


def _cpu_problem(connection: Any, guest: GuestXml, machine: str, host: etree._Element) -> str:
    cpu = guest.tree().find("cpu")
    if cpu is None:
        return ""
    mode, model = cpu.get("mode", "custom"), cpu.findtext("model")
    offered = host.find(f"cpu/mode[@name='{mode}']")
    if offered is None or offered.get("supported") != "yes":
        return f"CPU mode {mode} is not there"
    if mode in _HOST_MODES or model is None:
        return ""
    if cpu.get("check") == "none":  # Runs with what there is of the model.
        names = {each.text for each in offered.iterfind("model")}
        return "" if model in names else f"CPU model {model} is not there"
    text = etree.tostring(cpu, encoding="unicode", with_tail=False)
    try:
        asked = (None, guest.arch, machine, guest.virt_type, text, 0)
        same = connection.compareHypervisorCPU(*asked) > 0
    except libvirt.libvirtError as error:
        _require_answer(connection, error)
        return f"CPU model {model} is not there: {_words(error)}"
    return "" if same else f"CPU model {model} has features that its CPU lacks"


def _other_guests(connection: Any, server: str) -> Iterator[GuestXml]:
    for domain in connection.listAllDomains():
        try:
            guest = GuestXml(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                raise
            continue  # It went while we were looking.
        if guest.uuid != server and guest.is_novas:
            yield guest


def _cpu_of(guest: GuestXml) -> str:
    cpu = guest.tree().find("cpu")
    return "" if cpu is None else etree.tostring(cpu, encoding="unicode", with_tail=False)


def _replace_cpu(root: etree._Element, text: str) -> None:
    """Another CPU of the same topology."""
    old, new = root.find("cpu"), parsed(text)
    for element in [*new.iterfind("topology"), *new.iterfind("numa")]:
        new.remove(element)
    if old is not None:
        new.extend(old.findall("topology"))
        root.replace(old, new)


def _console_elements(root: etree._Element) -> Iterator[tuple[str, etree._Element]]:
    for element in root.iterfind("devices/graphics"):
        yield element.get("type", ""), element
    for path in ("devices/serial[@type='tcp']", "devices/console[@type='tcp']"):
        for element in root.iterfind(path):
            if _source(element).get("mode", "bind") == "bind":
                yield SERIAL, element


def _console(kind: str, element: etree._Element) -> Console:
    if kind == SERIAL:
        source = _source(element)
        port = source.get("service", "")
        return Console(kind, source.get("host", ""), int(port) if port.isdigit() else None)
    listens = (each.get("address", "") for each in element.iterfind("listen"))
    return Console(kind, element.get("listen", "") or next(listens, ""), None)


def _source(element: etree._Element) -> etree._Element:
    found = element.find("source")
    return etree.SubElement(element, "source") if found is None else found


def _set_address(element: etree._Element, address: str) -> None:
    if not address:
        return
    if element.tag == "graphics":
        element.set("listen", address)
        for listen in element.iterfind("listen[@type='address']"):
            listen.set("address", address)
    else:
        _source(element).set("host", address)


def _place(console: Console, offer: Offer, here: str, there: str) -> str:
    if not console.address:
        return ""
    own = there if console.address == here else console.address
    return offer.listen.get(console.kind, own)


def _free_port(wish: int, taken: Collection[int]) -> int:
    """Nova takes the lowest free port; the highest is the last that it will want, too."""
    usual = wish in SERIAL_PORTS
    ports = reversed(SERIAL_PORTS) if usual else range(wish, 1 << 16)
    for port in ports:
        if port not in taken:
            return port
    raise StepFailed(
        "There is no free port for a serial console.",
        f"All from {SERIAL_PORTS[0] if usual else wish} on are taken.",
        "Choose another host.",
    )


def _words(error: Any) -> str:
    return str(error.get_error_message()).removeprefix("invalid argument: ")
