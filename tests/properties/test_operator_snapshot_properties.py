"""What holds for states, whatever was declared and in whatever order it came."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from spillway_operator.snapshot.builder import assemble, draft
from spillway_operator.snapshot.state import EncodedResource, SnapshotState, changes
from spillway_wire.names import Provider
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
    content_hash,
    decode_resource,
    encode_resource,
)

names = st.sampled_from(["d/a", "d/b", "d/c", "e/a"])
clusters = st.builds(lambda name, model: Cluster(name=name, provider=Provider.VLLM, model=model), names, st.sampled_from("mn"))
endpoints = st.builds(
    lambda name, ids: Endpoints(name=name, endpoints=tuple(Endpoint(id=each, host="h", port=1) for each in sorted(ids))),
    names,
    st.sets(st.sampled_from("uvwxyz")),
)
rules = st.builds(
    lambda name, refs: Rule(name=name, backends=tuple(BackendRef(cluster=each) for each in sorted(refs))),
    st.sampled_from(["one", "two"]),
    st.sets(names, max_size=3),
)
routes = st.builds(
    lambda name, models, rule: Route(name=name, models=tuple(sorted(models)), rules=(rule,)),
    names,
    st.sets(st.sampled_from("xyz"), min_size=1),
    rules,
)
weights = st.builds(
    lambda name, rule, by_cluster: Weights(name=name, rules=(RuleWeights(rule=rule, weights=by_cluster),)),
    names,
    st.sampled_from(["one", "two"]),
    st.dictionaries(names, st.floats(0, 10), min_size=1),
)
worlds = st.lists(st.one_of(clusters, endpoints, routes, weights), max_size=12)

START = SnapshotState(version="1.0", epoch=1)


def _drafts(resources: list[Resource]) -> dict[ResourceKey, EncodedResource]:
    return {encoded.key: encoded for encoded in (draft(resource, {}) for resource in resources)}


def _course(course: list[list[Resource]]) -> list[SnapshotState]:
    states = [START]
    for turn, resources in enumerate(course, start=1):
        states.append(assemble(states[-1], _drafts(resources), f"1.{turn}") or states[-1])
    return states


@given(worlds)
def test_a_state_is_consistent(resources: list[Resource]):
    (_, state) = _course([resources])
    claimed = set()
    for (kind, name), encoded in state.resources.items():
        resource = encoded.resource
        if kind == "route":
            for rule in resource.rules:
                assert all(("cluster", ref.cluster) in state.resources for ref in rule.backends)
            for model in resource.models:
                key = (name.partition("/")[0], model)
                assert key not in claimed
                claimed.add(key)
        elif kind == "endpoints":
            assert ("cluster", name) in state.resources
        elif kind == "weights":
            route = state.resources["route", name].resource
            named = {rule.name: {ref.cluster for ref in rule.backends} for rule in route.rules}
            assert all(rule.weights and rule.weights.keys() <= named[rule.rule] for rule in resource.rules)


@given(worlds)
def test_what_is_encoded_is_what_it_says(resources: list[Resource]):
    (_, state) = _course([resources])
    for key, encoded in state.resources.items():
        assert encoded.key == key
        assert decode_resource(encoded.data) == encoded.resource
        assert encoded.data == encode_resource(encoded.resource)
        assert encoded.hash == content_hash(encoded.data)


@given(worlds)
def test_clusters_are_all_there_and_equal_worlds_are_one_state(resources: list[Resource]):
    drafts = _drafts(resources)
    state = assemble(START, drafts, "1.1") or START
    assert {key for key in drafts if key[0] == "cluster"} <= state.resources.keys()
    assert assemble(state, _drafts(list(reversed(resources))) if len(drafts) == len(resources) else drafts, "1.2") is None


@given(st.lists(worlds, min_size=1, max_size=5), st.integers(0, 5))
def test_changes_lead_from_any_state_to_the_newest(course: list[list[Resource]], behind: int):
    states = _course(course)
    old, new = states[max(0, len(states) - 1 - behind)], states[-1]
    found = changes(old.resources, new)
    held = {key: encoded.hash for key, encoded in old.resources.items()}
    for encoded in found.changed:
        assert held.get(encoded.key) != encoded.hash
        held[encoded.key] = encoded.hash
    for gone in found.removed:
        del held[gone.kind, gone.name]
    assert held == {key: encoded.hash for key, encoded in new.resources.items()}
    assert bool(found) == (held != {key: encoded.hash for key, encoded in old.resources.items()})


@given(st.lists(worlds, min_size=1, max_size=5), st.integers(0, 5))
def test_every_endpoint_that_is_lost_beside_its_cluster_is_listed(course: list[list[Resource]], behind: int):
    states = _course(course)
    at = max(0, len(states) - 1 - behind)
    old, new = states[at], states[-1]
    listed = {removal.cluster: set(removal.ids) for removal in changes(old.resources, new).removed_endpoints}
    for key, encoded in new.resources.items():
        if key[0] != "endpoints" or key not in old.resources:
            continue
        # A cluster that was away in between begins anew, and nobody vouches for what it lost.
        if any(key not in state.resources for state in states[at:]):
            continue
        before = {each.id for each in old.resources[key].resource.endpoints}
        lost = before - {each.id for each in encoded.resource.endpoints}
        assert listed.get(key[1], set()) == lost
