"""One line of the contract's matrix: how both cells stand after a step."""

from __future__ import annotations

from typing import Any

from tests.fakes.databases import CELLS
from tests.fakes.invariants import home_cell, instances
from tests.fakes.world import SERVER, World

POWER = {0: "?", 1: "on", 4: "off"}


def line(world: World, step: str, before: str, migration: str) -> str:
    """The world after a step; `before` is the vm_state before the resize, shown as `same`."""
    rows = instances(world)
    shown = [_row(rows.get(cell.name), before) for cell in CELLS]
    statuses = [_status(world, cell.uuid, migration) for cell in CELLS]
    holders = [_held(world, consumer) for consumer in (SERVER, migration)]
    return " | ".join([step, home_cell(world), *shown, *statuses, *holders])


def table(text: str) -> list[str]:
    """The lines of a table, without its comments and the spaces that make it readable."""
    lines = [" | ".join(cell.strip() for cell in each.split("|")) for each in text.splitlines()]
    return [each for each in lines if each and not each.startswith("#")]


def _row(row: dict[str, Any] | None, before: str) -> str:
    if row is None:
        return "-"
    vm_state = "same" if row["vm_state"] == before else row["vm_state"]
    hidden = "hidden" if row["hidden"] else "shown"
    power = POWER[row["power_state"]]
    return f"{vm_state} {row['task_state'] or '-'} {power} {row['host']} {hidden}"


def _status(world: World, cell: str, migration: str) -> str:
    found = world.query(cell, "SELECT status FROM migrations WHERE uuid = ?", migration)
    return found[0]["status"] if found else "-"


def _held(world: World, consumer: str) -> str:
    nodes = {
        row["uuid"]: row["host"]
        for cell in CELLS
        for row in world.query(cell.uuid, "SELECT uuid, host FROM compute_nodes")
    }
    held = world.placement.allocations(consumer).resources
    return " ".join(sorted(nodes[provider] for provider in held)) or "-"
