"""Both ends of the stream under any interleaving: publications, cuts, resumes, restarts, frames lost and repeated.

The real hub and the real proxy stream talk over two queues. At every moment the proxy holds nothing, or exactly one state
that some operator published, whole. Once the faults end, it holds the one that was published last.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable
from random import Random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from spillway_operator.discovery.auth import ANYONE
from spillway_operator.discovery.hub import Hub, Link
from spillway_operator.discovery.session import CloseReason, Limits
from spillway_operator.snapshot.builder import assemble
from spillway_operator.snapshot.state import SnapshotState, encode
from spillway_sidecar.config.apply import apply_update
from spillway_sidecar.config.snapshot import Snapshot
from spillway_sidecar.config.stream import BadFrameError, Stream
from spillway_wire.messages import Node, Update, decode_from_operator, decode_from_proxy
from spillway_wire.messages import encode as encode_message
from spillway_wire.names import Provider, Role
from spillway_wire.snapshot import (
    BackendRef,
    Cluster,
    Endpoint,
    Endpoints,
    Resource,
    ResourceKey,
    Route,
    Rule,
    RuleWeights,
    Weights,
    decode_resource,
    encode_resource,
    key_of,
)

NAMES = ("ml/a", "ml/b", "dev/a")


@st.composite
def worlds(draw: st.DrawFn) -> dict[str, tuple[str, frozenset[int], float | None]]:
    """What is declared: cluster name to model, endpoint numbers, and the weight its route gives it, if it sets one."""
    names = draw(st.frozensets(st.sampled_from(NAMES)))
    numbers = st.frozensets(st.integers(0, 5))
    weight = st.none() | st.floats(0, 100)
    return {name: (draw(st.sampled_from("xyz")), draw(numbers), draw(weight)) for name in sorted(names)}


def resources_of(world: dict[str, tuple[str, frozenset[int], float | None]]) -> list[Resource]:
    items: list[Resource] = []
    for name, (model, numbers, weight) in world.items():
        items.append(Cluster(name=name, provider=Provider.VLLM, model=model))
        ids = tuple(Endpoint(id=f"{name}-{number}", host="h", port=1) for number in sorted(numbers))
        items.append(Endpoints(name=name, endpoints=ids))
        items.append(Route(name=name, models=(name,), rules=(Rule(name="all", backends=(BackendRef(cluster=name),)),)))
        if weight is not None:
            items.append(Weights(name=name, rules=(RuleWeights(rule="all", weights={name: weight}),)))
    return items


class Cable:
    """One connection: frames under way in both directions, the hub's transport at one end."""

    def __init__(self) -> None:
        self.to_proxy: deque[bytes] = deque()
        self.to_hub: deque[bytes] = deque()
        self.cut = False

    def send(self, wire: bytes) -> None:
        self.to_proxy.append(wire[{126: 4, 127: 10}.get(wire[1], 2) :])

    def close(self, _reason: CloseReason) -> None:
        self.cut = True


class StreamMachine(RuleBasedStateMachine):
    """An operator, a proxy, and a network that does what it likes."""

    @initialize(namespace=st.sampled_from(["", "ml"]))
    def begin(self, namespace: str) -> None:
        self.now = 0.0
        self.epoch = 0
        self.scope = namespace
        self.published: dict[str, dict[ResourceKey, Resource]] = {}
        self.cable: Cable | None = None
        self.applied: list[Snapshot] = []
        node = Node(id="p", role=Role.SIDECAR, boot_id="boot", namespace=namespace)
        self.stream = Stream(node, self.applied.append, lambda _: None)
        self.counter = 0
        self.restart()

    def later(self, delay: float, callback: Callable[[], None]) -> None:
        self.timers.append((self.now + delay, callback))

    @rule(world=worlds(), soon=st.sampled_from([0.05, 0.05, 1.0]))
    def go_well(self, world: dict[str, tuple[str, frozenset[int], float | None]], soon: float) -> None:
        """A while without faults, so that there is something to lose."""
        self.publish(world)
        if self.cable is None:
            self.connect()
        for _ in range(2):
            self.wait(soon)
            self.deliver_all()

    @precondition(lambda self: self.cable is not None)
    @rule(world=worlds(), lost=st.sampled_from(["update", "answer"]), repeated=st.booleans())
    def lose(self, world: dict[str, tuple[str, frozenset[int], float | None]], lost: str, repeated: bool) -> None:
        """A publication whose update or whose answer is lost on the way, perhaps after an answer that came twice."""
        assert self.cable is not None
        if repeated and self.cable.to_hub:
            self.deliver_to_hub("repeated")
        self.publish(world)
        self.wait(0.05)
        if lost == "update":
            self.drop_to_proxy()
        self.deliver_to_proxy_and_lose_answers()

    def drop_to_proxy(self) -> None:
        if self.cable is not None:
            self.cable.to_proxy.clear()

    def deliver_to_proxy_and_lose_answers(self) -> None:
        if self.cable is not None:
            while self.cable.to_proxy:
                self.deliver_to_proxy("none")
            self.cable.to_hub.clear()

    @precondition(lambda self: self.counter > 2)
    @rule()
    def restart(self) -> None:
        """Another operator process: nothing remembered, a later epoch."""
        self.epoch += 1
        self.counter = 0
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.hub = Hub(clock=lambda: self.now, schedule=self.later, rng=Random(0), limits=Limits(), settle_seconds=2.0)
        self.state = SnapshotState(version=f"{self.epoch}.0", epoch=self.epoch)
        self.latest: str | None = None
        self.cable = None

    @rule(world=worlds())
    def publish(self, world: dict[str, tuple[str, frozenset[int], float | None]]) -> None:
        """The next state, as the builder makes it; none where nothing differs."""
        self.counter += 1
        drafts = {key_of(item): encode(item, self.state.resources) for item in resources_of(world)}
        state = assemble(self.state, drafts, f"{self.epoch}.{self.counter}")
        if state is not None:
            self.state = state
            self.latest = state.version
            self.published[state.version] = {key: encoded.resource for key, encoded in state.resources.items()}
            self.hub.publish(state)

    @precondition(lambda self: self.cable is None)
    @rule()
    def connect(self) -> None:
        self.cable = Cable()
        self.link: Link = self.hub.open(self.cable, ANYONE)
        self.cable.to_hub.append(self.stream.hello())

    @precondition(lambda self: self.cable is not None)
    @rule()
    def disconnect(self) -> None:
        """The connection breaks; frames under way are lost."""
        self.hub.closed(self.link)
        self.cable = None

    @precondition(lambda self: self.cable is not None and self.cable.to_proxy)
    @rule(fault=st.sampled_from(["none", "none", "lost", "repeated"]))
    def deliver_to_proxy(self, fault: str) -> None:
        assert self.cable is not None
        frame = self.cable.to_proxy.popleft()
        for _ in range({"none": 1, "lost": 0, "repeated": 2}[fault]):
            answer = self.stream.receive(frame)
            if answer is not None:
                self.cable.to_hub.append(answer)

    @precondition(lambda self: self.cable is not None and self.cable.to_hub)
    @rule(fault=st.sampled_from(["none", "none", "lost", "repeated"]))
    def deliver_to_hub(self, fault: str) -> None:
        assert self.cable is not None
        frame = self.cable.to_hub.popleft()
        for _ in range({"none": 1, "lost": 0, "repeated": 2}[fault]):
            self.hub.frame(self.link, frame)
        self._notice_cut()

    @rule(seconds=st.sampled_from([0.0, 0.05, 1.0, 6.0, 20.0]))
    def wait(self, seconds: float) -> None:
        """Timers go off and deadlines lapse."""
        self.now += seconds
        while due := [timer for timer in self.timers if timer[0] <= self.now]:
            for timer in due:
                self.timers.remove(timer)
                timer[1]()
        self.hub.tick()
        self._notice_cut()

    def deliver_all(self) -> None:
        """Without faults, until nobody has more to say."""
        while self.cable is not None and (self.cable.to_proxy or self.cable.to_hub):
            if self.cable.to_proxy:
                self.deliver_to_proxy("none")
            else:
                self.deliver_to_hub("none")

    def _notice_cut(self) -> None:
        if self.cable is not None and self.cable.cut:
            self.hub.closed(self.link)
            self.cable = None

    def expected(self, version: str) -> dict[ResourceKey, Resource]:
        return {
            key: resource
            for key, resource in self.published[version].items()
            if not self.scope or key[1].startswith(self.scope + "/")
        }

    @invariant()
    def the_proxy_holds_one_published_state_whole(self) -> None:
        """Whatever happened: never a mixture, never an older epoch after a later one."""
        snapshot = self.stream.snapshot
        if snapshot is not None:
            assert dict(snapshot.resources) == self.expected(snapshot.version)
        epochs = [one.epoch for one in self.applied]
        assert epochs == sorted(epochs)

    def teardown(self) -> None:
        """The faults end: within a few deadlines the proxy holds what was published last, and the operator knows it."""
        if self.latest is None:
            return
        for _ in range(60):
            self.wait(1.0)
            if self.cable is None:
                self.connect()
            self.deliver_all()
        assert self.stream.snapshot is not None
        assert self.stream.snapshot.version == self.latest
        assert dict(self.stream.snapshot.resources) == self.expected(self.latest)
        assert self.hub.synced(self.expected(self.latest)).synced == ("p",)


StreamMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=10)
TestStream = StreamMachine.TestCase


@given(before=worlds(), after=worlds())
def test_changes_lead_where_a_full_update_leads(
    before: dict[str, tuple[str, frozenset[int], float | None]], after: dict[str, tuple[str, frozenset[int], float | None]]
) -> None:
    """An update by difference and one in full give equal snapshots; a refused one gives faults that a NACK can carry."""
    raws = tuple(msgspec.Raw(encode_resource(item)) for item in resources_of(after))
    full = Update(version="2", nonce="n", epoch=1, full=True, resources=raws)
    held = apply_update(
        None,
        Update(
            version="1",
            nonce="m",
            epoch=1,
            full=True,
            resources=tuple(msgspec.Raw(encode_resource(item)) for item in resources_of(before)),
        ),
        0,
    )
    assert isinstance(held, Snapshot)
    fresh = apply_update(None, full, 0)
    settled = apply_update(held, msgspec.structs.replace(full, settled=True), 0)
    assert fresh == settled
    cautious = apply_update(held, full, 0)
    if not isinstance(cautious, Snapshot):
        assert {fault.reason for fault in cautious} == {"EndpointsLost"}


FRAMES = st.binary(max_size=200) | st.text(max_size=200).map(str.encode)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
NEAR_MISSES = st.fixed_dictionaries(
    {"type": st.sampled_from(["hello", "ack", "nack", "report", "pong", "bye", "update", "ping"])},
    optional=dict.fromkeys(
        ("node", "version", "nonce", "errors", "boot_id", "sequence", "load", "traffic", "id", "epoch", "resources", "base"), JSON
    ),
).map(msgspec.json.encode)


@given(frame=FRAMES | NEAR_MISSES | JSON.map(msgspec.json.encode))
@settings(max_examples=300)
def test_no_frame_breaks_either_end(frame: bytes) -> None:
    """Decoding raises the documented errors and no others; the ends close, refuse or answer, and stay as they were."""
    for decode in (decode_from_proxy, decode_from_operator, decode_resource):
        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
            decode(frame)
    stream = Stream(Node(id="p", role=Role.GATEWAY, boot_id="b"), lambda _: None, lambda _: None)
    try:
        answer = stream.receive(frame)
    except BadFrameError:
        answer = None
    if answer is not None:
        decode_from_proxy(answer)
    if stream.snapshot is not None:
        assert stream.info()["counts"].get("updates_full") == 1
    cable = Cable()
    hub = Hub(clock=lambda: 0.0, schedule=lambda *_: None, rng=Random(0), limits=Limits(), settle_seconds=0)
    link = hub.open(cable, ANYONE)
    hub.frame(link, frame)
    assert cable.cut or link.session.node is not None


@given(data=st.data())
def test_an_altered_update_is_taken_whole_or_refused_whole(data: st.DataObject) -> None:
    """One byte of a good frame changed: the answer is an ACK of a consistent snapshot, a NACK, or a closed stream."""
    items = resources_of({"ml/a": ("x", frozenset({1, 2}), 3.0)})
    raws = tuple(msgspec.Raw(encode_resource(item)) for item in items)
    frame = bytearray(encode_message(Update(version="1", nonce="n", epoch=1, full=True, resources=raws)))
    position = data.draw(st.integers(0, len(frame) - 1))
    frame[position] = data.draw(st.integers(0, 255))
    stream = Stream(Node(id="p", role=Role.GATEWAY, boot_id="b"), lambda _: None, lambda _: None)
    try:
        answer = stream.receive(bytes(frame))
    except BadFrameError:
        assert stream.snapshot is None
        return
    assert answer is not None
    decoded = decode_from_proxy(answer)
    acknowledged = type(decoded).__name__ == "Ack"
    assert acknowledged == (stream.snapshot is not None)
    if stream.snapshot is not None:
        again = tuple(msgspec.Raw(encode_resource(item)) for item in stream.snapshot.resources.values())
        assert isinstance(apply_update(None, Update(version="1", nonce="n", epoch=1, full=True, resources=again), 0), Snapshot)


def test_the_machine_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """The properties notice a proxy that mixes versions: with the base check taken out, an interleaving is found."""
    real = apply_update

    def careless(current: Snapshot | None, update: Update, highest_epoch: int) -> object:
        if current is not None and not update.full:
            update = msgspec.structs.replace(update, base=current.version)
        return real(current, update, highest_epoch)

    monkeypatch.setattr("spillway_sidecar.config.stream.apply_update", careless)
    machine = StreamMachine()
    machine.begin("")
    machine.publish({"ml/a": ("x", frozenset({1}), None)})
    machine.wait(0.05)
    machine.connect()
    machine.deliver_to_hub("none")
    machine.deliver_to_proxy("none")
    machine.deliver_to_hub("none")
    # The operator comes to believe in a version that the proxy does not hold.
    machine.publish({"ml/a": ("x", frozenset({1}), None), "ml/b": ("x", frozenset({1}), None)})
    machine.wait(0.05)
    assert machine.cable is not None
    while machine.cable.to_proxy:
        machine.deliver_to_proxy("lost")
    offer = machine.link.session.offered
    assert offer is not None
    machine.cable.to_hub.append(f'{{"type":"ack","version":"{offer.version}","nonce":"{offer.nonce}"}}'.encode())
    machine.deliver_to_hub("none")
    machine.publish({"ml/a": ("y", frozenset({1}), None), "ml/b": ("x", frozenset({1}), None)})
    machine.wait(0.05)
    machine.deliver_to_proxy("none")
    with pytest.raises(AssertionError):
        machine.the_proxy_holds_one_published_state_whole()
