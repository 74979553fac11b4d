"""From one snapshot to the next: the result is checked, whole."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from spillway_sidecar.config.apply import MAX_FAULTS, apply_update
from spillway_sidecar.config.snapshot import Snapshot
from spillway_wire.messages import EndpointRemoval, ResourceName, Update
from spillway_wire.names import Provider
from spillway_wire.snapshot import (
    BackendRef,
    Cluster,
    Endpoint,
    Endpoints,
    Resource,
    Route,
    Rule,
    RuleWeights,
    Weights,
    encode_resource,
    key_of,
)

X = Cluster(name="ml/x", provider=Provider.VLLM, model="m")
Y = Cluster(name="ml/y", provider=Provider.SGLANG, model="m")


def route(*clusters: str, name: str = "ml/chat", models: tuple[str, ...] = ("m",)) -> Route:
    return Route(name=name, models=models, rules=(Rule(name="all", backends=tuple(BackendRef(cluster=one) for one in clusters)),))


def endpoints(count: int, first: int = 0) -> Endpoints:
    return Endpoints(name="ml/x", endpoints=tuple(Endpoint(id=f"e{n}", host="h", port=1) for n in range(first, first + count)))


def weights(rule: str = "all", cluster: str = "ml/x", name: str = "ml/chat") -> Weights:
    return Weights(name=name, rules=(RuleWeights(rule=rule, weights={cluster: 1.5}),))


def held(*resources: Resource, version: str = "1.1", epoch: int = 1) -> Snapshot:
    return Snapshot(version=version, epoch=epoch, resources={key_of(one): one for one in resources})


def full(*resources: Resource, **fields: Any) -> Update:
    return update(resources, base=None, full=True, **fields)


def changes(*resources: Resource, **fields: Any) -> Update:
    return update(resources, **fields)


def update(resources: Sequence[Resource], **fields: Any) -> Update:
    raws = tuple(msgspec.Raw(encode_resource(one)) for one in resources)
    return Update(**{"version": "1.2", "nonce": "n", "epoch": 1, "base": "1.1", "resources": raws, **fields})


def refused(current: Snapshot | None, wanted: Update, highest_epoch: int = 0) -> list[tuple[str, str]]:
    result = apply_update(current, wanted, highest_epoch)
    assert isinstance(result, tuple)
    assert all(fault.message for fault in result)
    return [(fault.path, str(fault.reason)) for fault in result]


def taken(current: Snapshot | None, wanted: Update, highest_epoch: int = 0) -> Snapshot:
    result = apply_update(current, wanted, highest_epoch)
    assert isinstance(result, Snapshot), result
    return result


def test_a_full_update_is_the_snapshot() -> None:
    """Whatever was held before is not in it."""
    snapshot = taken(held(X, Y), full(X, route("ml/x"), endpoints(2), weights()))
    assert snapshot == held(X, route("ml/x"), endpoints(2), weights(), version="1.2")
    assert snapshot.info() == {
        "version": "1.2",
        "epoch": 1,
        "resources": {"cluster": 1, "route": 1, "endpoints": 1, "weights": 1},
    }


def test_changes_replace_add_and_remove() -> None:
    """The rest is what was held, by identity; the held snapshot itself does not change."""
    before = held(X, Y, route("ml/x", "ml/y"))
    snapshot = taken(before, changes(route("ml/x"), endpoints(1), removed=(ResourceName(kind="cluster", name="ml/y"),)))
    assert snapshot.resources == held(X, route("ml/x"), endpoints(1)).resources
    assert snapshot.resources["cluster", "ml/x"] is X
    assert ("cluster", "ml/y") in before.resources


@pytest.mark.parametrize("current", [None, held(X, version="1.0")])
def test_changes_to_another_version_are_refused(current: Snapshot | None) -> None:
    """Nothing is ever mixed from two versions."""
    assert refused(current, changes(X)) == [("base", "BaseMismatch")]


def test_an_older_leader_is_refused() -> None:
    """Also with a full update; the same epoch goes on."""
    assert refused(held(X, epoch=3), full(X, epoch=2), highest_epoch=3) == [("epoch", "StaleEpoch")]
    assert taken(held(X, epoch=3), full(X, epoch=3), highest_epoch=3).epoch == 3


@pytest.mark.parametrize(
    ("resources", "path"),
    [
        ((X, route("ml/x", "ml/z")), "route/ml/chat.rules[0].backends[1].cluster"),
        ((endpoints(1),), "endpoints/ml/x"),
        ((X, weights()), "weights/ml/chat"),
        ((X, route("ml/x"), weights(rule="other")), "weights/ml/chat.rules[0].rule"),
        ((X, Y, route("ml/x"), weights(cluster="ml/y")), "weights/ml/chat.rules[0].weights"),
    ],
)
def test_references_resolve(resources: tuple[Resource, ...], path: str) -> None:
    """Each dangling one is named where it stands."""
    assert refused(None, full(*resources)) == [(path, "DanglingReference")]


def test_a_removal_that_leaves_a_reference_dangling_is_refused() -> None:
    """It is the result that counts, not the change."""
    gone = (ResourceName(kind="cluster", name="ml/x"),)
    assert refused(held(X, route("ml/x")), changes(removed=gone)) == [
        ("route/ml/chat.rules[0].backends[0].cluster", "DanglingReference")
    ]


def test_a_model_belongs_to_one_route_of_a_namespace() -> None:
    """Two namespaces may each have their own."""
    here, there = route("ml/x"), route("ml/x", name="ml/second", models=("n", "m"))
    assert refused(None, full(X, here, there)) == [("route/ml/second.models[1]", "ModelClaimedTwice")]
    taken(None, full(X, here, route("ml/x", name="dev/second")))


def test_what_must_be_unique_is() -> None:
    """Resources of an update, rules of a route, endpoints of a cluster."""
    twice = Route(name="ml/chat", models=("m",), rules=(route("ml/x").rules[0], route("ml/x").rules[0]))
    same = Endpoints(name="ml/x", endpoints=(endpoints(1).endpoints[0], endpoints(1).endpoints[0]))
    assert refused(None, full(X, X)) == [("cluster/ml/x", "Duplicate")]
    assert refused(None, full(X, twice)) == [("route/ml/chat.rules[1].name", "Duplicate")]
    assert refused(None, full(X, same)) == [("endpoints/ml/x.endpoints", "Duplicate")]


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        (b'{"kind":"endpoints","name":"ml/x","endpoints":[{"id":"e","host":"h","port":0}]}', "endpoints/ml/x.endpoints[0].port"),
        (b'{"kind":"weights","name":"r","rules":[{"rule":"a","weights":{"c":-1}}]}', "weights/r.rules[0].weights[...]"),
        (b'{"kind":"weights","name":"r","rules":[{"rule":"a","weights":{"c":1e999}}]}', "weights/r.rules[0].weights[...]"),
        (b'{"kind":"galaxy","name":"r"}', "galaxy/r.kind"),
        (b'{"kind":"cluster","name":"ml/x"}', "cluster/ml/x"),
        (b'{"kind":1,"name":"ml/x"}', "resources[0].kind"),
        (b"[]", "resources[0]"),
        (b'"\xff"', "resources[0]"),
    ],
)
def test_what_does_not_decode_is_named(raw: bytes, path: str) -> None:
    """By kind, name and the place within, as far as they can be read."""
    assert refused(None, Update(version="1", nonce="n", epoch=1, full=True, resources=(msgspec.Raw(raw),))) == [
        (path, "Undecodable")
    ]


def test_every_fault_is_told_up_to_what_a_nack_carries() -> None:
    """All at once, so that one look is enough."""
    routes = [route("ml/x", name=f"ml/r{n}", models=(f"m{n}",)) for n in range(100)]
    assert len(refused(None, full(*routes[:3]))) == 3
    assert len(refused(None, full(*routes))) == MAX_FAULTS


class TestLosingEndpoints:
    """More than half of a cluster goes only in so many words."""

    def test_half_may_go_without_a_word(self) -> None:
        """Two of four."""
        taken(held(X, endpoints(4)), changes(endpoints(2)))

    def test_more_than_half_may_not(self) -> None:
        """Three of four, and one of one."""
        assert refused(held(X, endpoints(4)), changes(endpoints(1))) == [("endpoints/ml/x", "EndpointsLost")]
        assert refused(held(X, endpoints(1)), changes(endpoints(0))) == [("endpoints/ml/x", "EndpointsLost")]

    def test_each_one_must_be_named(self) -> None:
        """All lost ones named: taken. One missing: refused. Those of another cluster do not help."""
        before, wanted = held(X, Y, endpoints(4)), endpoints(1)

        def named(cluster: str, *ids: str) -> Update:
            return changes(wanted, removed_endpoints=(EndpointRemoval(cluster=cluster, ids=ids),))

        taken(before, named("ml/x", "e1", "e2", "e3"))
        assert refused(before, named("ml/x", "e1", "e2")) == [("endpoints/ml/x", "EndpointsLost")]
        assert refused(before, named("ml/y", "e1", "e2", "e3")) == [("endpoints/ml/x", "EndpointsLost")]

    def test_replacement_is_loss_too(self) -> None:
        """As many endpoints as before, but other ones: pods that roll are named as they go."""
        assert refused(held(X, endpoints(4)), changes(endpoints(4, first=3))) == [("endpoints/ml/x", "EndpointsLost")]

    def test_a_cluster_or_its_endpoints_removed_by_name_are_named(self) -> None:
        """A backend that is deleted takes its endpoints along."""
        gone = tuple(ResourceName(kind=kind, name="ml/x") for kind in ("cluster", "endpoints"))
        taken(held(X, endpoints(4)), changes(removed=gone))
        taken(held(X, endpoints(4)), changes(removed=gone[1:]))

    def test_a_full_update_is_believed_only_from_a_settled_operator(self) -> None:
        """An operator that has just started and knows no pods yet takes no pool away, nor a cluster."""
        before = held(X, endpoints(4))
        assert refused(before, full(X)) == [("endpoints/ml/x", "EndpointsLost")]
        assert refused(before, full()) == [("endpoints/ml/x", "EndpointsLost")]
        taken(before, full(X, endpoints(2)))
        taken(before, full(settled=True))
        taken(None, full(X))

    def test_draining_is_not_loss(self) -> None:
        """An endpoint that drains is still there."""
        drained = json.loads(encode_resource(endpoints(4)))
        for one in drained["endpoints"]:
            one["draining"] = True
        taken(held(X, endpoints(4)), changes(msgspec.convert(drained, Endpoints)))
