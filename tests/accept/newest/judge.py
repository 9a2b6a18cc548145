# mypy: ignore-errors
"""Speaks for the newest nova: what its own objects and its own API make of any databases.

Run by the Python that nova is in, with the path of a nova.conf; nothing of ours is there. First it
writes the version that nova's newest services have, then for each question (a line of JSON) on its
standard input one answer (a line of JSON):

    {"objects": SERVER, "cell": CELL}                what nova's objects load from that cell
    {"rename": SERVER, "cell": CELL, "name": NAME}   the same, after nova's object has been saved
    {"spec": SERVER}                                 the request spec, as a scheduler would get it
    {"get": PATH, "token": TOKEN}                    the status and the body of the API's answer
"""

import json
import os
import sys
import traceback

os.environ["OS_NOVA_DISABLE_EVENTLET"] = "true"  # read when nova is imported

import webob
from nova import context, objects
from nova.api.openstack import wsgi_app
from nova.objects import instance as instances
from nova.objects import service


def in_cell(cell):
    """A context whose database is that cell's."""
    admin = context.get_admin_context()
    return context.target_cell(admin, objects.CellMapping.get_by_uuid(admin, cell))


def loaded(server, cell):
    with in_cell(cell) as there:
        instance = objects.Instance.get_by_uuid(there, server)
        for attribute in instances.INSTANCE_OPTIONAL_ATTRS:
            getattr(instance, attribute)  # loaded by being asked for
        migrations = objects.MigrationList.get_by_filters(there, {"instance_uuid": server})
        actions = objects.InstanceActionList.get_by_instance_uuid(there, server)
        return {
            "instance": plain(instance),
            "node": plain(objects.ComputeNode.get_by_id(there, instance.compute_id)),
            "devices": plain(objects.BlockDeviceMappingList.get_by_instance_uuid(there, server)),
            "vifs": plain(objects.VirtualInterfaceList.get_by_instance_uuid(there, server)),
            "migrations": plain(migrations),
            "to": {
                each.uuid: objects.ComputeNode.get_by_id(there, each.dest_compute_id).host
                for each in migrations
                if each.dest_compute_id
            },
            "actions": [
                plain(action)
                | {"events": plain(objects.InstanceActionEventList.get_by_action(there, action.id))}
                for action in actions
            ],
        }


def renamed(server, cell, name):
    with in_cell(cell) as there:
        instance = objects.Instance.get_by_uuid(there, server)
        instance.display_name = name
        instance.save(expected_task_state=[None])
    return loaded(server, cell)


def got(api, path, token):
    headers = {"X-Auth-Token": token, "OpenStack-API-Version": "compute latest"}
    answer = webob.Request.blank(f"/v2.1{path}", headers=headers).get_response(api)
    return {"status": answer.status_int, "body": json.loads(answer.body)}


def plain(thing):
    """A versioned object as its data, and what is in it likewise."""
    return unwrapped(thing.obj_to_primitive())


def unwrapped(value):
    if isinstance(value, list):
        return [unwrapped(each) for each in value]
    if not isinstance(value, dict):
        return value
    data = value.get("nova_object.data", value)
    if value.get("nova_object.name", "").endswith("List"):
        return unwrapped(data["objects"])
    return {key: unwrapped(each) for key, each in data.items()}


def answer_to(question, api):
    if "get" in question:
        return got(api, question["get"], question["token"])
    if "spec" in question:
        admin = context.get_admin_context()
        return plain(objects.RequestSpec.get_by_instance_uuid(admin, question["spec"]))
    if "rename" in question:
        return renamed(question["rename"], question["cell"], question["name"])
    return loaded(question["objects"], question["cell"])


def main():
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what nova prints is no answer
    folder, name = os.path.split(sys.argv.pop())
    os.environ |= {"OS_NOVA_CONFIG_DIR": folder, "OS_NOVA_CONFIG_FILES": f"api-paste.ini;{name}"}
    answers.write(json.dumps(service.SERVICE_VERSION) + "\n")
    api = None
    for line in sys.stdin:
        try:
            # Not before it is asked: it refuses to begin beside services that are too old.
            api = api or wsgi_app.init_application("osapi_compute", "nova-api")
            answer = answer_to(json.loads(line), api)
        except Exception:  # noqa: BLE001 - the test that asked tells it
            answer = {"error": traceback.format_exc()}
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
