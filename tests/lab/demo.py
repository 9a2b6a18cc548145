"""`make demo`: nova makes a server, cellmove moves it to the other cell, and it proves the same."""

from __future__ import annotations

import subprocess
import time

from rich.console import Console
from rich.table import Table

from tests.lab.kit.guest import GuestWatch
from tests.lab.kit.nova import Nova, lab_session
from tests.lab.kit.places import OUTPUTS, conductor_namespace
from tests.lab.kit.traces import CELLS, rows

NAME = "demo"
SOURCE, TARGET = "cmp1a", "cmp2a"
SHOWN = ("hidden", "vm_state", "task_state", "power_state", "host", "memory_mb")

console = Console(highlight=False, soft_wrap=True)


def main() -> None:
    """Tell the story; an assertion that fails ends it with exit code 1."""
    with conductor_namespace():
        nova = Nova(lab_session(project="demo"))
        chapter("nova makes a server in cell1")
        clear(nova)
        server = nova.boot(NAME, SOURCE)
        nova.wait_port(server, SOURCE)
        guest = GuestWatch(server, nova.ports(server)[0]["mac_address"])
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
        farewell()


def chapter(title: str) -> None:
    """A heading."""
    console.print()
    console.rule(f"[bold]{title}", align="left")


def cellmove(*argv: str) -> None:
    """Show a command and run it, as an operator would."""
    console.print(f"[bold]$ cellmove {' '.join(argv)}[/]")
    subprocess.run([str(OUTPUTS / "cellmove"), *argv], check=True)


def clear(nova: Nova) -> None:
    """Delete the server of an earlier demo."""
    named = f"display_name = '{NAME}' AND deleted = 0"
    for cell, schema in CELLS.items():
        for row in rows(f"{cell}.{schema}", "instances", named):
            if not row["hidden"]:
                nova.delete(row["uuid"])


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


def farewell() -> None:
    """How to go on."""
    chapter("The lab is still up")
    console.print(
        "lab/cellmove moves               what was done; `lab/cellmove show MOVE`: step by step\n"
        "lab/cellmove resize demo         move it back: the other cell is found by itself\n"
        "lab/openstack server list        nova's own view\n"
        "lab/enter cmp2a virsh list       inside a hypervisor\n"
        "lab/sql cell2 nova_cell2         a cell's database\n"
        "make lab-status, make lab-down   how it stands; end it"
    )


if __name__ == "__main__":
    main()
