"""The same move twice, side by side: once nova's own, once cellmove's."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cellmove.conductor import Conductor
from cellmove.config import Config
from cellmove.dbcopy.database import now
from cellmove.intake import Actor, intake_confirm, intake_resize, intake_revert
from cellmove.journal import Journal, Mark, Verb
from cellmove.model import Move
from cellmove.opening import OpenCloud, open_cloud
from cellmove.plan import plan
from cellmove.services.session import Session
from cellmove.steps.base import Step
from tests.lab.kit.nova import MICROVERSION, Nova
from tests.lab.kit.places import sql
from tests.lab.oracle.checkpoints import CHECKPOINTS, Course, State
from tests.lab.oracle.plain import Plain, Words, plain
from tests.lab.oracle.records import Dump, Records, Sample
from tests.lab.oracle.services import Services

SOURCE, TARGET = "cmp1a", "cmp2a"
CELLS = {"cell1": "source", "cell2": "target"}
CHOICE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Leg:
    """One move and its end."""

    flavor: str | None
    """None: a migration."""
    running: bool
    end: Verb

    def __str__(self) -> str:
        what = f"resize to {self.flavor}" if self.flavor else "migration"
        return f"{what}, {'running' if self.running else 'stopped'}, {self.end}"


@dataclass(slots=True)
class Server:
    """One of the two, and how its records read."""

    uuid: str
    words: Words
    course: Course | None = None

    def state(self, dump: Dump) -> State:
        """The state that these records are in."""
        assert self.course is not None
        return self.course.state(dump["api"], dump["source"], dump["target"])


@dataclass(slots=True)
class Found:
    """What a leg left, checkpoint by checkpoint."""

    nova: dict[str, list[Plain]] = field(default_factory=dict)
    """Every reading of nova's server in this state."""
    cellmove: dict[str, Plain] = field(default_factory=dict)
    astray: dict[str, State] = field(default_factory=dict)
    """Checkpoint -> the other state that cellmove's server was in."""


class Rivals:
    """Two servers that differ in nothing but their names, one for nova and one for cellmove."""

    def __init__(
        self, config: Config, owner: Nova, operator: Session, image: str, folder: Path
    ) -> None:
        """`image`: of guests that do nothing; a record does not tell what a guest computes."""
        self._config = config
        self._image = image
        self._owner = owner
        self._compute = operator.service("compute", MICROVERSION)
        self._nova = Nova(operator)
        self._services = Services(operator)
        self.records = Records(config, CELLS)
        self._journal = Journal(folder / "journal.db")
        self.by_nova = self._boot("oracle-nova")
        self.by_cellmove = self._boot("oracle-cellmove")

    def run(self, leg: Leg) -> Found:
        """Take both servers along this leg."""
        both = (self.by_nova, self.by_cellmove)
        for server in both:
            self._switch(server, on=leg.running)
        for server in both:
            self._make_ready(server)
        found = Found()
        for verb in ("resize", leg.end):
            self._go_by_cellmove(leg, verb, found)
            self._go_by_nova(leg, verb, found)
        return found

    def close(self) -> None:
        self.records.close()
        self._journal.close()

    def _boot(self, name: str) -> Server:
        _free_the_next_ec2_id()
        wish = {"imageRef": self._image, "tags": ["oracle"], "user_data": "b3JhY2xl"}
        metadata = {"purpose": "oracle"}
        server = self._owner.boot(name, SOURCE, metadata=metadata, more=wish)
        (port,) = self._owner.ports(server)
        shown = self._owner.show(server)
        known = {
            server: "server",
            name: "name",
            port["id"]: "port",
            f"tap{port['id'][:11]}": "tap",
            port["mac_address"]: "mac",
            port["fixed_ips"][0]["ip_address"]: "address",
            shown["OS-EXT-SRV-ATTR:reservation_id"]: "reservation",
        }
        dump = self.records.settled(server)
        (ec2,) = dump["source"]["instance_id_mappings"]
        words = Words(known, ec2["id"], self.records.cells, now())
        return Server(server, words)

    def _switch(self, server: Server, *, on: bool) -> None:
        stopped = self._owner.status(server.uuid) == "SHUTOFF"
        if on and stopped:
            self._owner.start(server.uuid)
        elif not on and not stopped:
            self._owner.stop(server.uuid)

    def _make_ready(self, server: Server) -> None:
        dump = self.records.settled(server.uuid)
        time.sleep(1)  # times are in whole seconds: what follows is later than all that was
        server.words.begun = now()
        server.course = Course(
            vm=dump["source"]["instances"][0]["vm_state"],
            migrations={row["uuid"] for row in dump["source"].get("migrations", ())},
            cells=self.records.cells,
        )

    def _go_by_cellmove(self, leg: Leg, verb: Verb, found: Found) -> None:
        server = self.by_cellmove
        after = self._conducted(leg, verb, server.uuid)
        settled = self.records.settled(server.uuid)
        for checkpoint in CHECKPOINTS[verb]:
            dump = after[checkpoint.step] if checkpoint.step else settled
            state = server.state(dump)
            if state != checkpoint.state:
                found.astray[checkpoint.name] = state
            found.cellmove[checkpoint.name] = plain(dump, server.words)
        found.cellmove[CHECKPOINTS[verb][-1].name] |= self._services.plain(
            server.uuid, server.words
        )

    def _conducted(self, leg: Leg, verb: Verb, server: str) -> Mapping[str, Dump]:
        """Name of each step -> what was recorded when it was done."""
        after: dict[str, Dump] = {}

        def watch(step: Step, mark: Mark) -> None:
            if mark in (Mark.DONE, Mark.FOUND):
                after[step.name] = self.records.dump(server)

        request = f"req-{uuid.uuid4()}"
        with open_cloud(self._config, request_id=request, progress=lambda _: None) as opened:
            move = _taken_in(opened, leg, verb, server)
            number = self._journal.open_move(verb, move)
            with self._journal.lease(move.id):
                conductor = Conductor(self._journal, opened.cloud, watch)
                conductor.conduct(number, plan(verb, move), take_back=True)
        return after

    def _go_by_nova(self, leg: Leg, verb: Verb, found: Found) -> None:
        server = self.by_nova
        with self.records.sampled(server.uuid) as samples:
            if verb == "confirm":
                self._nova.confirm(server.uuid)
            elif verb == "revert":
                self._nova.revert(server.uuid)
            elif leg.flavor is None:
                self._nova.migrate(server.uuid, TARGET)
            else:
                self._resize(server.uuid, leg.flavor, samples)
        dumps = [sample.dump for sample in samples]
        for checkpoint in CHECKPOINTS[verb]:
            if not checkpoint.step:
                dumps = [self.records.settled(server.uuid)]
            there = [dump for dump in dumps if server.state(dump) == checkpoint.state]
            found.nova[checkpoint.name] = [plain(dump, server.words) for dump in there]
        for last in found.nova[CHECKPOINTS[verb][-1].name]:
            last.update(self._services_plain(leg, verb, server))

    def _services_plain(self, leg: Leg, verb: Verb, server: Server) -> Plain:
        if leg.running:
            # A port's status trails that of its server.
            self._owner.wait_port(server.uuid, SOURCE if verb == "revert" else TARGET)
        return self._services.plain(server.uuid, server.words)

    def _resize(self, server: str, flavor: str, samples: Sequence[Sample]) -> None:
        """nova chooses a resize's target itself: leave it no choice until it has."""
        path = "/os-services"
        services = self._compute.get(path, binary="nova-compute").body["services"]
        others = [each["id"] for each in services if each["host"] not in (SOURCE, TARGET)]
        try:
            for other in others:
                self._compute.send("PUT", f"{path}/{other}", {"status": "disabled"})
            asked = {"resize": {"flavorRef": self._nova.flavor(flavor)}}
            assert self._compute.send("POST", f"/servers/{server}/action", asked).ok
            deadline = time.monotonic() + CHOICE_SECONDS
            while not samples[-1].dump["target"] and time.monotonic() < deadline:
                time.sleep(0.1)
        finally:
            for other in others:
                self._compute.send("PUT", f"{path}/{other}", {"status": "enabled"})
        self._nova.wait_status(server, "VERIFY_RESIZE")


def _taken_in(opened: OpenCloud, leg: Leg, verb: Verb, server: str) -> Move:
    cloud, request = opened.cloud, opened.request_id
    actor = Actor(opened.who.user_id, opened.who.project_id, policy=opened.policy)
    if verb == "confirm":
        return intake_confirm(cloud, server, actor=actor, request_id=request)
    if verb == "revert":
        return intake_revert(cloud, server, actor=actor, request_id=request)
    return intake_resize(
        cloud,
        server,
        flavor=leg.flavor,
        to_host=TARGET,
        to_cell=None,
        actor=actor,
        request_id=request,
    )


def _free_the_next_ec2_id() -> None:
    """See that the next server's EC2 id is free in the other cell, as it is in a real cloud.

    Where both cells are new, their numbers are the same.
    """
    table = "instance_id_mappings"
    ids = [
        int(sql(f"{cell}.nova_{cell}", f"SELECT COALESCE(MAX(id), 0) FROM {table}")[0][0])
        for cell in CELLS
    ]
    change = f"ALTER TABLE {table} AUTO_INCREMENT = {max(ids) + 1}"
    sql("cell1.nova_cell1", change)
