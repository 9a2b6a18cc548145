"""`make demo`: nova makes a server with two ports and two volumes, cellmove moves it to the other
cell, and it proves the same.
"""

from __future__ import annotations

import subprocess
import time

from rich.console import Console
from rich.table import Table

from tests.lab.kit.guest import GuestWatch
from tests.lab.kit.nova import Nova, lab_session
from tests.lab.kit.places import OUTPUTS, conductor_namespace
from tests.lab.kit.traces import CELLS, rows
from tests.lab.kit.volumes import Volumes, attachments, records_found

NAME = "demo"
VOLUMES = ("demo-data", "demo-logs")
SOURCE, TARGET = "cmp1a", "cmp2a"
SHOWN = ("hidden", "vm_state", "task_state", "power_state", "host", "memory_mb")

console = Console(highlight=False, soft_wrap=True)


def main() -> None:
    """Tell the story; an assertion that fails ends it with exit code 1."""
    with conductor_namespace():
        session = lab_session(project="demo")
        nova = Nova(session)
        volumes = Volumes(session, nova)
        chapter("nova makes a server in cell1, with two ports and two volumes")
        clear(nova, volumes)
        server = nova.boot(NAME, SOURCE, ports=2)
        for name in VOLUMES:
            volumes.attach(server, volumes.make(name=name))
        nova.wait_port(server, SOURCE)
        guest = GuestWatch(server, first_mac(server))
        guest.wait_ready(SOURCE, 0)
        time.sleep(5)
        show_cells(server)

        chapter("The plan: nothing is changed")
        cellmove("resize", NAME, "--flavor", "c2", "--to-host", TARGET, "--dry-run")

        chapter("The move, while nova keeps running around it")
        begun = time.time()
        cellmove("resize", NAME, "--flavor", "c2", "--to-host", TARGET)
        show_cells(server)
        beat = guest.wait_ready(TARGET, begun)

        chapter("The confirm: the source goes")
        cellmove("confirm", NAME, "--yes")
        show_cells(server)

        chapter("The proof")
        prove(nova, guest, begun, beat.at)
        prove_neighbours(nova, volumes, guest)
        farewell()


def chapter(title: str) -> None:
    """A heading."""
    console.print()
    console.rule(f"[bold]{title}", align="left")


def cellmove(*argv: str) -> None:
    """Show a command and run it, as an operator would."""
    console.print(f"[bold]$ cellmove {' '.join(argv)}[/]")
    subprocess.run([str(OUTPUTS / "cellmove"), *argv], check=True)


def clear(nova: Nova, volumes: Volumes) -> None:
    """Delete the server of an earlier demo, and its volumes."""
    named = f"display_name = '{NAME}' AND deleted = 0"
    for cell, schema in CELLS.items():
        for row in rows(f"{cell}.{schema}", "instances", named):
            if not row["hidden"]:
                nova.delete(row["uuid"])
    for name in VOLUMES:
        for volume in volumes.named(name):
            volumes.delete(volume)


def first_mac(server: str) -> str:
    """MAC address of the server's first interface, on which its guest is heard."""
    for cell, schema in CELLS.items():
        mine = f"instance_uuid = '{server}' AND deleted = 0 ORDER BY id LIMIT 1"
        for row in rows(f"{cell}.{schema}", "virtual_interfaces", mine):
            return str(row["address"]).partition("/")[0]
    raise AssertionError(server)


def show_cells(server: str) -> None:
    """The server's row in either cell's database."""
    table = Table("cell", *SHOWN)
    for cell, schema in CELLS.items():
        found = rows(f"{cell}.{schema}", "instances", f"uuid = '{server}' AND deleted = 0")
        cells = [str(found[0][name]) for name in SHOWN] if found else ["-"] * len(SHOWN)
        table.add_row(cell, *cells)
    console.print(table)


def prove(nova: Nova, guest: GuestWatch, begun: float, up: float) -> None:
    """The guest is the same one: its data, its address, its network."""
    shown = nova.show(guest.server)
    record = guest.record_found(TARGET)
    assert (shown["status"], shown["OS-EXT-SRV-ATTR:host"]) == ("ACTIVE", TARGET)
    assert (record or 0) >= 5, "the records on the root disk do not go on"
    assert guest.golden(TARGET), "the golden file has changed"
    assert guest.heard_from(up) == {TARGET}, "the guest runs elsewhere too"
    console.print(f"- nova shows it ACTIVE on {TARGET}, with its uuid {guest.server}")
    console.print(f"- its root disk goes on after record {record}; its golden file is unchanged")
    console.print(f"- its heartbeat (MAC {guest.mac}) is heard on {TARGET}'s port, and only there")
    silence = guest.longest_silence_seconds(begun - 5)
    console.print(f"- it was silent for {silence:.1f} s, its own boot without KVM included")


def prove_neighbours(nova: Nova, volumes: Volumes, guest: GuestWatch) -> None:
    """Both ports work at the target only, both volumes are attached there only, with their data."""
    nova.wait_port(guest.server, TARGET)
    console.print(f"- its {len(nova.ports(guest.server))} ports are ACTIVE on {TARGET}")
    mine = volumes.shown(guest.server)
    assert attachments(guest.server) == {volume: [("attached", TARGET)] for volume in mine}
    found = records_found(guest, TARGET, mine)
    assert all(found.values()), f"the records on the volumes do not go on: {found}"
    told = ", ".join(str(record) for record in found.values())
    console.print(f"- its {len(mine)} volumes are attached to {TARGET}; they go on after {told}")


def farewell() -> None:
    """How to go on."""
    chapter("The lab is still up")
    console.print(
        "lab/cellmove moves               what was done; `lab/cellmove show MOVE`: step by step\n"
        "lab/cellmove resize demo --to-cell cell1   move it back (confirm it first)\n"
        "lab/openstack server list        nova's own view\n"
        "lab/enter cmp2a virsh list       inside a hypervisor\n"
        "lab/sql cell2 nova_cell2         a cell's database\n"
        "make lab-status, make lab-down   how it stands; end it"
    )


if __name__ == "__main__":
    main()
