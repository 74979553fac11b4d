"""Frames: what is in them, and that they are shared."""

from __future__ import annotations

import pytest

from spillway_operator.discovery.updates import Updates, close_frame, text_frame
from spillway_operator.snapshot.state import SnapshotState, encode
from spillway_wire.messages import EndpointRemoval, ResourceName, Update, decode_from_operator
from spillway_wire.names import Provider
from spillway_wire.snapshot import Cluster, Endpoint, Endpoints, Resource, decode_resource, key_of


def cluster(name: str, limit: int = 1) -> Cluster:
    return Cluster(name=name, provider=Provider.VLLM, model=f"m{limit}")


def endpoints(name: str, *ids: str) -> Endpoints:
    return Endpoints(name=name, endpoints=tuple(Endpoint(id=one, host="h", port=1) for one in ids))


def state(version: str, *items: Resource, withdrawn: dict[str, frozenset[str]] | None = None) -> SnapshotState:
    resources = {key_of(item): encode(item, {}) for item in items}
    return SnapshotState(version=version, epoch=4, resources=resources, withdrawn=withdrawn or {})


def payload(wire: bytes) -> bytes:
    length, start = wire[1], 2
    if length == 126:
        length, start = int.from_bytes(wire[2:4], "big"), 4
    elif length == 127:
        length, start = int.from_bytes(wire[2:10], "big"), 10
    assert (wire[0], len(wire) - start) == (0x81, length)
    return wire[start:]


def opened(updates: Updates, held: str | None, scope: str = "") -> tuple[Update, list[Resource]]:
    frame = updates.frame(held, scope, routers=3)
    assert frame is not None
    update = decode_from_operator(payload(frame.wire))
    assert isinstance(update, Update)
    assert (update.version, update.nonce, update.full) == (frame.version, frame.nonce, frame.full)
    assert (update.epoch, update.routers) == (4, 3)
    return update, [decode_resource(raw) for raw in update.resources]


@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536])
def test_frame_heads(size: int) -> None:
    """The three forms of a length (RFC 6455, 5.2)."""
    assert payload(text_frame(b"x" * size)) == b"x" * size


def test_close_frames_are_control_frames() -> None:
    """At most 125 bytes of payload."""
    assert close_frame(1008, "bad frame") == b"\x88\x0b\x03\xf0bad frame"
    assert len(close_frame(1008, "x" * 500)) == 127


def test_before_the_first_state_there_is_no_frame() -> None:
    """A proxy that comes early waits."""
    assert Updates().frame(None, "", 1) is None


def test_first_contact_and_unknown_versions_get_everything() -> None:
    """One full frame for both."""
    updates = Updates()
    updates.advance(state("4.1", cluster("a/x"), endpoints("a/x", "e")))
    update, resources = opened(updates, None)
    assert (update.full, update.base, resources) == (True, None, [cluster("a/x"), endpoints("a/x", "e")])
    assert updates.frame("3.9", "", 3) is updates.frame(None, "", 3)


def test_a_known_version_gets_what_changed_since() -> None:
    """Changed resources, removed names, endpoints withdrawn on purpose; whatever lies between is skipped."""
    updates = Updates()
    updates.advance(state("4.1", cluster("a/x"), cluster("a/y"), endpoints("a/x", "e", "f", "g")))
    updates.advance(state("4.2", cluster("a/x", 2), cluster("a/y"), endpoints("a/x", "e", "f", "g")))
    updates.advance(state("4.3", cluster("a/x", 3), endpoints("a/x", "e"), withdrawn={"a/x": frozenset({"f", "h"})}))
    update, resources = opened(updates, "4.1")
    assert (update.full, update.base) == (False, "4.1")
    assert resources == [cluster("a/x", 3), endpoints("a/x", "e")]
    assert update.removed == (ResourceName(kind="cluster", name="a/y"),)
    assert update.removed_endpoints == (EndpointRemoval(cluster="a/x", ids=("f",)),)


def test_frames_are_shared_and_made_once() -> None:
    """The same object for all proxies that are alike; another version or scope has its own."""
    updates = Updates()
    updates.advance(state("4.1", cluster("a/x")))
    updates.advance(state("4.2", cluster("a/x", 2)))
    frames = [updates.frame("4.1", "", 1) for _ in range(1000)]
    assert all(frame is frames[0] for frame in frames)
    assert updates.frame("4.1", "a", 1) is not frames[0]
    assert updates.info()["frames_assembled"] == 2


def test_a_namespaced_node_is_told_about_its_namespace() -> None:
    """Names that begin alike are not the same namespace; a change elsewhere is an empty update with the version."""
    updates = Updates()
    updates.advance(state("4.1", cluster("a/x"), cluster("ab/x"), withdrawn={"a/x": frozenset("e"), "b/x": frozenset("f")}))
    update, resources = opened(updates, None, scope="a")
    assert resources == [cluster("a/x")]
    assert update.removed_endpoints == (EndpointRemoval(cluster="a/x", ids=("e",)),)
    updates.advance(state("4.2", cluster("a/x"), cluster("ab/x", 2)))
    update, resources = opened(updates, "4.1", scope="a")
    assert (update.version, update.base, resources, update.removed) == ("4.2", "4.1", [], ())


def test_history_is_bounded_by_states_and_by_entries() -> None:
    """What has left is answered in full; the newest never leaves."""
    updates = Updates(max_states=2)
    for number in range(4):
        updates.advance(state(f"4.{number}", cluster("a/x", number)))
    assert [updates.knows(f"4.{number}") for number in range(4)] == [False, False, True, True]
    assert opened(updates, "4.1")[0].full
    small = Updates(max_entries=1)
    small.advance(state("4.1", cluster("a/x"), cluster("a/y")))
    assert small.knows("4.1")
    small.advance(state("4.2", cluster("a/x"), cluster("a/y")))
    assert (small.knows("4.1"), small.knows("4.2"), small.info()["entries"]) == (False, True, 2)


def test_a_full_update_vouches_only_when_settled() -> None:
    """And changes never do: they name what goes."""
    updates = Updates()
    updates.advance(state("4.1", cluster("a/x")))
    assert not opened(updates, None)[0].settled
    updates.settle()
    assert opened(updates, None)[0].settled
    updates.advance(state("4.2", cluster("a/x", 2)))
    assert not opened(updates, "4.1")[0].settled


def test_the_same_version_again_changes_nothing() -> None:
    """Publishing is idempotent."""
    updates = Updates()
    updates.advance(state("4.1", cluster("a/x")))
    frame = updates.frame(None, "", 1)
    updates.advance(state("4.1", cluster("a/x")))
    assert updates.frame(None, "", 1) is frame
    assert updates.info()["states"] == 1


def test_endpoints_of_a_cluster_that_went_and_came_back_went_on_purpose() -> None:
    """A backend deleted and declared again with other pods, while the proxy was away: all that it had are named."""
    updates = Updates()
    updates.advance(state("4.1", cluster("a/x"), endpoints("a/x", "e", "f")))
    updates.advance(state("4.2"))
    updates.advance(state("4.3", cluster("a/x"), endpoints("a/x", "g")))
    update, _ = opened(updates, "4.1")
    assert update.removed_endpoints == (EndpointRemoval(cluster="a/x", ids=("e", "f")),)
    assert opened(updates, "4.2")[0].removed_endpoints == ()


def test_what_any_state_between_withdrew_is_named() -> None:
    """Also when the newest has forgotten it; what nobody withdrew is not named."""
    updates = Updates()
    updates.advance(state("4.1", endpoints("a/x", "e", "f", "g")))
    updates.advance(state("4.2", endpoints("a/x", "f", "g"), withdrawn={"a/x": frozenset({"e"})}))
    updates.advance(state("4.3", endpoints("a/x", "g")))
    assert opened(updates, "4.1")[0].removed_endpoints == (EndpointRemoval(cluster="a/x", ids=("e",)),)
    assert opened(updates, "4.2")[0].removed_endpoints == ()
