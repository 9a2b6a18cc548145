"""Trouble made on purpose, each kind gone when its block ends."""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from cellmove.model import Allocations
from cellmove.services.placement import MICROVERSION, Placement
from cellmove.services.session import Session
from tests.lab.kit.places import OUTPUTS, host_run, sql

DENIAL = "/etc/sudoers.d/zz_denied"


@contextmanager
def sudo_denied(host: str, program: str, server: str) -> Iterator[None]:
    """Cellmove's account may not run this program as nova for the copy of this server's root disk.

    Its base, which the same program reads and writes, is elsewhere. Of sudo's rules the last one
    counts.
    """
    rule, path = f"cellmove ALL=(nova) !{program} */{server}/disk.cellmove*", f"{DENIAL}-{server}"
    host_run(host, ["sh", "-c", 'umask 0337 && echo "$1" > "$2"', "sh", rule, path])
    try:
        yield
    finally:
        host_run(host, ["rm", "-f", path])


@contextmanager
def rows_held(database: str, table: str, where: str) -> Iterator[None]:
    """Nobody else can write these rows: cellmove stands still at the step that wants to."""
    server, _, schema = database.partition(".")
    client = subprocess.Popen(
        [OUTPUTS / "sql", server, "-n", "-N", "-B", schema],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with client:  # ends with its input, and the transaction with it
        assert client.stdin
        assert client.stdout
        client.stdin.write(f"BEGIN; SELECT 'held' FROM {table} WHERE {where} FOR UPDATE;\n")
        client.stdin.flush()
        assert client.stdout.readline() == "held\n"
        yield


@contextmanager
def room_taken(session: Session, host: str, resource: str = "DISK_GB") -> Iterator[None]:
    """Somebody else has claimed all that is free of this on this host in Placement."""
    placement = Placement(session.service("placement", MICROVERSION))
    query = f"SELECT uuid FROM resource_providers WHERE name = '{host}'"
    ((provider,),) = sql("api.placement", query)
    free = placement.free(provider)[resource]
    owner = (session.who.project_id, session.who.user_id)
    other = str(uuid.uuid4())
    placement.replace([Allocations(other, {provider: {resource: free}}, None, *owner)])
    try:
        yield
    finally:
        generation = placement.allocations(other).generation
        placement.replace([Allocations(other, {}, generation, *owner)])
