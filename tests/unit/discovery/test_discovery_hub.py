"""All sessions together, over transports that only remember."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

import pytest

from spillway_operator.discovery.auth import ANYONE, Identity
from spillway_operator.discovery.hub import FAN_OUT_SLICE, Hub, Link
from spillway_operator.discovery.session import CloseReason, Limits
from spillway_operator.snapshot.ports import SnapshotPublisher
from spillway_operator.snapshot.state import SnapshotState, encode
from spillway_wire.loads import Demand
from spillway_wire.messages import (
    Ack,
    Bye,
    EndpointRemoval,
    Fault,
    FaultReason,
    Hello,
    Nack,
    Node,
    Ping,
    Pong,
    Report,
    Update,
    decode_from_operator,
)
from spillway_wire.messages import (
    encode as encode_message,
)
from spillway_wire.names import Provider, Role
from spillway_wire.snapshot import Cluster, Endpoint, Endpoints, key_of


class Transport:
    def __init__(self) -> None:
        self.wire: list[bytes] = []
        self.closed: CloseReason | None = None

    def send(self, wire: bytes) -> None:
        self.wire.append(wire)

    def close(self, reason: CloseReason) -> None:
        self.closed = reason

    def messages(self) -> list[Update | Ping]:
        return [decode_from_operator(wire[{126: 4, 127: 10}.get(wire[1], 2) :]) for wire in self.wire]

    def last_update(self) -> Update:
        return [message for message in self.messages() if isinstance(message, Update)][-1]


@dataclass
class World:
    """A hub with a clock and timers in the hand of the test."""

    settle_seconds: float = 0.0
    limits: Limits = field(default_factory=Limits)
    now: float = 1000.0
    timers: list[tuple[float, Callable[[], None]]] = field(default_factory=list)
    reports: list[tuple[str, Report, float]] = field(default_factory=list)
    node_changes: int = 0

    def __post_init__(self) -> None:
        self.hub = Hub(
            clock=lambda: self.now,
            schedule=lambda delay, callback: self.timers.append((self.now + delay, callback)),
            rng=Random(1),
            limits=self.limits,
            settle_seconds=self.settle_seconds,
        )
        publisher: SnapshotPublisher = self.hub
        publisher.attach(self)

    def on_report(self, node: Node, report: Report, received_at: float) -> None:
        self.reports.append((node.id, report, received_at))

    def on_node_change(self) -> None:
        self.node_changes += 1

    def turn(self, seconds: float = 0.05) -> None:
        """Time passes, and every timer that is due goes off, with those that it sets."""
        self.now += seconds
        while due := [timer for timer in self.timers if timer[0] <= self.now]:
            for timer in due:
                self.timers.remove(timer)
                timer[1]()

    def publish(self, version: str, *names: str) -> None:
        items = [Cluster(name=name, provider=Provider.VLLM, model=version) for name in names or ("ml/x",)]
        self.hub.publish(SnapshotState(version=version, epoch=1, resources={key_of(item): encode(item, {}) for item in items}))

    def join(
        self, name: str, *, namespace: str = "", held: str | None = None, identity: Identity = ANYONE
    ) -> tuple[Link, Transport]:
        transport = Transport()
        link = self.hub.open(transport, identity)
        node = Node(id=name, role=Role.SIDECAR, boot_id=f"boot-{name}", namespace=namespace)
        self.say(link, Hello(node=node, resume_version=held))
        return link, transport

    def say(self, link: Link, message: Hello | Ack | Nack | Report | Pong | Bye) -> None:
        self.hub.frame(link, encode_message(message))

    def ack(self, link: Link) -> None:
        offer = link.session.offered
        assert offer is not None
        self.say(link, Ack(version=offer.version, nonce=offer.nonce))

    def nack(self, link: Link, reason: str) -> None:
        offer = link.session.offered
        assert offer is not None
        fault = Fault(path="cluster/ml/x", reason=reason, message="no")
        self.say(link, Nack(version=link.session.held, nonce=offer.nonce, errors=(fault,)))


def test_what_is_published_within_the_batch_is_one_update() -> None:
    """The last state of 50 ms goes out, the others never existed for proxies."""
    world = World()
    _, transport = world.join("a")
    for number in range(5):
        world.publish(f"1.{number}")
    assert transport.wire == []
    world.turn(0.05)
    assert [message.version for message in transport.messages() if isinstance(message, Update)] == ["1.4"]


def test_a_thousand_proxies_cost_a_thousand_writes_of_the_same_bytes() -> None:
    """One frame is assembled; the transports get one object; a slice of the fleet is written to in one turn of the loop."""
    world = World()
    joined = [world.join(f"n{number}") for number in range(1000)]
    world.publish("1.1")
    world.now += 0.05
    world.timers.pop(0)[1]()  # the node change
    world.timers.pop(0)[1]()  # the batch
    assert sum(bool(transport.wire) for _, transport in joined) == FAN_OUT_SLICE
    world.turn()
    first = joined[0][1].wire[0]
    assert all(transport.wire == [first] and transport.wire[0] is first for _, transport in joined)
    assert world.hub.info()["updates"]["frames_assembled"] == 1


def test_one_transport_that_raises_keeps_the_update_from_nobody_else() -> None:
    class Broken(Transport):
        def send(self, wire: bytes) -> None:
            raise RuntimeError("the handler is closed")

    world = World()
    link, _ = world.join("a")
    link.transport = Broken()
    joined = [world.join(f"n{number}")[1] for number in range(3)]
    world.publish("1.1")
    with pytest.raises(RuntimeError):
        world.turn()
    world.turn()
    assert [transport.last_update().version for transport in joined] == ["1.1"] * 3


def test_a_slow_proxy_skips_to_the_newest() -> None:
    """No backlog: between two answers of a proxy there is one update, however many were published."""
    world = World()
    world.publish("1.1")
    world.turn()
    link, transport = world.join("slow")
    for number in range(2, 6):
        world.publish(f"1.{number}")
        world.turn()
    assert [message.version for message in transport.messages() if isinstance(message, Update)] == ["1.1"]
    world.ack(link)
    update = transport.last_update()
    assert (update.version, update.base) == ("1.5", "1.1")


def test_a_resumed_proxy_gets_the_difference_and_one_in_step_gets_nothing() -> None:
    """The resume version decides."""
    world = World()
    world.publish("1.1")
    world.turn()
    world.publish("1.2")
    world.turn()
    _, behind = world.join("behind", held="1.1")
    _, current = world.join("current", held="1.2")
    _, unknown = world.join("unknown", held="0.9")
    assert behind.last_update().base == "1.1"
    assert current.wire == []
    assert unknown.last_update().full


def test_who_is_in_step() -> None:
    """By the state each acknowledged last, in its scope; a publication that is not out yet counts already."""
    world = World()
    world.publish("1.1", "ml/x", "dev/x")
    world.turn()
    links = {name: world.join(name, namespace=namespace)[0] for name, namespace in {"all": "", "ml": "ml", "dev": "dev"}.items()}
    assert world.hub.synced([("cluster", "ml/x")]).lagging == ("all", "ml")
    for link in links.values():
        world.ack(link)
    synced = world.hub.synced([("cluster", "ml/x")])
    assert (synced.synced, synced.lagging) == (("all", "ml"), ())
    world.publish("1.2", "ml/x")
    assert world.hub.synced([("cluster", "ml/x"), ("cluster", "ml/y")]).lagging == ("all", "ml")
    world.turn()
    world.ack(links["ml"])
    synced = world.hub.synced([("cluster", "ml/x")])
    assert (synced.synced, synced.lagging) == (("ml",), ("all",))
    assert world.hub.synced([("cluster", "dev/x")]).lagging == ("all", "dev")


def test_a_refusal_is_shown_until_overtaken() -> None:
    """The proxy stays at what it had; the next version is offered as changes to that."""
    world = World()
    world.publish("1.1")
    world.turn()
    link, transport = world.join("a")
    world.ack(link)
    world.publish("1.2")
    world.turn()
    world.nack(link, "DanglingReference")
    (sync,) = world.hub.nodes()
    assert sync.acked_version == "1.1"
    assert sync.refusal is not None
    assert (sync.refusal.version, sync.refusal.errors[0].path) == ("1.2", "cluster/ml/x")
    assert world.hub.info()["refusing"] == 1
    world.publish("1.3")
    world.turn()
    assert transport.last_update().base == "1.1"
    world.ack(link)
    assert world.hub.nodes()[0].refusal is None


def test_a_fresh_operator_is_believed_once_it_has_settled() -> None:
    """Only those who refused for lost endpoints are offered the same version again, with the operator's word for it."""
    world = World(settle_seconds=2.0)
    world.publish("1.1")
    world.turn()
    (lost, lost_transport), (other, other_transport) = world.join("lost"), world.join("other")
    world.nack(lost, FaultReason.ENDPOINTS_LOST)
    world.nack(other, FaultReason.REJECTED)
    assert not lost_transport.last_update().settled
    world.now += 1.9
    world.hub.tick()
    assert world.hub.info()["offered"] == 0
    world.now += 0.1
    world.hub.tick()
    assert world.hub.info()["offered"] == 1
    assert (lost_transport.last_update().version, lost_transport.last_update().settled) == ("1.1", True)
    assert len([message for message in other_transport.messages() if isinstance(message, Update)]) == 1


def test_a_refusal_that_crosses_the_settling_is_asked_again() -> None:
    """The update left before the operator settled, the NACK came after: once more, with its word. A second NACK stands."""
    world = World(settle_seconds=2.0)
    world.publish("1.1")
    world.turn()
    link, transport = world.join("a")
    world.now += 2.0
    world.hub.tick()
    assert not transport.last_update().settled
    world.nack(link, FaultReason.ENDPOINTS_LOST)
    assert transport.last_update().settled
    sent = len(transport.wire)
    world.nack(link, FaultReason.ENDPOINTS_LOST)
    assert len(transport.wire) == sent
    assert world.hub.info()["refusing"] == 1


def test_what_went_and_came_back_within_a_batch_is_remembered() -> None:
    """The state that never went out still tells that its endpoints were taken away by name."""
    world = World()
    endpoints = [Endpoints(name="ml/x", endpoints=(Endpoint(id=one, host="h", port=1),)) for one in "ef"]
    states = [
        SnapshotState(version=f"1.{n}", epoch=1, resources={key_of(item): encode(item, {}) for item in items})
        for n, items in enumerate([endpoints[:1], [], endpoints[1:]])
    ]
    world.hub.publish(states[0])
    world.turn()
    link, transport = world.join("a")
    world.ack(link)
    for state in states[1:]:
        world.hub.publish(state)
    world.turn()
    assert transport.last_update().removed_endpoints == (EndpointRemoval(cluster="ml/x", ids=("e",)),)


def test_the_newer_connection_of_a_node_wins() -> None:
    """The old one is closed; its end does not take the node away."""
    world = World()
    old, old_transport = world.join("a")
    new, _ = world.join("a")
    assert old_transport.closed is CloseReason.SUPERSEDED
    world.hub.closed(old)
    assert len(world.hub.nodes()) == 1
    world.hub.closed(new)
    assert world.hub.nodes() == ()


def test_a_node_that_is_not_the_peers_is_refused() -> None:
    """It does not push the true one out either."""
    world = World()
    _, true_transport = world.join("pod-a", identity=Identity(pod=""))
    _, liar = world.join("pod-a", identity=Identity(pod="pod-b"))
    assert (liar.closed, true_transport.closed) == (CloseReason.FORBIDDEN, None)
    assert len(world.hub.nodes()) == 1


def test_reports_reach_the_core_with_their_sender() -> None:
    """Those of another boot or out of order are counted and go nowhere."""
    world = World()
    link, _ = world.join("a")
    world.say(link, Report(boot_id="boot-a", sequence=1))
    world.say(link, Report(boot_id="boot-a", sequence=1))
    world.say(link, Report(boot_id="boot-b", sequence=2))
    assert [(name, report.sequence, at) for name, report, at in world.reports] == [("a", 1, 1000.0)]
    assert world.hub.info()["events_total"] == {"joined": 1, "report_out_of_order": 1, "report_of_other_boot": 1}


def test_a_bad_frame_closes_that_stream_only() -> None:
    """Counted by reason; what comes after it is not heard."""
    world = World()
    (bad, bad_transport), (_, good_transport) = world.join("bad"), world.join("good")
    world.hub.frame(bad, b"\xff\xfe")
    world.say(bad, Report(boot_id="boot-bad", sequence=1))
    assert (bad_transport.closed, good_transport.closed) == (CloseReason.BAD_FRAME, None)
    assert world.reports == []
    assert world.hub.info()["closed_total"] == {"bad_frame": 1}


def test_routers_are_gateways_and_the_sidecars_that_route() -> None:
    """A sidecar counts while its own route listener is at work; a draining one never; all pings of a tick are the same bytes."""
    world = World()
    (leaving, _), (a, a_transport), (b, b_transport) = world.join("leaving"), world.join("a"), world.join("b")
    for link, name in ((leaving, "leaving"), (a, "a"), (b, "b")):
        world.say(link, Report(boot_id=f"boot-{name}", sequence=1, demand=(Demand("default/x", 1, 10),)))
    world.say(leaving, Bye(reason="SIGTERM"))
    world.hub.tick()
    assert [message.routers for message in a_transport.messages()] == [2]
    assert a_transport.wire[0] is b_transport.wire[0]
    world.hub.closed(leaving)
    assert world.hub.info()["routers"] == 2
    world.now += 11
    world.say(a, Report(boot_id="boot-a", sequence=2, demand=(Demand("default/x", 1, 10),)))
    world.hub.tick()
    assert world.hub.info()["routers"] == 1


def test_pings_spread_and_missing_pongs_close() -> None:
    """Streams that began together are pinged apart; one that does not answer is closed."""
    world = World(limits=Limits(ping_seconds=4.0, pong_seconds=10.0))
    joined = [world.join(f"n{number}") for number in range(100)]
    world.hub.tick()
    for link, _ in joined[1:]:
        world.say(link, Pong(id=1))
    pinged = []
    for _ in range(17):
        world.now += 0.25
        world.hub.tick()
        pinged.append(sum(len(transport.wire) for _, transport in joined) - 100)
    assert pinged[6] == 0  # none before half an interval
    assert 0 < pinged[12] < 99
    world.now = 1010.1
    world.hub.tick()
    assert joined[0][1].closed is CloseReason.PONG_TIMEOUT
    assert joined[1][1].closed is None


def test_the_core_hears_of_many_changes_once() -> None:
    """Joins, answers and departures within 50 ms are one call."""
    world = World()
    world.publish("1.1")
    world.turn()
    for number in range(20):
        link, _ = world.join(f"n{number}")
        world.ack(link)
    assert world.node_changes == 0
    world.turn(0.05)
    assert world.node_changes == 1
    world.hub.closed(link)
    world.turn(0.05)
    assert world.node_changes == 2


def test_stopping_tells_every_proxy() -> None:
    """Also those that have not said who they are."""
    world = World()
    _, named = world.join("a")
    unnamed = Transport()
    world.hub.open(unnamed, ANYONE)
    world.hub.close_all()
    assert named.closed is unnamed.closed is CloseReason.SHUTDOWN
    assert world.hub.info()["connections"] == 0
