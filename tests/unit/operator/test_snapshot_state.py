"""States and the differences between them."""

from __future__ import annotations

from tests.fakes.operator_core import endpoint

from spillway_operator.snapshot.builder import assemble, draft
from spillway_operator.snapshot.state import Changes, SnapshotState, changes, differing, encode
from spillway_wire.messages import EndpointRemoval, ResourceName
from spillway_wire.names import Provider
from spillway_wire.snapshot import Cluster, Endpoints, Resource, content_hash


def _cluster(name: str = "d/a", model: str = "m") -> Cluster:
    return Cluster(name=name, provider=Provider.VLLM, model=model)


def _state(*resources: Resource, previous: SnapshotState | None = None, version: str = "1.1") -> SnapshotState:
    base = previous or SnapshotState(version="1.0", epoch=1)
    drafts = {}
    for resource in resources:
        encoded = draft(resource, base.resources)
        drafts[encoded.key] = encoded
    return assemble(base, drafts, version) or base


def test_an_equal_resource_is_the_same_encoding():
    first = encode(_cluster(), {})
    assert encode(_cluster(), {first.key: first}) is first
    other = encode(_cluster(model="n"), {first.key: first})
    assert other is not first
    assert other.hash == content_hash(other.data) != first.hash


def test_changes_are_what_differs_and_what_is_gone():
    old = _state(_cluster("d/a"), _cluster("d/b"), _cluster("d/c"))
    new = _state(_cluster("d/a"), _cluster("d/b", "other"), _cluster("d/d"), previous=old, version="1.2")
    found = changes(old.resources, new)
    assert [encoded.key[1] for encoded in found.changed] == ["d/b", "d/d"]
    assert found.removed == (ResourceName(kind="cluster", name="d/c"),)
    assert found


def test_nothing_differs_between_a_state_and_itself():
    state = _state(_cluster())
    assert changes(state.resources, state) == Changes()
    assert not changes(state.resources, state)


def test_equal_content_under_another_object_is_no_change():
    state = _state(_cluster())
    held = {key: encode(encoded.resource, {}) for key, encoded in state.resources.items()}
    assert not changes(held, state)


def test_endpoints_that_a_proxy_loses_are_listed_however_far_behind_it_is():
    one = _state(_cluster(), Endpoints("d/a", tuple(endpoint(name) for name in "abc")))
    two = _state(_cluster(), Endpoints("d/a", tuple(endpoint(name) for name in "ab")), previous=one, version="1.2")
    three = _state(_cluster(), Endpoints("d/a", (endpoint("a"),)), previous=two, version="1.3")
    assert changes(one.resources, three).removed_endpoints == (EndpointRemoval(cluster="d/a", ids=("b", "c")),)
    assert changes(two.resources, three).removed_endpoints == (EndpointRemoval(cluster="d/a", ids=("b",)),)


def test_an_endpoint_that_came_back_is_not_withdrawn():
    one = _state(_cluster(), Endpoints("d/a", (endpoint("a"), endpoint("b"))))
    two = _state(_cluster(), Endpoints("d/a", (endpoint("a"),)), previous=one, version="1.2")
    assert two.withdrawn == {"d/a": frozenset("b")}
    three = _state(_cluster(), Endpoints("d/a", (endpoint("a"), endpoint("b"))), previous=two, version="1.3")
    assert three.withdrawn == {}


def test_withdrawn_ids_stay_while_the_endpoints_do_not_change():
    one = _state(_cluster(), Endpoints("d/a", (endpoint("a"), endpoint("b"))))
    two = _state(_cluster(), Endpoints("d/a", (endpoint("a"),)), previous=one, version="1.2")
    three = _state(_cluster(model="n"), Endpoints("d/a", (endpoint("a"),)), previous=two, version="1.3")
    assert three.withdrawn == {"d/a": frozenset("b")}


def test_withdrawn_ids_are_bounded():
    state = _state(_cluster(), Endpoints("d/a", (endpoint("keep"),)))
    for turn in range(12):
        many = tuple(endpoint(f"{turn}-{index}") for index in range(150))
        state = _state(_cluster(), Endpoints("d/a", many), previous=state, version=f"1.{turn + 2}")
    assert len(state.withdrawn["d/a"]) <= 1000 + 150
    assert "10-0" in state.withdrawn["d/a"]


def test_withdrawn_ids_go_with_their_cluster():
    one = _state(_cluster(), Endpoints("d/a", (endpoint("a"), endpoint("b"))))
    two = _state(_cluster(), Endpoints("d/a", ()), previous=one, version="1.2")
    assert two.withdrawn["d/a"] == frozenset("ab")
    assert _state(previous=two, version="1.3").withdrawn == {}


def test_differing_compares_content_of_the_named_keys_only():
    one = _state(_cluster("d/a"), _cluster("d/b"))
    two = _state(_cluster("d/a"), _cluster("d/b", "other"), previous=one, version="1.2")
    assert not differing([("cluster", "d/a"), ("cluster", "gone")], one.resources, two)
    assert differing([("cluster", "d/b")], one.resources, two)
    assert differing([("cluster", "d/a")], {}, two)
    assert not differing([("cluster", "d/a")], {("cluster", "d/a"): encode(_cluster("d/a"), {})}, two)


def test_info_tells_sizes():
    info = _state(_cluster()).info()
    assert info["resources"] == 1
    assert info["bytes"] > 20
    assert info["version"] == "1.1"
