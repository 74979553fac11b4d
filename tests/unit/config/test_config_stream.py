"""The proxy's answers on the stream, frame by frame."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from spillway_sidecar.config.backoff import delay_seconds
from spillway_sidecar.config.snapshot import Snapshot
from spillway_sidecar.config.stream import BadFrameError, Stream
from spillway_wire.messages import Ack, FromProxy, Hello, Nack, Node, Ping, Pong, Update, decode_from_proxy, encode
from spillway_wire.names import Provider, Role
from spillway_wire.snapshot import Cluster, encode_resource, key_of

NODE = Node(id="gateway-0", role=Role.GATEWAY, boot_id="boot-1")


class DataPath:
    def __init__(self) -> None:
        self.applied: list[Snapshot] = []
        self.routers: list[int] = []
        self.broken = False
        self.stream = Stream(NODE, self.put_in_force, self.routers.append)

    def put_in_force(self, snapshot: Snapshot) -> None:
        if self.broken:
            raise LookupError("no such provider")
        self.applied.append(snapshot)

    def hear(self, message: Update | Ping) -> FromProxy | None:
        answer = self.stream.receive(encode(message))
        return None if answer is None else decode_from_proxy(answer)


def cluster(model: str) -> Cluster:
    return Cluster(name="ml/x", provider=Provider.VLLM, model=model)


def update(version: str, **fields: Any) -> Update:
    raw = msgspec.Raw(encode_resource(cluster(version)))
    return Update(**{"version": version, "nonce": f"n-{version}", "epoch": 1, "resources": (raw,), "full": True, **fields})


def test_the_hello_names_the_version_in_force() -> None:
    """Nothing at first, later what to resume from."""
    path = DataPath()
    assert decode_from_proxy(path.stream.hello()) == Hello(node=NODE)
    path.hear(update("1.1"))
    assert decode_from_proxy(path.stream.hello()) == Hello(node=NODE, resume_version="1.1")


def test_a_good_update_is_put_in_force_and_acknowledged() -> None:
    """And the next one builds on it."""
    path = DataPath()
    assert path.hear(update("1.1")) == Ack(version="1.1", nonce="n-1.1")
    assert path.hear(update("1.2", full=False, base="1.1")) == Ack(version="1.2", nonce="n-1.2")
    assert [snapshot.version for snapshot in path.applied] == ["1.1", "1.2"]
    assert path.stream.snapshot is path.applied[-1]
    assert path.stream.info()["counts"] == {"updates_full": 1, "updates": 1}


def test_a_bad_one_is_refused_and_nothing_has_changed() -> None:
    """The NACK names the version that stays, and what was wrong; info shows it until a good one comes."""
    path = DataPath()
    path.hear(update("1.1"))
    answer = path.hear(update("1.2", full=False, base="0.7"))
    assert isinstance(answer, Nack)
    assert (answer.version, answer.nonce, answer.errors[0].reason) == ("1.1", "n-1.2", "BaseMismatch")
    assert [snapshot.version for snapshot in path.applied] == ["1.1"]
    assert path.stream.info()["faults"][0]["path"] == "base"
    path.hear(update("1.3"))
    assert path.stream.info()["faults"] == []


def test_the_first_refusal_keeps_nothing() -> None:
    """A proxy without a snapshot says so."""
    answer = DataPath().hear(update("1.1", full=False, base="1.0"))
    assert isinstance(answer, Nack)
    assert answer.version is None


def test_what_the_data_path_does_not_accept_is_refused() -> None:
    """Raising is a refusal, with what it said."""
    path = DataPath()
    path.hear(update("1.1"))
    path.broken = True
    answer = path.hear(update("1.2"))
    assert isinstance(answer, Nack)
    assert (answer.errors[0].reason, answer.errors[0].message) == ("Rejected", "LookupError: no such provider")
    assert path.stream.snapshot is path.applied[-1]
    assert path.stream.snapshot.version == "1.1"


def test_an_epoch_that_was_refused_is_not_remembered() -> None:
    """Only what is in force raises the bar."""
    path = DataPath()
    path.hear(update("1.1"))
    path.broken = True
    path.hear(update("9.1", epoch=9))
    path.broken = False
    assert isinstance(path.hear(update("1.2", epoch=1)), Ack)
    assert isinstance(path.hear(update("5.1", epoch=5)), Ack)
    assert isinstance(path.hear(update("4.9", epoch=4)), Nack)


def test_a_repeated_frame_is_skipped_within_a_connection() -> None:
    """The next connection counts its own nonces."""
    path = DataPath()
    path.hear(update("1.1"))
    assert path.hear(update("1.1")) is None
    path.stream.hello()
    assert path.hear(update("1.1")) == Ack(version="1.1", nonce="n-1.1")


def test_pings_are_answered_and_bring_the_router_count() -> None:
    """The count is told on when it changes, from updates too."""
    path = DataPath()
    assert path.hear(Ping(id=7, routers=1)) == Pong(id=7)
    path.hear(Ping(id=8, routers=3))
    path.hear(Ping(id=9, routers=3))
    path.hear(update("1.1", routers=4))
    assert path.routers == [3, 4]


@pytest.mark.parametrize("frame", [b"", b"{", b"\xff", b'{"type":"hello"}', b"[" * 100_000], ids=lambda frame: repr(frame[:12]))
def test_what_is_no_message_is_a_bad_frame(frame: bytes) -> None:
    """The shell gives the connection up; the snapshot stays."""
    path = DataPath()
    path.hear(update("1.1"))
    with pytest.raises(BadFrameError):
        path.stream.receive(frame)
    assert path.stream.snapshot is path.applied[-1]


def test_a_snapshot_from_disk_is_put_in_force_like_any_other() -> None:
    """Its epoch counts; one that the data path refuses is no start."""
    snapshot = Snapshot(version="5.1", epoch=5, resources={key_of(cluster("a")): cluster("a")})
    path = DataPath()
    assert path.stream.restore(snapshot)
    assert path.applied == [snapshot]
    assert isinstance(path.hear(update("4.1", epoch=4)), Nack)
    broken = DataPath()
    broken.broken = True
    assert not broken.stream.restore(snapshot)
    assert broken.stream.snapshot is None


class Longest:
    """A source of chance that always gives the far end."""

    def uniform(self, _a: float, b: float) -> float:
        return b


@pytest.mark.parametrize(
    ("failures", "contacted", "span"),
    [
        (0, True, 2.0),
        (6, True, 2.0),
        (7, True, 4.0),
        (10_000, True, 4.0),
        (0, False, 0.25),
        (9, False, 4.0),
    ],
)
def test_the_span_of_the_jitter_grows_to_a_cap(failures: int, contacted: bool, span: float) -> None:
    """Two seconds after a stream that worked, a quarter at the start of a proxy's life."""
    assert delay_seconds(failures, contacted=contacted, rng=Longest()) == span  # type: ignore[arg-type]
