# mypy: ignore-errors
"""Times nova's own copy of a server's records into another cell; run by the Python nova is in.

Standard input is one JSON object: server, migration, rounds, and the URLs source and target.
Prints one JSON list: the seconds of each round. What nova has made is destroyed, as nova rolls it
back, after each round and outside of the time.
"""

import json
import logging
import sys
import time
import warnings

import eventlet

eventlet.monkey_patch(os=False)
warnings.simplefilter("ignore")

from nova import config, context, objects  # noqa: E402
from nova.conductor.tasks import cross_cell_migrate  # noqa: E402

CELLS = (
    "b1b1b1b1-0000-4000-8000-000000000001",
    "b2b2b2b2-0000-4000-8000-000000000002",
)


def targeted(uuid: str, name: str, url: str) -> context.RequestContext:
    """A context whose database is this cell's."""
    cell = objects.CellMapping(uuid=uuid, name=name, database_connection=url, transport_url="none:")
    made = context.get_admin_context()
    context.set_target_cell(made, cell)
    return made


def main(wanted: dict[str, str | int]) -> None:
    logging.disable(logging.CRITICAL)
    config.parse_args(["nova"], default_config_files=[], configure_db=False, init_rpc=False)
    objects.register_all()
    server, migration = wanted["server"], wanted["migration"]
    source, target = (
        targeted(uuid, name, wanted[name])
        for uuid, name in zip(CELLS, ("source", "target"), strict=True)
    )
    # What nova-conductor has in its hands by then.
    attributes = ["metadata", "system_metadata", "info_cache", "flavor", "pci_requests"]
    instance = objects.Instance.get_by_uuid(source, server, expected_attrs=attributes)
    row = objects.Migration.get_by_uuid(source, migration)
    objects.MigrationList.get_by_filters(target, {"instance_uuid": server})
    taken = []
    for _ in range(wanted["rounds"]):
        task = cross_cell_migrate.TargetDBSetupTask(source, instance, row, target)
        began = time.perf_counter()
        task.execute()
        taken.append(time.perf_counter() - began)
        task.rollback(None)
    print(json.dumps(taken))


if __name__ == "__main__":
    main(json.load(sys.stdin))
