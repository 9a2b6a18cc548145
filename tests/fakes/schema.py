"""The tables of nova 26 (Zed) that cellmove reads or writes, for SQLite.

Facts are from nova's own models (nova/db/main/models.py, nova/db/api/models.py): names, widths,
what may be NULL, keys. A lab test holds the columns to the real schema.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

API = sa.MetaData()
CELL = sa.MetaData()

Part = sa.Column[Any] | sa.UniqueConstraint | sa.ForeignKeyConstraint


def _columns(kind: type[sa.types.TypeEngine[Any]], names: str) -> list[Part]:
    """Columns of one type; a name that ends in `!` may not be NULL."""
    return [
        sa.Column(name.rstrip("!"), kind(), nullable=not name.endswith("!"))
        for name in names.split()
    ]


def _texts(names: str) -> list[Part]:
    return _columns(sa.Text, names)


def _ints(names: str) -> list[Part]:
    return _columns(sa.Integer, names)


def _flags(names: str) -> list[Part]:
    return _columns(sa.Boolean, names)


def _times(names: str) -> list[Part]:
    return _columns(sa.DateTime, names)


def _id() -> sa.Column[Any]:
    return sa.Column("id", sa.Integer, primary_key=True, autoincrement=True)


def _unique(*names: str) -> sa.UniqueConstraint:
    return sa.UniqueConstraint(*names)


def _refers(column: str, to: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint([column], [to])


def _of_server(null: str = "") -> list[Part]:
    return [*_texts(f"instance_uuid{null}"), _refers("instance_uuid", "instances.uuid")]


def _cell(name: str, parts: Sequence[Part]) -> None:
    """A cell's table: times and soft deletion in all of them."""
    base = [*_times("created_at updated_at deleted_at"), *_ints("deleted")]
    sa.Table(name, CELL, *base, _id(), *parts, sqlite_autoincrement=True)


def _api(name: str, parts: Sequence[Part]) -> None:
    """A table of the API database: times, no soft deletion."""
    sa.Table(name, API, *_times("created_at updated_at"), _id(), *parts, sqlite_autoincrement=True)


def _define_hosts() -> None:
    _cell(
        "services",
        [
            *_texts("uuid host binary topic disabled_reason"),
            *_ints("report_count! version"),
            *_flags("disabled forced_down"),
            *_times("last_seen_up"),
            _unique("host", "binary", "deleted"),
            _unique("host", "topic", "deleted"),
            _unique("uuid"),
        ],
    )
    _cell(
        "compute_nodes",
        [
            *_texts("host uuid hypervisor_type! hypervisor_hostname cpu_info! host_ip"),
            *_texts("supported_instances metrics pci_stats extra_resources stats numa_topology"),
            *_ints("service_id vcpus! memory_mb! local_gb! vcpus_used! memory_mb_used!"),
            *_ints("local_gb_used! hypervisor_version! free_ram_mb free_disk_gb mapped"),
            *_ints("current_workload running_vms disk_available_least"),
            *_columns(sa.Float, "ram_allocation_ratio cpu_allocation_ratio disk_allocation_ratio"),
            _unique("host", "hypervisor_hostname", "deleted"),
            _unique("uuid"),
        ],
    )
    _cell(
        "pci_devices",
        [
            *_ints("compute_node_id! numa_node"),
            *_texts("uuid address! vendor_id! product_id! dev_type! dev_id label! status!"),
            *_texts("request_id extra_info instance_uuid parent_addr"),
            _refers("compute_node_id", "compute_nodes.id"),
            _unique("compute_node_id", "address", "deleted"),
        ],
    )


def _define_server() -> None:
    _cell(
        "instances",
        [
            *_texts("uuid! user_id project_id image_ref kernel_id ramdisk_id hostname key_name"),
            *_texts("key_data vm_state task_state ephemeral_key_uuid host node user_data"),
            *_texts("reservation_id availability_zone display_name display_description"),
            *_texts("launched_on locked_by os_type architecture vm_mode root_device_name"),
            *_texts("default_ephemeral_device default_swap_device config_drive access_ip_v4"),
            *_texts("access_ip_v6 cell_name"),
            *_ints("launch_index power_state memory_mb vcpus root_gb ephemeral_gb"),
            *_ints("instance_type_id progress cleaned internal_id"),
            *_times("launched_at terminated_at"),
            *_flags("locked auto_disk_config shutdown_terminate disable_terminate hidden"),
            _unique("uuid"),
        ],
    )
    _cell(
        "instance_info_caches",
        [*_texts("network_info"), *_of_server("!"), _unique("instance_uuid")],
    )
    _cell(
        "instance_extra",
        [
            *_texts("device_metadata numa_topology pci_requests flavor vcpu_model"),
            *_texts("migration_context keypairs trusted_certs vpmems resources"),
            *_of_server("!"),
        ],
    )
    _cell("instance_metadata", [*_texts("key value"), *_of_server()])
    _cell("instance_system_metadata", [*_texts("key! value"), *_of_server("!")])
    _cell("instance_faults", [*_ints("code!"), *_texts("message details host"), *_of_server()])
    _cell("instance_id_mappings", _texts("uuid!"))
    tag = [sa.Column(name, sa.Text, primary_key=True) for name in ("resource_id", "tag")]
    sa.Table("tags", CELL, *tag)


def _define_devices() -> None:
    _cell(
        "block_device_mapping",
        [
            *_texts("uuid source_type destination_type guest_format device_type disk_bus"),
            *_texts("device_name snapshot_id volume_id volume_type image_id connection_info tag"),
            *_texts("attachment_id encryption_secret_uuid encryption_format encryption_options"),
            *_ints("boot_index volume_size"),
            *_flags("delete_on_termination no_device encrypted"),
            *_of_server(),
            _unique("uuid"),
        ],
    )
    _cell(
        "virtual_interfaces",
        [
            *_texts("address uuid tag"),
            *_ints("network_id"),
            *_of_server(),
            _unique("address", "deleted"),
        ],
    )
    _cell("security_groups", _texts("name description user_id project_id"))
    _cell(
        "security_group_instance_association",
        [
            *_ints("security_group_id"),
            _refers("security_group_id", "security_groups.id"),
            *_of_server(),
        ],
    )


def _define_history() -> None:
    _cell(
        "migrations",
        [
            *_texts("uuid source_compute dest_compute source_node dest_node dest_host status"),
            *_texts("migration_type user_id project_id"),
            *_ints("old_instance_type_id new_instance_type_id memory_total memory_processed"),
            *_ints("memory_remaining disk_total disk_processed disk_remaining"),
            *_flags("hidden cross_cell_move"),
            *_of_server(),
            _unique("uuid"),
        ],
    )
    _cell(
        "instance_actions",
        [
            *_texts("action request_id user_id project_id message"),
            *_times("start_time finish_time"),
            *_of_server(),
        ],
    )
    _cell(
        "instance_actions_events",
        [
            *_texts("event result traceback host details"),
            *_times("start_time finish_time"),
            *_ints("action_id"),
            _refers("action_id", "instance_actions.id"),
        ],
    )
    console = [
        *_times("created_at updated_at"),
        _id(),
        *_texts("token_hash! console_type! host! internal_access_path instance_uuid!"),
        *_texts("access_url_base"),
        *_ints("port! expires!"),
        _unique("token_hash"),
    ]
    sa.Table("console_auth_tokens", CELL, *console, sqlite_autoincrement=True)
    _cell(
        "volume_usage_cache",
        [
            *_texts("volume_id! instance_uuid project_id user_id availability_zone"),
            *_times("tot_last_refreshed curr_last_refreshed"),
            *_ints("tot_reads tot_read_bytes tot_writes tot_write_bytes"),
            *_ints("curr_reads curr_read_bytes curr_writes curr_write_bytes"),
        ],
    )


def _define_api() -> None:
    _api(
        "cell_mappings",
        [
            *_texts("uuid! name transport_url database_connection"),
            *_flags("disabled"),
            _unique("uuid"),
        ],
    )
    cell = _refers("cell_id", "cell_mappings.id")
    _api("host_mappings", [*_ints("cell_id!"), *_texts("host!"), cell, _unique("host")])
    _api(
        "instance_mappings",
        [
            *_texts("instance_uuid! project_id! user_id"),
            *_ints("cell_id"),
            *_flags("queued_for_delete"),
            _refers("cell_id", "cell_mappings.id"),
            _unique("instance_uuid"),
        ],
    )
    _api("request_specs", [*_texts("instance_uuid! spec!"), _unique("instance_uuid")])
    _api(
        "build_requests",
        [
            *_texts("instance_uuid project_id! instance block_device_mappings tags"),
            _unique("instance_uuid"),
        ],
    )


def _define_api_groups() -> None:
    _api(
        "flavors",
        [
            *_texts("name! flavorid! description"),
            *_ints("memory_mb! vcpus! root_gb ephemeral_gb swap! vcpu_weight"),
            *_columns(sa.Float, "rxtx_factor"),
            *_flags("disabled is_public"),
            _unique("flavorid"),
            _unique("name"),
        ],
    )
    flavor = [*_ints("flavor_id!"), _refers("flavor_id", "flavors.id")]
    _api("flavor_extra_specs", [*_texts("key! value"), *flavor, _unique("flavor_id", "key")])
    _api("aggregates", [*_texts("uuid name"), _unique("name")])
    for name, columns, unique in (
        ("aggregate_hosts", "host", ("host", "aggregate_id")),
        ("aggregate_metadata", "key! value!", ("aggregate_id", "key")),
    ):
        aggregate = [*_ints("aggregate_id!"), _refers("aggregate_id", "aggregates.id")]
        _api(name, [*_texts(columns), *aggregate, _unique(*unique)])
    _api("instance_groups", [*_texts("user_id project_id uuid! name"), _unique("uuid")])
    for name, columns in (
        ("instance_group_member", "instance_uuid"),
        ("instance_group_policy", "policy rules"),
    ):
        group = [*_ints("group_id!"), _refers("group_id", "instance_groups.id")]
        _api(name, [*_texts(columns), *group])


def _define_api_quotas() -> None:
    for name, whose in (
        ("quotas", "project_id resource!"),
        ("quota_classes", "class_name resource"),
        ("project_user_quotas", "user_id! project_id! resource!"),
    ):
        _api(name, [*_texts(whose), *_ints("hard_limit")])


for _define in (
    _define_hosts,
    _define_server,
    _define_devices,
    _define_history,
    _define_api,
    _define_api_groups,
    _define_api_quotas,
):
    _define()
for _metadata in (API, CELL):
    sa.Table("alembic_version", _metadata, sa.Column("version_num", sa.Text, primary_key=True))
