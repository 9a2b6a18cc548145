"""What is asked of libvirt for a backup, and what its answers mean."""

from __future__ import annotations

from typing import Any
from unittest import mock

import libvirt
import pytest
from lxml import etree

from cellmove.errors import StepFailed
from cellmove.hosts import backup
from cellmove.hosts.backup import Checkpoint

HERE = "/var/lib/nova/instances/11111111-2222-3333-4444-555555555555"
XML = f"""<domain><devices>
  <disk type='file' device='disk'><source file='{HERE}/disk'/><target dev='vda'/></disk>
  <disk type='file' device='disk'><source file='/mnt/volume-1'/><target dev='vdb'/></disk>
  <disk type='file' device='cdrom'>
    <source file='{HERE}/disk.config'/><target dev='hda'/><readonly/>
  </disk>
  <disk type='file' device='cdrom'><target dev='hdb'/></disk>
</devices></domain>"""
FIRST, SECOND = Checkpoint.of("0123abcd-1111", 0), Checkpoint.of("0123abcd-1111", 1)


def error(code: int) -> libvirt.libvirtError:
    made = libvirt.libvirtError("refused")
    made.err = (code, 0, "refused", 0, "", None, None, 0, 0)
    return made


def domain(**answers: Any) -> mock.Mock:
    names = ["XMLDesc", "backupBegin", "backupGetXMLDesc", "abortJob", "isActive"]
    names += ["listAllCheckpoints", "checkpointLookupByName"]
    made = mock.Mock(spec_set=names)
    made.XMLDesc.return_value = XML
    made.configure_mock(**answers)
    return made


def begun(since: Checkpoint | None) -> tuple[etree._Element, etree._Element]:
    it = domain()
    disks = {"vda": ("disk", f"{HERE}/disk.cellmove")}
    backup.begin(it, disks, "/run/x.sock", SECOND if since else FIRST, since)
    asked, mark, flags = it.backupBegin.call_args.args
    assert flags == 0
    return etree.fromstring(asked), etree.fromstring(mark)


def test_only_the_servers_own_files_are_known_by_name() -> None:
    assert backup.devices(XML, HERE) == {"disk": ("vda", False), "disk.config": ("hda", True)}


def test_a_file_that_the_guest_left_is_not_read() -> None:
    with pytest.raises(StepFailed, match=r"does not use disk\.eph0"):
        backup.must_know(backup.devices(XML, HERE), "disk.eph0")


def test_every_disk_is_named_and_only_the_chosen_ones_are_shown() -> None:
    asked, mark = begun(None)
    shown = {each.get("name"): each.get("backup") for each in asked.iterfind("disks/disk")}
    noted = {each.get("name"): each.get("checkpoint") for each in mark.iterfind("disks/disk")}
    assert shown == {"vda": "yes", "vdb": "no", "hda": "no", "hdb": "no"}
    assert noted == {"vda": "bitmap", "vdb": "no", "hda": "no", "hdb": "no"}
    assert asked.find("incremental") is None
    assert mark.findtext("name") == "cellmove-0123abcd-0"


def test_what_was_written_since_is_asked_for_by_the_checkpoints_name() -> None:
    asked, mark = begun(FIRST)
    assert asked.findtext("incremental") == "cellmove-0123abcd-0"
    assert mark.findtext("name") == "cellmove-0123abcd-1"
    (disk,) = asked.findall("disks/disk[@exportbitmap]")
    assert (disk.get("exportname"), disk.get("exportbitmap")) == ("disk", "vda")


def test_only_our_own_backup_is_ended() -> None:
    ours = domain(**{"backupGetXMLDesc.return_value": "<b><server socket='/run/x.sock'/></b>"})
    backup.end(ours, "/run/x.sock")
    ours.abortJob.assert_called_once_with()
    foreign = domain(**{"backupGetXMLDesc.return_value": "<b><server socket='/run/y.sock'/></b>"})
    backup.end(foreign, "/run/x.sock")
    foreign.abortJob.assert_not_called()
    none = domain(**{"backupGetXMLDesc.side_effect": error(libvirt.VIR_ERR_NO_DOMAIN_BACKUP)})
    backup.end(none, "/run/x.sock")
    none.abortJob.assert_not_called()


def test_an_error_is_not_taken_for_no_backup() -> None:
    lost = domain(**{"backupGetXMLDesc.side_effect": error(libvirt.VIR_ERR_RPC)})
    with pytest.raises(libvirt.libvirtError):
        backup.end(lost, "/run/x.sock")


@pytest.mark.parametrize(
    ("is_active", "flags"), [(True, 0), (False, libvirt.VIR_DOMAIN_CHECKPOINT_DELETE_METADATA_ONLY)]
)
def test_of_a_stopped_guest_only_libvirts_note_can_be_deleted(is_active: bool, flags: int) -> None:
    it = domain(**{"isActive.return_value": is_active})
    backup.drop(it, FIRST)
    it.checkpointLookupByName.return_value.delete.assert_called_once_with(flags)


def test_a_checkpoint_that_is_gone_is_deleted() -> None:
    gone = error(libvirt.VIR_ERR_NO_DOMAIN_CHECKPOINT)
    backup.drop(domain(**{"checkpointLookupByName.side_effect": gone}), FIRST)


def test_ours_are_told_from_others_and_put_in_order() -> None:
    names = ["nightly", "cellmove-0123abcd-10", "cellmove-0123abcd-9", "cellmove-x-1"]
    assert [each.number for each in backup.ours(names)] == [9, 10]


@pytest.mark.parametrize(
    ("features", "is_supported"),
    [("<backup supported='yes'/>", True), ("<backup supported='no'/>", False), ("", False)],
)
def test_libvirt_is_asked_whether_it_can(features: str, is_supported: bool) -> None:
    connection = mock.Mock(spec_set=["getDomainCapabilities"])
    told = f"<domainCapabilities><features>{features}</features></domainCapabilities>"
    connection.getDomainCapabilities.return_value = told
    assert backup.supported(connection) is is_supported
