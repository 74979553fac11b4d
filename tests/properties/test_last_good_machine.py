"""What a proxy starts from: through updates, restarts, spoilt files and clocks that jump, nothing or one state that was published, whole."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from spillway_sidecar.config.last_good import MAX_AGE_SECONDS, MAX_CLOCK_ERROR_SECONDS, LastGoodRefusedError, LastGoodStore
from spillway_sidecar.config.snapshot import Snapshot
from spillway_sidecar.config.stream import BadFrameError, Stream
from spillway_wire.messages import Ack, Node, Update, decode_from_proxy, encode
from spillway_wire.names import Provider, Role
from spillway_wire.snapshot import BackendRef, Cluster, Endpoint, Endpoints, Resource, Route, Rule, encode_resource


def resources(endpoints: int) -> tuple[Resource, ...]:
    return (
        Cluster(name="d/a", provider=Provider.VLLM, model="m"),
        Endpoints(name="d/a", endpoints=tuple(Endpoint(id=f"a-{n}", host="h", port=1) for n in range(endpoints))),
        Route(name="d/r", models=("m",), rules=(Rule(name="all", backends=(BackendRef(cluster="d/a"),)),)),
    )


class LastGoodModel(RuleBasedStateMachine):
    """A proxy, its operator and its disk."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.now = 1.8e9
        self.store = LastGoodStore(Path(self.folder.name) / "last-good.json", lambda: self.now)
        self.published: dict[str, int] = {}
        self.saved: tuple[str, float] | None = None  # version and time of what the file holds, as long as it is whole
        self.touched = False
        self.boot()

    def boot(self) -> None:
        self.refuses = False
        self.stream = Stream(Node(id="p", role=Role.GATEWAY, boot_id="b"), self.put_in_force, lambda _: None)

    def put_in_force(self, snapshot: Snapshot) -> None:
        if self.refuses:
            raise ValueError("not now")

    @rule(endpoints=st.integers(0, 4), refuses=st.booleans())
    def publish(self, endpoints: int, refuses: bool) -> None:
        version = f"1.{len(self.published)}"
        self.published[version] = endpoints
        raws = tuple(msgspec.Raw(encode_resource(one)) for one in resources(endpoints))
        self.refuses = refuses
        before = self.stream.snapshot
        answer = self.stream.receive(
            encode(Update(version=version, nonce=version, epoch=1, resources=raws, full=True, settled=True))
        )
        self.refuses = False
        assert answer is not None
        taken = isinstance(decode_from_proxy(answer), Ack)
        assert taken is not refuses
        assert taken or self.stream.snapshot is before

    @rule(junk=st.binary(max_size=30))
    def disturb(self, junk: bytes) -> None:
        before = self.stream.snapshot
        with contextlib.suppress(BadFrameError):
            self.stream.receive(junk)
        assert self.stream.snapshot is before

    @precondition(lambda self: self.stream.snapshot is not None)
    @rule()
    def save(self) -> None:
        assert self.stream.snapshot is not None
        self.store.save(self.stream.snapshot)
        self.saved, self.touched = (self.stream.snapshot.version, self.now), False

    @precondition(lambda self: self.store.path.exists())
    @rule(
        at=st.integers(0, 5000), how=st.sampled_from(["cut", "byte", "digit", "digit", "more", "gone"]), value=st.integers(0, 255)
    )
    def spoil(self, at: int, how: str, value: int) -> None:
        path = self.store.path
        data = bytearray(path.read_bytes())
        before = bytes(data)
        at %= len(data) or 1
        if how == "cut":
            del data[at:]
        elif how == "byte" and data:
            data[at] = value
        elif how == "digit" and (
            digits := [place for place in range(data.find(b"\n") + 1, len(data)) if 0x30 <= data[place] <= 0x39]
        ):
            data[digits[at % len(digits)]] = 0x30 + value % 10
        elif how == "more":
            data += bytes([value])
        if how == "gone":
            path.unlink()
        else:
            path.write_bytes(bytes(data))
        self.touched = self.touched or how == "gone" or bytes(data) != before

    @rule(half=st.binary(max_size=50))
    def die_while_saving(self, half: bytes) -> None:
        """What a save leaves behind that did not come to its rename."""
        self.store.path.parent.mkdir(exist_ok=True)
        self.store.path.with_name(f"{self.store.path.name}.1.tmp").write_bytes(half)

    @rule(seconds=st.sampled_from([1.0, 3600.0, 2 * MAX_AGE_SECONDS, -60.0, -86_400.0]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.stream.snapshot is not None)
    @rule(at=st.integers(0, 5000), value=st.integers(0, 255))
    def spoil_what_is_new(self, at: int, value: int) -> None:
        """A digit of the file that has just been written, met at the next start."""
        self.save()
        self.spoil(at, "digit", value)
        self.restart()

    @rule()
    def restart(self) -> None:
        self.boot()
        try:
            snapshot = self.store.load()
        except LastGoodRefusedError:
            assert self.saved is None or self.touched or not self._young()
            return
        assert self.saved is not None
        assert snapshot.version in self.published
        if not self.touched:
            assert snapshot.version == self.saved[0]
            assert self._young()
        assert self.stream.restore(snapshot)

    def _young(self) -> bool:
        assert self.saved is not None
        return -MAX_CLOCK_ERROR_SECONDS <= self.now - self.saved[1] <= MAX_AGE_SECONDS

    @invariant()
    def what_is_in_force_was_published(self) -> None:
        held = self.stream.snapshot
        if held is not None:
            wanted = resources(self.published[held.version])
            assert sorted(map(encode_resource, held.resources.values())) == sorted(map(encode_resource, wanted))

    def teardown(self) -> None:
        self.folder.cleanup()


TestLastGood = LastGoodModel.TestCase
TestLastGood.settings = settings(max_examples=30, stateful_step_count=25)
