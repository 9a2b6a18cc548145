"""What a step leaves when its undo resists, as commands to paste: for a person, never run by us.

They are made of the move and of what the step's first look saved, for by then nothing may answer.
SQL says at its end in which database it belongs; a host's files are where nova keeps them unless
its `instances_path` says otherwise.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping, Sequence

from cellmove.dbcopy.tables import BY_NAME, DELETION_ORDER, EVENTS
from cellmove.hosts.disks import HALF
from cellmove.model import Move
from cellmove.services.neutron import by_hand
from cellmove.steps.base import Saved, Side, Step, host_of, other

INSTANCES = "/var/lib/nova/instances"
"""nova's default (`instances_path`)."""
_API = "the API database"
_MADE = ("migrations", "instance_system_metadata")
"""Tables in which a step makes rows where there were none."""

Way = Callable[[Move, Saved], Sequence[str]]


def commands(step: Step, saved: Saved) -> tuple[str, ...]:
    """How to take a step back by hand; empty for one that cannot be taken back at all."""
    if not step.reversible:
        return ()
    way = _WAYS.get(step.name)
    return tuple(way(step.move, saved) if way else _look(step.move))


def _quoted(value: object) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, bool | int | float):
        return str(int(value) if isinstance(value, bool) else value)
    text = str(value).replace("\\", "\\\\").replace("'", "''")
    return f"'{text}'"


def _found(move: Move, table: str) -> str:
    if table == "instances":
        return f"uuid = {_quoted(move.server)}"
    if table == "migrations":
        return f"uuid = {_quoted(move.migration)}"
    more = " AND `key` = 'old_vm_state'" if table == "instance_system_metadata" else ""
    return f"instance_uuid = {_quoted(move.server)}{more}"


def _sql(move: Move, saved: Saved, database: str) -> list[str]:
    """The statements that put back what a step has overwritten, newest table first."""
    found = []
    for key, kept in reversed(list(saved.items())):
        statement = _statement(move, key, kept)
        found += [f"{statement};  -- {database}"] * bool(statement)
    look = f"SELECT * FROM instances WHERE {_found(move, 'instances')};  -- {database}"
    return found or [look]


def _statement(move: Move, key: str, kept: Sequence[str]) -> str:
    action = f"(SELECT id FROM instance_actions WHERE request_id = {_quoted(move.request_id)})"
    how, _, event = key.partition("-")
    if key == "action":
        return f"DELETE FROM instance_actions WHERE request_id = {_quoted(move.request_id)}"
    if how == "started":
        where = f"action_id IN {action} AND event = {_quoted(event)}"
        return "" if kept else f"DELETE FROM instance_actions_events WHERE {where}"
    if how == "finished":
        where = f"action_id IN {action} AND event = {_quoted(event)}"
        return f"UPDATE instance_actions_events SET result = NULL, finish_time = NULL WHERE {where}"
    if kept:
        old = json.loads(kept[0])
        if not isinstance(old, Mapping):
            return ""
        values = ", ".join(f"`{name}` = {_quoted(value)}" for name, value in old.items())
        return f"UPDATE {key} SET {values} WHERE {_found(move, key)}"
    return f"DELETE FROM {key} WHERE {_found(move, key)}" if key in _MADE else ""


def _in_source(move: Move, saved: Saved) -> list[str]:
    return _sql(move, saved, move.source.cell.name)


def _in_target(move: Move, saved: Saved) -> list[str]:
    return _sql(move, saved, move.target.cell.name)


def _in_api(move: Move, saved: Saved) -> list[str]:
    return _sql(move, saved, _API)


def _on(side: Side, command: str) -> Way:
    """A command on one side's host, with the server's id in place of `{server}`."""

    def way(move: Move, _saved: Saved) -> list[str]:
        told = command.format(server=move.server, directory=f"{INSTANCES}/{move.server}")
        return [f"ssh {host_of(move, side).name} sudo {told}"]

    return way


def _reboot(move: Move, _saved: Saved) -> list[str]:
    """By that nova defines a guest anew, plugs its ports and connects its volumes."""
    return [f"openstack server reboot --hard {move.server}"]


def _compared(move: Move, _saved: Saved) -> list[str]:
    return [f"cellmove compare {move.server}"]


def _rows_of_the_copy(move: Move, _saved: Saved) -> list[str]:
    server, cell = _quoted(move.server), move.target.cell.name
    actions = f"(SELECT id FROM instance_actions WHERE instance_uuid = {server})"
    return [
        f"DELETE FROM {name} WHERE "
        + (f"action_id IN {actions}" if name == EVENTS else f"{BY_NAME[name].key} = {server}")
        + f";  -- {cell}"
        for name in DELETION_ORDER
    ]


def _files(move: Move, _saved: Saved) -> list[str]:
    there = f"{INSTANCES}/{move.server}"
    names = [f"{there}/{disk.name}" for disk in move.disks]
    names += [f"{name}.cellmove" for name in names]
    return [f"ssh {move.target.name} sudo rm -f -- {shlex.join(names)}", *_notes(move, _saved)]


def _notes(move: Move, _saved: Saved) -> list[str]:
    listed = f"virsh checkpoint-list --name {move.server} | grep ^cellmove-"
    each = f"xargs -r -n 1 virsh checkpoint-delete {move.server}"
    return [f"ssh {move.source.name} sudo sh -c {shlex.quote(f'{listed} | {each}')}"]


def _bindings(move: Move, _saved: Saved) -> list[str]:
    host = move.target.name
    return [by_hand("DELETE", port.id, host) for port in move.ports] or _look(move)


def _activated(side: Side) -> Way:
    def way(move: Move, _saved: Saved) -> list[str]:
        host = host_of(move, other(side)).name
        return [by_hand("PUT", port.id, host, activate=True) for port in move.ports] or _look(move)

    return way


def _ports(side: Side, *, plug: bool) -> Way:
    def way(move: Move, _saved: Saved) -> list[str]:
        host = host_of(move, side).name
        gone = [
            f"ssh {host} sudo ovs-vsctl --if-exists del-port br-int {port.device}"
            for port in move.ports
        ]
        return (_reboot(move, _saved) if plug else gone) or _look(move)

    return way


def _attachments(move: Move, _saved: Saved) -> list[str]:
    """Cinder chose the ids: the right one is seen in the list."""
    cinder = "openstack --os-volume-api-version 3.44 volume attachment"
    listed = [f"{cinder} list --volume-id {volume.id}" for volume in move.volumes]
    return [*listed, f"{cinder} delete ID  # of server {move.server}, the one not named by its row"]


def _mapped(side: Side) -> Way:
    def way(move: Move, saved: Saved) -> list[str]:
        cell = host_of(move, side).cell.name
        named = "" if saved.get("rows") is None else "deleted = 0, "
        return [
            f"UPDATE block_device_mapping SET {named}attachment_id = {_quoted(volume.attachment)}"
            f" WHERE uuid = {_quoted(volume.mapping)};  -- {cell}"
            for volume in move.volumes
        ] or _look(move)

    return way


def _handed_back(move: Move, _saved: Saved) -> list[str]:
    return [
        f"openstack resource provider allocation show {move.migration}",
        *_allocated(move, move.server),
        f"openstack resource provider allocation delete {move.migration}",
    ]


def _handed_over(move: Move, _saved: Saved) -> list[str]:
    return [
        f"openstack resource provider allocation delete {move.server}",
        *_allocated(move, move.migration),
    ]


def _unclaimed(move: Move, _saved: Saved) -> list[str]:
    return [f"openstack resource provider allocation delete {move.server}"]


def _allocated(move: Move, consumer: str) -> list[str]:
    flavor = move.old_flavor
    amounts = {
        "VCPU": flavor.vcpus,
        "MEMORY_MB": flavor.memory_mb,
        "DISK_GB": (0 if move.boots_from_volume else flavor.root_gb) + flavor.ephemeral_gb,
    }
    told = ",".join(f"{name}={amount}" for name, amount in amounts.items() if amount)
    owner = f"--project-id {move.project_id} --user-id {move.user_id}"
    given = f"--allocation rp={move.source.provider},{told}"
    return [f"openstack resource provider allocation set {owner} {given} {consumer}"]


def _look(move: Move) -> list[str]:
    return [f"openstack server show {move.server}"]


_WAYS: Mapping[str, Way] = {
    # Records.
    "guard-server": _in_source,
    "open-migration": _in_source,
    "write-source-claim": _in_source,
    "begin-at-source": _in_source,
    "finish-at-source": _in_source,
    "hide-source": _in_source,
    "show-source": _in_source,
    "close-source-events": _in_source,
    "carry-state-home": _in_source,
    "finish-revert": _in_source,
    "write-target-claim": _in_target,
    "begin-at-target": _in_target,
    "finish-at-target": _in_target,
    "show-target": _in_target,
    "hide-target": _in_target,
    "close-target-events": _in_target,
    "begin-confirm": _in_target,
    "begin-revert": _in_target,
    "point-mapping": _in_api,
    "point-mapping-home": _in_api,
    "update-request-spec": _in_api,
    "restore-request-spec": _in_api,
    "copy-records": _rows_of_the_copy,
    "carry-changes-over": _compared,
    "carry-history-over": _compared,
    "carry-changes-home": _compared,
    "carry-history-home": _compared,
    "compare-records": _compared,
    # Placement.
    "hold-source-allocation": _handed_back,
    "claim-target": _unclaimed,
    "return-allocation": _handed_over,
    # Neutron and Open vSwitch.
    "bind-ports": _bindings,
    "activate-target-bindings": _activated("target"),
    "activate-source-bindings": _activated("source"),
    "unplug-source-ports": _ports("source", plug=True),
    "unplug-target-ports": _ports("target", plug=True),
    "plug-target-ports": _ports("target", plug=False),
    "plug-source-ports": _ports("source", plug=False),
    # Cinder, and what nova keeps of it.
    "reserve-target-attachments": _attachments,
    "reserve-source-attachments": _attachments,
    "release-source-attachments": _attachments,
    "release-shared-attachments": _attachments,
    "release-target-attachments": _attachments,
    "export-to-target": _attachments,
    "export-to-source": _attachments,
    "export-shared-to-target": _attachments,
    "note-target-attachments": _mapped("target"),
    "note-source-attachments": _mapped("source"),
    "store-target-connections": _mapped("target"),
    "store-source-connections": _mapped("source"),
    "store-shared-connections": _mapped("target"),
    "carry-volumes-home": _mapped("source"),
    "disconnect-source-volumes": _reboot,
    "disconnect-target-volumes": _reboot,
    "connect-target-volumes": _on("target", "iscsiadm -m session -P 3"),
    "connect-source-volumes": _on("source", "iscsiadm -m session -P 3"),
    "connect-shared-volumes": _on("target", "findmnt --types nfs,nfs4"),
    # Guests and their files.
    "define-target-guest": _on("target", "virsh undefine --keep-nvram {server}"),
    "define-source-guest": _on("source", "virsh undefine --keep-nvram {server}"),
    "place-target-volumes": _on("target", "virsh dumpxml --inactive {server}"),
    "place-source-volumes": _on("source", "virsh dumpxml --inactive {server}"),
    "stop-source-guest": _on("source", "virsh start {server}"),
    "stop-target-guest": _on("target", "virsh start {server}"),
    "launch-target-guest": _on("target", "virsh destroy {server}"),
    "start-target-guest": _on("target", "virsh destroy {server}"),
    "start-source-guest": _on("source", "virsh destroy {server}"),
    "forget-source-guest": _reboot,
    "forget-target-guest": _reboot,
    "bring-bases": _on("target", f"rm -f -- {{directory}}/disk.base{HALF}"),
    "restore-source-bases": _on("source", "ls -l -- {directory}"),
    "keep-source-bases": _on("source", "sh -c 'rm -f -- {directory}/base-*'"),
    "make-target-directory": _on("target", "rm -r -- {directory}"),
    "precopy-disks": _files,
    "copy-disks": _files,
    "forget-writes": _notes,
    "copy-firmware": _on("target", "virsh undefine --nvram {server}"),
}
