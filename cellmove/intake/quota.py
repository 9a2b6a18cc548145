"""The project's quota: a larger flavor must fit into it, as nova's API has it.

nova 26: compute/api.py:_check_quota_for_upsize, quota.py, objects/instance.py:_get_counts_in_db.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import sqlalchemy as sa

from cellmove.cloud import Cloud
from cellmove.dbcopy.database import Row, Rows
from cellmove.errors import Refused
from cellmove.model import Flavor

UNLIMITED: Final = -1
RESOURCES: Final[Mapping[str, str]] = {"cores": "VCPUs", "ram": "MiB of memory"}
_CORES: Final = ("VCPU", "PCPU")


@dataclass(frozen=True, slots=True)
class Quota:
    """What nova-api's configuration says of quotas."""

    usage: Literal["cells", "placement", "none"] = "cells"
    """Where it counts what is used; `none`: it has another driver, so nothing is looked at."""
    cores: int = 20
    """Of a project for which the API database has no limit; -1: as many as it likes."""
    ram_mb: int = 50 * 1024

    def refusals(self, cloud: Cloud, row: Row, old: Flavor, new: Flavor) -> Iterator[Refused]:
        """One for each of a project and its user whose quota has no room for the larger flavor.

        As in nova both resources are looked at as soon as one of them grows.
        """
        more = {"cores": new.vcpus - old.vcpus, "ram": new.memory_mb - old.memory_mb}
        if self.usage == "none" or all(each <= 0 for each in more.values()):
            return
        project, user = row["project_id"], row["user_id"]
        for owner, whose in ((None, f"Project {project}"), (user, f"User {user} of the project")):
            limits = self._limits(cloud, project, owner)
            used = self._used(cloud, project, owner)
            for name, unit in RESOURCES.items():
                wanted = max(0, more[name])
                if UNLIMITED < limits[name] < used[name] + wanted:
                    yield Refused(
                        f"{whose} has no quota for flavor {new.name}.",
                        f"{used[name]} {unit} are in use, {wanted} more are needed, "
                        f"{limits[name]} are allowed.",
                        "Raise it with `openstack quota set`, or choose a smaller flavor; the "
                        "defaults are in [nova] of the configuration.",
                    )
            if owner is None and limits == self._limits(cloud, project, user):
                return  # what fits the project fits its user, who has no limit of their own

    def _limits(self, cloud: Cloud, project: str, user: str | None) -> dict[str, int]:
        """The nearest: the user's in the project, the project's, the default class, nova.conf."""
        limits = {"cores": self.cores, "ram": self.ram_mb}
        where = {"resource": list(limits)}
        of_project = where | {"project_id": project}
        with cloud.api.read() as rows:
            found = rows.all("quota_classes", class_name="default", **where)
            found += rows.all("quotas", **of_project)
            if user is not None:
                found += rows.all("project_user_quotas", user_id=user, **of_project)
        set_ones = {
            row["resource"]: row["hard_limit"] for row in found if row["hard_limit"] is not None
        }
        return limits | set_ones

    def _used(self, cloud: Cloud, project: str, user: str | None) -> dict[str, int]:
        if self.usage == "placement":
            usage = cloud.placement.used(project, user)
            cores = sum(usage.get(name, 0) for name in _CORES)
            return {"cores": cores, "ram": usage.get("MEMORY_MB", 0)}
        used = dict.fromkeys(RESOURCES, 0)
        for database in cloud.cells.values():
            with database.read() as rows:
                for name, amount in _counted(rows, project, user).items():
                    used[name] += amount
        return used


def _counted(rows: Rows, project: str, user: str | None) -> dict[str, int]:
    """What the servers of a project (of one of its users) take by one cell's rows."""

    def query(instances: sa.Table) -> sa.Select[Any]:
        of = instances.c
        found = (
            sa.select(
                sa.func.coalesce(sa.func.sum(of.vcpus), 0).label("cores"),
                sa.func.coalesce(sa.func.sum(of.memory_mb), 0).label("ram"),
            )
            .where(of.deleted == 0, of.project_id == project)
            .where(sa.or_(of.vm_state.is_(None), of.vm_state != "soft-delete"))
            .where(sa.or_(of.hidden.is_(None), of.hidden == 0))
        )
        return found if user is None else found.where(of.user_id == user)

    (found,) = rows.stream(("instances",), query)
    return {name: int(found[name]) for name in RESOURCES}
