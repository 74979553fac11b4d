"""Assembly: consistent whatever the drafts, equal content reused, bad resources refused one by one."""

from __future__ import annotations

import pytest
from tests.fakes import resources
from tests.fakes.operator_core import backend, endpoint, route

from spillway_operator.api import ModelBackend, ModelRoute
from spillway_operator.snapshot.builder import UndecodableResourceError, assemble, draft
from spillway_operator.snapshot.state import EncodedResource, SnapshotState
from spillway_operator.snapshot.translate import cluster_of, external_endpoint, route_of
from spillway_wire import snapshot as wire
from spillway_wire.names import Provider, RequestType, SchedulingProfile, Scorer

EMPTY = SnapshotState(version="1.0", epoch=1)


def _drafts(*resources: wire.Resource) -> dict[wire.ResourceKey, EncodedResource]:
    return {encoded.key: encoded for encoded in (draft(resource, {}) for resource in resources)}


def _cluster(name: str = "d/a") -> wire.Cluster:
    return wire.Cluster(name=name, provider=Provider.VLLM, model="m")


def _route(name: str = "d/r", models: tuple[str, ...] = ("m",), clusters: tuple[str, ...] = ("d/a", "d/b")) -> wire.Route:
    backends = tuple(wire.BackendRef(cluster=cluster) for cluster in clusters)
    return wire.Route(name=name, models=models, rules=(wire.Rule(name="all", backends=backends),))


def _assembled(*resources: wire.Resource) -> dict[wire.ResourceKey, wire.Resource]:
    state = assemble(EMPTY, _drafts(*resources), "1.1")
    return {} if state is None else {key: encoded.resource for key, encoded in state.resources.items()}


def test_nothing_new_is_no_state():
    drafts = _drafts(_cluster())
    state = assemble(EMPTY, drafts, "1.1")
    assert state is not None
    assert state.version == "1.1"
    assert assemble(state, drafts, "1.2") is None
    assert assemble(state, _drafts(_cluster()), "1.2") is None


def test_unchanged_resources_keep_their_encoding():
    first = assemble(EMPTY, _drafts(_cluster("d/a"), _route()), "1.1")
    assert first is not None
    second = assemble(first, _drafts(_cluster("d/a"), _cluster("d/c"), _route()), "1.2")
    assert second is not None
    for key in (("cluster", "d/a"), ("route", "d/r")):
        assert second.resources[key] is first.resources[key]


def test_a_route_keeps_the_backends_that_are_there():
    found = _assembled(_cluster("d/a"), _route())["route", "d/r"]
    assert isinstance(found, wire.Route)
    assert [ref.cluster for ref in found.rules[0].backends] == ["d/a"]


def test_a_rule_without_any_backend_stays_empty():
    found = _assembled(_route())["route", "d/r"]
    assert isinstance(found, wire.Route)
    assert found.rules[0].backends == ()


def test_a_backend_that_appears_resolves_without_another_draft_of_the_route():
    one = assemble(EMPTY, _drafts(_cluster("d/a"), _route()), "1.1")
    assert one is not None
    two = assemble(one, _drafts(_cluster("d/a"), _cluster("d/b"), _route()), "1.2")
    assert two is not None
    found = two.resources["route", "d/r"].resource
    assert isinstance(found, wire.Route)
    assert [ref.cluster for ref in found.rules[0].backends] == ["d/a", "d/b"]


def test_endpoints_stand_only_beside_their_cluster():
    endpoints = wire.Endpoints("d/a", (endpoint("a"),))
    assert _assembled(endpoints) == {}
    assert ("endpoints", "d/a") in _assembled(endpoints, _cluster())


def test_weights_name_only_what_their_rule_has():
    weights = wire.Weights(
        "d/r",
        (
            wire.RuleWeights("all", {"d/a": 1.0, "d/b": 2.0, "d/x": 3.0}),
            wire.RuleWeights("gone", {"d/a": 1.0}),
        ),
    )
    found = _assembled(weights, _cluster("d/a"), _route())["weights", "d/r"]
    assert found == wire.Weights("d/r", (wire.RuleWeights("all", {"d/a": 1.0}),))


def test_weights_that_fit_are_left_as_they_are():
    weights = wire.Weights("d/r", (wire.RuleWeights("all", {"d/a": 1.0}),))
    assert _assembled(weights, _cluster("d/a"), _route())["weights", "d/r"] is weights


@pytest.mark.parametrize("rule", ["all", "gone"])
def test_weights_without_anything_left_are_left_out(rule: str):
    weights = wire.Weights("d/r", (wire.RuleWeights(rule, {"d/x": 1.0}),))
    assert ("weights", "d/r") not in _assembled(weights, _cluster("d/a"), _route())
    assert ("weights", "d/r") not in _assembled(weights)


def test_no_two_routes_of_a_namespace_claim_a_model():
    found = _assembled(_route("d/r", ("m", "n")), _route("d/s", ("n",)), _route("e/s", ("n",)))
    assert set(found) == {("route", "d/r"), ("route", "e/s")}


def test_a_resource_that_a_proxy_would_refuse_is_no_draft():
    bad = wire.Cluster(name="d/a", provider=Provider.VLLM, model="m", limits=wire.Limits(max_concurrency=0))
    with pytest.raises(UndecodableResourceError, match=r"cluster d/a: .*max_concurrency"):
        draft(bad, {})


def test_a_known_draft_is_not_proved_again():
    first = draft(_cluster(), {})
    assert draft(_cluster(), {first.key: first}) is first


# -- translation


def test_a_backend_in_pods_becomes_a_cluster_with_its_defaults():
    cluster = cluster_of(backend("fast", limits={"maxConcurrency": 64}))
    assert cluster.name == "default/fast"
    assert cluster.limits == wire.Limits(max_concurrency=64, max_queue=128)
    assert cluster.health == wire.Health(path="/health", interval_seconds=5.0, timeout_seconds=1.0)
    assert cluster.external is None
    assert external_endpoint(cluster) is None


def test_declared_health_and_queue_are_taken():
    declared = backend(health={"path": "/up", "interval": "500ms", "timeout": "250ms"}, limits={"maxQueue": 3})
    cluster = cluster_of(declared)
    assert cluster.health == wire.Health(path="/up", interval_seconds=0.5, timeout_seconds=0.25)
    assert cluster.limits.max_queue == 3


def test_requests_for_a_backend_that_scales_are_held_as_declared():
    """Also where it does not go to zero by itself: all its replicas may be lost."""
    scaling = {"targetRef": {"name": "fast"}, "maxReplicas": 3}
    assert cluster_of(backend()).hold_seconds == 0.0
    assert cluster_of(backend(scaling=scaling)).hold_seconds == 300.0
    assert cluster_of(backend(scaling={**scaling, "minReplicas": 0, "holdTimeout": "90s"})).hold_seconds == 90.0


def test_an_external_backend_becomes_a_cluster_with_one_endpoint():
    auth = {"secretRef": {"name": "openai", "key": "token"}}
    cluster = cluster_of(backend("far", external={"url": "https://api.example.com/v1", "auth": auth}))
    assert cluster.external == wire.External(
        host="api.example.com", port=443, tls=True, path_prefix="/v1", auth=wire.SecretKeyRef("openai", "token")
    )
    assert external_endpoint(cluster) == wire.Endpoint(id="default/far/external", host="api.example.com", port=443)


def test_an_external_backend_says_where_its_addresses_may_be():
    declared = backend("far", external={"url": "https://api.example.com/v1"})
    cluster = cluster_of(declared, lambda host: (f"{host} is asked for",))
    assert cluster.external is not None
    assert cluster.external.allowed_networks == ("api.example.com is asked for",)


def test_an_external_backend_without_a_key_has_no_auth():
    cluster = cluster_of(backend("near", external={"url": "http://127.0.0.1:11434/v1"}))
    assert cluster.external == wire.External(host="127.0.0.1", port=11434, tls=False, path_prefix="/v1")


def test_a_route_is_translated_field_by_field():
    declared = route(
        models=["chat", "gpt"],
        generation=4,
        rules=[
            {
                "name": "premium",
                "matches": [
                    {
                        "requestTypes": ["Chat"],
                        "headers": [{"name": "x-tier", "value": "premium"}],
                        "promptTokens": {"min": 5, "max": 8000},
                    }
                ],
                "backendRefs": [{"name": "a", "priority": 1, "weight": 7, "modelNameOverride": "other"}],
            },
            {
                "name": "careful",
                "matches": [{"requestTypes": ["Embeddings"]}],
                "backendRefs": [{"name": "a"}, {"name": "b", "priority": 1}],
                "fallback": {"errorRatePercent": 5, "latencyP95": "1500ms"},
                "spill": {"maxWait": "2s"},
            },
            {"name": "rest", "backendRefs": [{"name": "b"}]},
        ],
        timeouts={"firstToken": "10s", "streamIdle": "1m30s", "request": "5m", "connect": "1s", "admission": "250ms"},
        retries={"maxAttempts": 3, "budgetPercent": 20, "hedgePercent": 5, "continueStreams": True},
    )
    assert route_of(declared) == wire.Route(
        name="default/chat",
        models=("chat", "gpt"),
        generation=4,
        rules=(
            wire.Rule(
                name="premium",
                matches=(
                    wire.Match(
                        request_types=(RequestType.CHAT,),
                        headers=(wire.HeaderMatch("x-tier", "premium"),),
                        prompt_tokens=wire.TokenRange(5, 8000),
                    ),
                ),
                backends=(wire.BackendRef("default/a", priority=1, weight=7, model_override="other"),),
            ),
            wire.Rule(
                name="careful",
                matches=(wire.Match(request_types=(RequestType.EMBEDDINGS,)),),
                backends=(wire.BackendRef("default/a"), wire.BackendRef("default/b", priority=1)),
                fallback=wire.Fallback(error_rate_percent=5, latency_p95_seconds=1.5),
                spill=wire.Spill(max_wait_seconds=2.0),
            ),
            wire.Rule(name="rest", backends=(wire.BackendRef("default/b"),)),
        ),
        timeouts=wire.Timeouts(10.0, 90.0, 300.0, 1.0, 0.25),
        retries=wire.Retries(3, 20, 5, True),
    )


def test_scheduling_and_cost_reach_proxies_as_they_are_declared():
    document = resources.route(
        rules=[resources.rule("a", {"name": "x"}, {"name": "y"}, scheduling={"profile": "Balanced"})],
        scheduling={"scorers": [{"name": "Load", "weight": 3}, {"name": "SessionAffinity"}], "sessionHeader": "x-chat"},
    )
    made = route_of(ModelRoute.model_validate(document))
    assert made.scheduling == wire.Scheduling(
        scorers=(wire.ScorerWeight(Scorer.LOAD, 3), wire.ScorerWeight(Scorer.SESSION_AFFINITY, 1)), session_header="x-chat"
    )
    assert made.rules[0].scheduling == wire.Scheduling(SchedulingProfile.BALANCED)
    assert route_of(ModelRoute.model_validate(resources.route())).scheduling is None
    cost = {"inputPerMillionTokens": "0.60", "outputPerMillionTokens": "2.4"}
    assert cluster_of(ModelBackend.model_validate(resources.backend(cost=cost))).cost == wire.Cost(0.6, 2.4)
