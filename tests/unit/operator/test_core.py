"""The core: from store to snapshot to status, on a clock that the test moves."""

from __future__ import annotations

import asyncio
import logging

import pytest
from tests.fakes.operator_core import Bench, backend, endpoint, entry, route

from spillway_operator.api import ObjectKey
from spillway_operator.api.documents import Problem
from spillway_operator.reconcile import backend as backend_module
from spillway_operator.reconcile import route as route_module
from spillway_operator.reconcile.core import Core
from spillway_operator.reconcile.world import World
from spillway_operator.snapshot.state import SnapshotState
from spillway_operator.store import BACKEND, ROUTE, Entry
from spillway_wire.loads import Load
from spillway_wire.messages import Fault
from spillway_wire.names import Role
from spillway_wire.snapshot import Endpoints, Route

CHAT = ObjectKey(ROUTE, "default", "chat")
FAST = ObjectKey(BACKEND, "default", "fast")


@pytest.fixture
def bench() -> Bench:
    return Bench()


def _keys(bench: Bench) -> set[tuple[str, str]]:
    return set(bench.publisher.current.resources)


def _clusters(bench: Bench, name: str = "default/chat") -> list[str]:
    found = bench.publisher.current.resources["route", name].resource
    assert isinstance(found, Route)
    return [ref.cluster for rule in found.rules for ref in rule.backends]


# -- snapshots


def test_an_empty_store_is_published_once(bench: Bench):
    bench.step()
    bench.step()
    assert [state.version for state in bench.publisher.states] == ["7.0"]


def test_what_is_declared_is_published_as_one_state(bench: Bench):
    bench.put(backend("fast"), backend("slow"), route(refs=[{"name": "fast"}, {"name": "slow"}]))
    bench.store.set_endpoints({"default/fast": [endpoint("fast-0")]})
    bench.step()
    (state,) = bench.publisher.states
    assert state.version == "7.1"
    assert set(state.resources) == {
        ("cluster", "default/fast"), ("cluster", "default/slow"), ("endpoints", "default/fast"),
        ("endpoints", "default/slow"), ("route", "default/chat"),
    }  # fmt: skip
    assert _clusters(bench) == ["default/fast", "default/slow"]


def test_nothing_is_published_at_rest(bench: Bench):
    bench.put(backend(), route())
    for _ in range(50):
        bench.step(0.5)
    assert len(bench.publisher.states) == 1


def test_many_changes_are_one_state(bench: Bench):
    bench.put(backend(), route())
    bench.step()
    for index in range(20):
        bench.put(backend(f"b{index}"))
    bench.step()
    assert len(bench.publisher.states) == 2


def test_an_edit_reencodes_what_it_touches_only(bench: Bench):
    bench.put(backend("fast"), backend("slow"), route())
    bench.step()
    before = bench.publisher.current
    bench.put(backend("fast", model="other", generation=2))
    bench.step()
    after = bench.publisher.current
    same = [key for key in after.resources if after.resources[key] is before.resources[key]]
    assert set(after.resources) - set(same) == {("cluster", "default/fast")}


def test_a_deleted_backend_leaves_snapshot_and_route_together(bench: Bench):
    bench.put(backend("fast"), backend("slow"), route(refs=[{"name": "fast"}, {"name": "slow"}]))
    bench.step()
    bench.store.remove(FAST)
    bench.step()
    assert len(bench.publisher.states) == 2
    assert _clusters(bench) == ["default/slow"]
    assert ("endpoints", "default/fast") not in _keys(bench)
    assert bench.condition(CHAT, "ResolvedRefs") == ("False", "BackendNotFound")


def test_a_deleted_route_leaves_the_snapshot(bench: Bench):
    bench.put(backend(), route())
    bench.step()
    bench.store.remove(CHAT)
    bench.step()
    assert ("route", "default/chat") not in _keys(bench)
    assert bench.store.status(CHAT) is None


def test_a_rule_whose_backends_all_fail_to_resolve_is_there_and_empty(bench: Bench):
    bench.put(route(refs=[{"name": "nope"}]))
    bench.step()
    assert _clusters(bench) == []
    assert bench.condition(CHAT, "Ready") == ("False", "NoReadyBackend")


def test_an_external_backend_has_its_own_host_as_endpoint(bench: Bench):
    bench.put(backend("near", external={"url": "http://127.0.0.1:11434/v1"}))
    bench.step()
    found = bench.publisher.current.resources["endpoints", "default/near"].resource
    assert isinstance(found, Endpoints)
    assert [each.id for each in found.endpoints] == ["default/near/external"]


def test_a_host_that_is_not_allowed_keeps_its_backend_out(bench: Bench):
    far = backend("far", external={"url": "http://models.example.com/v1"})
    bench.put(far, route(refs=[{"name": "far"}]))
    bench.step()
    assert ("cluster", "default/far") not in _keys(bench)
    assert bench.condition(far, "Accepted") == ("False", "HostNotAllowed")
    assert bench.condition(CHAT, "ResolvedRefs") == ("False", "BackendNotAccepted")


# -- documents gone bad


def test_an_invalid_edit_keeps_the_last_good_version_in_force(bench: Bench):
    bench.put(backend(), route(generation=3))
    bench.step()
    problem = Problem("a.yaml", 9, "spec.models", "empty: name a model", CHAT)
    good = bench.store.get(CHAT)
    assert good is not None
    bench.store.put(Entry(key=CHAT, object=good.object, age=good.age, problems=(problem,)))
    bench.step()
    assert len(bench.publisher.states) == 1
    assert bench.condition(CHAT, "Accepted") == ("False", "Invalid")
    assert bench.message(CHAT, "Accepted") == "a.yaml:9: spec.models: empty: name a model"
    status = bench.store.status(CHAT)
    assert status is not None
    assert status.observed_generation == 3


def test_an_object_that_never_was_good_has_a_status_and_nothing_else(bench: Bench):
    for key in (CHAT, FAST):
        bench.store.put(Entry(key=key, object=None, problems=(Problem("a.yaml", 1, "", "bad", key),)))
    bench.step()
    assert _keys(bench) == set()
    assert bench.condition(CHAT, "Accepted") == ("False", "Invalid")
    assert bench.condition(FAST, "Accepted") == ("False", "Invalid")


# -- model names


def test_the_younger_of_two_routes_is_not_accepted_and_gets_its_turn_when_the_older_goes(bench: Bench):
    young = route("a-young", models=["chat", "more"])
    bench.store.put(entry(route("chat"), line=1))
    bench.store.put(entry(young, line=2))
    bench.step()
    assert _keys(bench) == {("route", "default/chat")}
    assert bench.condition(young, "Accepted") == ("False", "Conflicted")
    assert "older route chat" in bench.message(young, "Accepted")
    assert bench.condition(CHAT, "Accepted") == ("True", "Accepted")
    assert bench.core.info()["conflicts"] == {"default/a-young": ["chat"]}
    bench.store.remove(CHAT)
    bench.step()
    assert _keys(bench) == {("route", "default/a-young")}
    assert bench.condition(young, "Accepted") == ("True", "Accepted")


def test_the_outcome_is_the_same_whatever_came_first(bench: Bench):
    bench.store.put(entry(route("second"), line=9))
    bench.step()
    assert _keys(bench) == {("route", "default/second")}
    bench.store.put(entry(route("first"), line=2))
    bench.step()
    assert _keys(bench) == {("route", "default/first")}


def test_one_name_in_two_namespaces_is_no_conflict(bench: Bench):
    bench.put(route("chat"), route("chat", namespace="ml"))
    bench.step()
    assert _keys(bench) == {("route", "default/chat"), ("route", "ml/chat")}


# -- failures


def test_a_look_that_fails_harms_its_own_object_only_and_is_tried_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    bench.put(backend("fast"), backend("slow"), route(refs=[{"name": "fast"}, {"name": "slow"}]))
    bench.step()
    whole = backend_module.reconcile

    def broken(world: World, key: ObjectKey) -> None:
        if key == FAST:
            raise RuntimeError("a defect")
        whole(world, key)

    monkeypatch.setattr(backend_module, "reconcile", broken)
    bench.put(backend("fast", model="v2", generation=2), backend("slow", model="v2", generation=2))
    with caplog.at_level(logging.ERROR):
        bench.step()
    assert "ModelBackend default/fast failed" in caplog.text
    assert bench.condition(FAST, "Accepted") == ("False", "ReconcileFailed")
    assert "a defect" in bench.message(FAST, "Accepted")
    resources = bench.publisher.current.resources
    assert resources["cluster", "default/slow"].resource.model == "v2"
    assert resources["cluster", "default/fast"].resource.model == "models/fast"
    assert bench.core.info()["failures"] == {str(FAST): "RuntimeError: a defect"}
    monkeypatch.undo()
    bench.step(1.0)
    bench.step()
    assert bench.condition(FAST, "Accepted") == ("True", "Accepted")
    assert bench.publisher.current.resources["cluster", "default/fast"].resource.model == "v2"


def test_failures_wait_longer_and_longer(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    looks = []

    def broken(world: World, key: ObjectKey) -> None:
        looks.append(bench.now)
        raise RuntimeError("a defect")

    monkeypatch.setattr(backend_module, "reconcile", broken)
    bench.put(backend())
    for _ in range(100):
        bench.step(0.1)
    assert 4 <= len(looks) <= 8
    assert looks[3] - looks[2] > looks[1] - looks[0]


def test_a_status_that_cannot_be_made_harms_no_other(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    bench.put(backend("fast"), backend("slow"))
    whole = bench.world.endpoints

    def broken(cluster: str) -> Endpoints | None:
        if cluster == "default/fast":
            raise RuntimeError("a defect")
        return whole(cluster)

    monkeypatch.setattr(type(bench.world), "endpoints", lambda _, cluster: broken(cluster))
    with caplog.at_level(logging.ERROR):
        bench.step()
    assert "status: ModelBackend default/fast failed" in caplog.text
    assert bench.condition(ObjectKey(BACKEND, "default", "slow"), "Accepted") == ("True", "Accepted")


def test_claims_that_fail_do_not_stop_the_rest(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    def broken(world: World, namespace: str) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(route_module, "reconcile_claims", broken)
    bench.put(backend(), route())
    bench.step()
    assert ("route", "default/chat") in _keys(bench)


def test_a_publisher_that_raises_is_tried_at_the_next_change(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    def broken(state: SnapshotState) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(bench.publisher, "publish", broken)
    bench.put(backend())
    bench.step()
    monkeypatch.undo()
    bench.put(backend("slow"))
    bench.step()
    assert ("cluster", "default/slow") in _keys(bench)


# -- proxies


def _served(bench: Bench) -> None:
    """One backend with two endpoints behind connected sidecars, one gateway, one route; everybody has it."""
    bench.put(backend(), route())
    bench.store.set_endpoints({"default/fast": [endpoint("fast-0"), endpoint("fast-1")]})
    bench.step()
    for name in ("fast-0", "fast-1"):
        bench.publisher.connect(name)
        bench.report(name, Load(in_flight=1, max_concurrency=10))
    bench.publisher.connect("gateway-0", role=Role.GATEWAY)
    bench.publisher.ack()
    bench.step()


def test_acknowledgements_become_programmed_and_synced(bench: Bench):
    _served(bench)
    assert bench.condition(CHAT, "Programmed") == ("True", "Programmed")
    assert bench.condition(CHAT, "Ready") == ("True", "BackendsReady")
    document = bench.store.documents(ROUTE)[0]
    assert document["status"]["summary"]["synced"] == "3/3"
    assert document["status"]["summary"]["backends"] == "1/1"


def test_a_change_on_its_way_names_the_laggards_and_keeps_ready(bench: Bench):
    _served(bench)
    bench.put(backend(), route(refs=[{"name": "fast", "weight": 5}], generation=2))
    bench.step()
    assert bench.condition(CHAT, "Programmed") == ("False", "Pending")
    assert bench.condition(CHAT, "Ready")[0] == "True"
    bench.publisher.ack("fast-0", "gateway-0")
    bench.step()
    assert bench.message(CHAT, "Programmed") == "2 of 3 proxies run it; waiting for fast-1"
    bench.publisher.ack("fast-1")
    bench.step()
    assert bench.condition(CHAT, "Programmed") == ("True", "Programmed")


def test_another_routes_change_does_not_unprogram_this_one(bench: Bench):
    _served(bench)
    bench.put(route("other", models=["other"]))
    bench.step()
    assert bench.condition(CHAT, "Programmed") == ("True", "Programmed")


def test_a_refusal_is_shown_with_path_and_reason(bench: Bench):
    _served(bench)
    bench.put(backend(), route(refs=[{"name": "fast", "weight": 5}], generation=2))
    bench.step()
    elsewhere = Fault(path="cluster/default/x", reason="Undecodable", message="?")
    own = Fault(path="route/default/chat.rules[0]", reason="Rejected", message="no")
    bench.publisher.nack("fast-0", elsewhere)
    bench.publisher.nack("gateway-0", elsewhere, own)
    bench.publisher.ack("fast-1")
    bench.step()
    assert bench.condition(CHAT, "Programmed") == ("False", "Rejected")
    assert bench.message(CHAT, "Programmed") == "Refused by fast-0, gateway-0: route/default/chat.rules[0]: Rejected: no"


def test_a_refusal_for_anothers_sake_is_shown_too(bench: Bench):
    _served(bench)
    bench.put(backend(), route(refs=[{"name": "fast", "weight": 5}], generation=2))
    bench.step()
    bench.publisher.nack("fast-0", Fault(path="route/default/chat-two.rules[0]", reason="Rejected", message="no"))
    bench.step()
    assert "route/default/chat-two.rules[0]" in bench.message(CHAT, "Programmed")


@pytest.mark.parametrize(("alone", "epoch"), [(True, 10), (False, 7)])
def test_an_epoch_that_proxies_refuse_as_old_is_overtaken_where_no_lease_gives_it(alone: bool, epoch: int):
    bench = Bench(alone=alone)
    _served(bench)
    bench.publisher.nack("fast-0", Fault(path="epoch", reason="StaleEpoch", message="?"), keeps="9.3")
    bench.publisher.nack("fast-1", Fault(path="x", reason="Undecodable", message="?"), keeps="12.1")
    bench.step()
    assert bench.world.state.epoch == epoch
    assert bench.publisher.current.version.startswith(f"{epoch}.")
    version = bench.publisher.current.version
    bench.step()
    assert bench.publisher.current.version == version


def test_an_endpoint_is_ready_when_its_sidecar_is_there_and_its_engine_is_up(bench: Bench):
    _served(bench)
    assert bench.store.documents(BACKEND)[0]["status"]["summary"]["endpoints"] == "2/2"
    bench.report("fast-0", Load(engine_up=False))
    bench.step()
    assert bench.store.documents(BACKEND)[0]["status"]["summary"]["endpoints"] == "1/2"
    bench.publisher.disconnect("fast-1")
    bench.step()
    assert bench.condition(FAST, "Ready") == ("False", "NoReadyEndpoint")
    assert bench.condition(FAST, "Reachable") == ("False", "EngineDown")
    assert bench.condition(CHAT, "Ready") == ("False", "NoReadyBackend")
    assert len(bench.publisher.states) == 1


def test_a_proxys_problem_makes_its_backend_not_ready(bench: Bench):
    from spillway_wire.loads import ClusterProblem

    near = backend("near", external={"url": "http://localhost/v1"})
    bench.put(near)
    bench.step()
    assert bench.condition(near, "Ready") == ("True", "EndpointsReady")
    bench.publisher.connect("gateway-0", role=Role.GATEWAY)
    bench.report("gateway-0", problems=(ClusterProblem(cluster="default/near", reason="SecretMissing", message="no key"),))
    bench.step()
    assert bench.condition(near, "Ready") == ("False", "SecretMissing")
    bench.report("gateway-0")
    bench.step()
    assert bench.condition(near, "Ready") == ("True", "EndpointsReady")


def test_an_endpoint_that_says_goodbye_drains_until_a_new_process_speaks_for_it(bench: Bench):
    _served(bench)

    def draining() -> list[str]:
        found = bench.publisher.current.resources["endpoints", "default/fast"].resource
        assert isinstance(found, Endpoints)
        return [each.id for each in found.endpoints if each.draining]

    bench.publisher.connect("fast-0", draining=True)
    bench.step()
    assert draining() == ["fast-0"]
    bench.publisher.disconnect("fast-0")
    bench.step()
    assert draining() == ["fast-0"]
    bench.publisher.connect("fast-0", boot="b2")
    bench.step()
    assert draining() == []


def test_a_drained_node_without_an_endpoint_is_forgotten(bench: Bench):
    _served(bench)
    bench.publisher.connect("gateway-1", role=Role.GATEWAY, draining=True)
    bench.step()
    assert bench.core.info()["draining"] == ["gateway-1"]
    bench.publisher.disconnect("gateway-1")
    bench.step()
    assert bench.core.info()["draining"] == []


# -- pace


def test_load_figures_are_written_once_a_second_and_conditions_at_once(bench: Bench):
    _served(bench)
    bench.step(1.0)
    bench.step(1.0)

    def running_after(in_flight: int, seconds: float, *, engine_up: bool = True) -> int:
        bench.report("fast-0", Load(in_flight=in_flight, max_concurrency=10, engine_up=engine_up))
        bench.report("fast-1", Load(max_concurrency=10))
        bench.core.on_node_change()
        bench.step(seconds)
        return int(bench.store.documents(BACKEND)[0]["status"]["load"]["running"])

    assert running_after(5, 0.1) == 5
    assert running_after(6, 0.4) == 5
    assert running_after(7, 0.4) == 5
    assert running_after(8, 0.3) == 8
    assert running_after(9, 0.1, engine_up=False) == 9


def test_transitions_are_logged_once_each(bench: Bench, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO, logger="spillway_operator.reconcile.status"):
        _served(bench)
        bench.step(1.0)
        bench.step(1.0)
        caplog.clear()
        for name in ("fast-0", "fast-1"):
            bench.report(name, Load(engine_up=False))
        bench.step()
        bench.step()
    told = [record.getMessage() for record in caplog.records]
    assert told == [
        "status: ModelBackend default/fast: Ready=False NoReadyEndpoint: 0 of 2 endpoints ready; waiting for fast-0, fast-1",
        "status: ModelRoute default/chat: Ready=False NoReadyBackend: No rule has a backend that is ready",
    ]
    assert {record.levelname for record in caplog.records} == {"WARNING"}


def test_a_burst_of_changes_is_one_pass_over_the_statuses(bench: Bench):
    _served(bench)
    bench.step(1.0)
    count = bench.registry.get_sample_value("spillway_operator_status_pass_seconds_count")
    for _ in range(20):
        bench.core.on_node_change()
        bench.step(0.002)
    after = bench.registry.get_sample_value("spillway_operator_status_pass_seconds_count")
    assert count is not None
    assert after is not None
    assert after - count <= 2


def test_the_core_sleeps_until_something_is_due(bench: Bench):
    _served(bench)
    bench.step(0.3)
    assert 0 < bench.core.due_in(bench.now) <= 0.5
    bench.put(backend("slow"))
    assert bench.core.due_in(bench.now) == 0


async def test_the_loop_wakes_up_for_a_change():
    bench = Bench()
    bench.core = Core(
        world=bench.world,
        status=bench.status_pass,
        metrics=bench.metrics,
        clock=asyncio.get_running_loop().time,
        rng=bench.core.queue._rng,
        pace=bench.core._pace,
        policy=bench.core._policy,
        bounds=bench.core._bounds,
    )
    bench.store.watch(bench.core.on_change)
    task = asyncio.create_task(bench.core.run())
    async with asyncio.timeout(5):
        while not bench.publisher.states:  # noqa: ASYNC110 - the fake has no event
            await asyncio.sleep(0)
        bench.put(backend())
        while len(bench.publisher.states) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ("cluster", "default/fast") in bench.publisher.current.resources
