"""Cinder: a server's volumes and their attachments, which say what may be connected where."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cellmove.errors import StepFailed
from cellmove.model import Attachment, VolumeState
from cellmove.services.service import Answer, Service

MICROVERSION = "3.44"
"""Since Queens: attachments that are reserved, connected and completed one after the other."""
PAGE = "1000"
"""Attachments of one answer, at most; a cloud may give fewer."""
GONE = 404
MISFIT = (404, 406)
"""What a Cinder without that microversion answers: no such path, no such version."""


class Cinder:
    """`cloud.Volumes` over HTTP; the service must be pinned to `MICROVERSION`.

    Wants an administrator's token, and a service token beside it: without one an attachment in
    use is not deleted (CVE-2023-2088). Cinder 21: api/v3/attachments.py, volume/api.py.
    """

    def __init__(self, service: Service) -> None:
        self._service = service

    def has_attachments(self) -> bool:
        """Whether Cinder knows attachments as we use them (`MICROVERSION`)."""
        answer = self._service.get("/attachments", limit="1")
        if answer.status not in MISFIT:
            _done(answer, "Cinder did not say whether it has attachments.")
        return answer.ok

    def volume(self, volume: str) -> VolumeState | None:
        """A volume's state; None when there is no such volume."""
        answer = self._service.get(f"/volumes/{volume}")
        if answer.status == GONE:
            return None
        found = _done(answer, f"Volume {volume} could not be read.")["volume"]
        return VolumeState(
            status=found["status"],
            encrypted=bool(found.get("encrypted")),
            multiattach=bool(found.get("multiattach")),
            migrating=bool(found.get("migration_status")),
            zone=found.get("availability_zone") or "",
        )

    def attachments(self, server: str) -> tuple[Attachment, ...]:
        """All attachments to this server, reserved ones too, ordered by id."""
        answer = self._service.get("/attachments", instance_id=server, all_tenants="1")
        found = _done(answer, f"The attachments of {server} could not be read.")["attachments"]
        mine = (each for each in found if each.get("instance", server) == server)
        return tuple(sorted(map(_attachment, mine), key=lambda attachment: attachment.id))

    def all_attachments(self) -> Mapping[str, tuple[Attachment, ...]]:
        """Server -> its attachments, of all that Cinder knows; those of no server are left out."""
        found: dict[str, tuple[Attachment, ...]] = {}
        after = ""
        while True:
            more = {"marker": after} if after else {}
            answer = self._service.get("/attachments", all_tenants="1", limit=PAGE, **more)
            page = _done(answer, "The attachments could not be read.")["attachments"]
            if not page or page[-1]["id"] == after:
                return found
            for each in page:
                if server := each.get("instance"):
                    found[server] = (*found.get(server, ()), _attachment(each))
            after = str(page[-1]["id"])

    def connection_info(self, attachment: str) -> Mapping[str, object]:
        """How a host reaches the volume, in the form that nova stores.

        Empty while the attachment is only reserved, or when it is gone. It may hold a secret.
        nova 26: volume/cinder.py:_translate_attachment_ref.
        """
        answer = self._service.get(f"/attachments/{attachment}")
        if answer.status == GONE:
            return {}
        what = f"Attachment {attachment} could not be read."
        return _info(_done(answer, what)["attachment"])

    def reserve(self, volume: str, server: str) -> None:
        """Make an attachment without a connector; each call makes another one.

        Cinder lets a server that has a volume reserve it again, as for a migration.

        Raises:
            StepFailed: another server has the volume, or an attachment is not completed.
        """
        body = {"attachment": {"volume_uuid": volume, "instance_uuid": server}}
        answer = self._service.send("POST", "/attachments", body)
        _done(answer, f"Cinder did not reserve volume {volume}.")

    def export(self, volume: str, server: str, connector: Mapping[str, object]) -> None:
        """Make an attachment with a connector: one more host of the server may reach the volume.

        Cinder allows it beside one that another host has, as for a live migration.

        Raises:
            StepFailed: another server has the volume, an attachment is not completed, or the
                backend cannot.
        """
        body = {
            "attachment": {
                "volume_uuid": volume,
                "instance_uuid": server,
                "connector": dict(connector),
            }
        }
        answer = self._service.send("POST", "/attachments", body)
        _done(answer, f"Cinder did not export volume {volume} to {connector.get('host')}.")

    def connect(self, attachment: str, connector: Mapping[str, object]) -> None:
        """Give a reserved attachment its connector, so that the volume is exported to the host.

        Raises:
            StepFailed: the backend cannot, or another attachment of the volume has a connector
                (Cinder refuses that unless the volume is multiattach).
        """
        body = {"attachment": {"connector": dict(connector)}}
        answer = self._service.send("PUT", f"/attachments/{attachment}", body)
        host = connector.get("host")
        _done(answer, f"Cinder did not export the volume of attachment {attachment} to {host}.")

    def complete(self, attachment: str) -> None:
        """Tell Cinder that the volume is in use through this attachment; twice is once."""
        path = f"/attachments/{attachment}/action"
        answer = self._service.send("POST", path, {"os-complete": None})
        _done(answer, f"Cinder did not complete attachment {attachment}.")

    def delete(self, attachment: str) -> None:
        """Delete an attachment, and the export with it; nothing happens when it is gone."""
        answer = self._service.send("DELETE", f"/attachments/{attachment}")
        if answer.status != GONE:
            do = "Give cellmove a service token: `service_name` in [cloud]."
            _done(answer, f"Cinder did not delete attachment {attachment}.", do)


def _done(answer: Answer, what: str, do: str = "See Cinder's log.") -> Mapping[str, Any]:
    if not answer.ok:
        raise StepFailed(what, f"It answered {answer.message}.", do)
    return answer.body


def _attachment(found: Mapping[str, Any]) -> Attachment:
    return Attachment(id=found["id"], volume=found["volume_id"], status=found["status"])


def _info(found: Mapping[str, Any]) -> Mapping[str, object]:
    data = dict(found.get("connection_info") or {})
    if not data.get("driver_volume_type"):
        return {}  # Cinder tells a file's format before there is anything to connect.
    data.pop("attachment_id", None)
    return {
        "driver_volume_type": data.pop("driver_volume_type", None),
        "data": data,
        "status": found["status"],
        "instance": found["instance"],
        "attached_at": found.get("attached_at", ""),
        "detached_at": found.get("detached_at", ""),
        "volume_id": found["volume_id"],
        "serial": found["volume_id"],
    }
