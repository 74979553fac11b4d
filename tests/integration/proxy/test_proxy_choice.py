"""From a rule to an endpoint: weights, priorities, capabilities, and where the excess goes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.fakes.ports import free_port
from tests.fakes.proxy_bench import BODY, Bench, Router, post, until
from tests.fakes.raw_engine import answers, reply, silent

from spillway_wire.names import Provider, RequestType
from spillway_wire.snapshot import (
    BackendRef,
    Cluster,
    Endpoint,
    Endpoints,
    HeaderMatch,
    Limits,
    Match,
    Resource,
    ResourceKey,
    Retries,
    Route,
    Rule,
    RuleWeights,
    TokenRange,
    Weights,
    key_of,
)


def fleet(
    ports: dict[str, list[int]], *rules: Rule, weights: dict[str, float] | None = None, **cluster: Any
) -> dict[ResourceKey, Resource]:
    """A route to several backends."""
    resources: list[Resource] = [Route(name="r", models=("m",), rules=rules, retries=Retries(max_attempts=2, budget_percent=100))]
    for name, of in ports.items():
        resources.append(Cluster(name=name, provider=Provider.VLLM, model="m", **cluster))
        resources.append(Endpoints(name, tuple(Endpoint(f"{name}-{n}", "127.0.0.1", port) for n, port in enumerate(of))))
    if weights:
        resources.append(Weights("r", (RuleWeights(rules[0].name, weights),)))
    return {key_of(resource): resource for resource in resources}


async def _engines(bench: Bench, *names: str) -> tuple[dict[str, Any], dict[str, list[int]]]:
    engines = {name: await bench.engine(answers(reply(name.encode()))) for name in names}
    return engines, {name: [engine.port] for name, engine in engines.items()}


async def _counts(router: Router, count: int, request: bytes | None = None) -> dict[str, int]:
    client = await router.client()
    counts: dict[str, int] = {}
    for _ in range(count):
        client.send(request or post())
        got = await client.reply()
        assert got.status == 200
        counts[got.body.decode()] = counts.get(got.body.decode(), 0) + 1
    return counts


@pytest.mark.parametrize(("declared", "effective", "share"), [((3, 1), None, 0.75), ((1, 1), {"a": 9.0}, 0.9), ((5, 0), None, 1.0)])
async def test_weights_divide_the_traffic_of_a_priority(
    declared: tuple[int, int], effective: dict[str, float] | None, share: float
):
    async with Bench() as bench:
        _, ports = await _engines(bench, "a", "b")
        rule = Rule("x", (BackendRef("a", 0, declared[0]), BackendRef("b", 0, declared[1])))
        router = await bench.router(fleet(ports, rule, weights=effective))
        counts = await _counts(router, 400)
        assert abs(counts["a"] / 400 - share) < 0.08


async def test_a_later_priority_is_for_when_an_earlier_one_has_nothing():
    async with Bench() as bench:
        engines, ports = await _engines(bench, "a", "b")
        rule = Rule("x", (BackendRef("b", 1), BackendRef("a", 0)))
        router = await bench.router(fleet(ports, rule))
        assert await _counts(router, 20) == {"a": 20}
        await engines["a"].stop()
        assert await _counts(router, 5) == {"b": 5}
        bench.stops.remove(engines["a"].stop)


async def test_what_one_backend_has_no_room_for_goes_to_the_next():
    async with Bench() as bench:
        full = await bench.engine(silent)
        _, ports = await _engines(bench, "b")
        rule = Rule("x", (BackendRef("a", 0), BackendRef("b", 1)))
        router = await bench.router(fleet({"a": [full.port], **ports}, rule, limits=Limits(max_concurrency=2)))
        for n in range(2):
            (await router.client()).send(post())
            await until(lambda n=n: len(full.calls) == n + 1)  # type: ignore[misc]
        assert await _counts(router, 5) == {"b": 5}


async def test_a_backend_serves_only_what_it_can():
    async with Bench() as bench:
        _, ports = await _engines(bench, "a", "b")
        resources = fleet(ports, Rule("x", (BackendRef("a"), BackendRef("b"))))
        resources["cluster", "a"] = Cluster("a", Provider.VLLM, "m", capabilities=(RequestType.CHAT,))
        resources["cluster", "b"] = Cluster("b", Provider.VLLM, "m", capabilities=(RequestType.EMBEDDINGS,))
        router = await bench.router(resources)
        assert await _counts(router, 10) == {"a": 10}
        assert await _counts(router, 10, post(path=b"/v1/embeddings")) == {"b": 10}
        got = await router.ask(post(path=b"/v1/completions"))
        assert got.status == 400
        assert json.loads(got.body)["error"]["param"] == "model"


async def test_rules_are_taken_in_order_by_type_header_and_size():
    async with Bench() as bench:
        _, ports = await _engines(bench, "emb", "team", "long")
        router = await bench.router(
            fleet(
                ports,
                Rule("1", (BackendRef("emb"),), (Match((RequestType.EMBEDDINGS,)),)),
                Rule("2", (BackendRef("team"),), (Match(headers=(HeaderMatch("x-team", "a"),)),)),
                Rule("3", (BackendRef("long"),), (Match(prompt_tokens=TokenRange(min=100)),)),
            )
        )
        assert (await router.ask(post(BODY, b"X-Team: a", path=b"/v1/embeddings"))).body == b"emb"
        assert (await router.ask(post(BODY, b"X-TEAM:\ta "))).body == b"team"
        assert (await router.ask(post(b'{"model":"m","x":"%b"}' % (b"x" * 400)))).body == b"long"
        got = await router.ask()
        assert got.status == 404
        assert json.loads(got.body)["error"]["code"] == "no_matching_rule"
        assert router.site.stats.refusals["r"].outcomes == {"no_rule": 1}
        assert "" not in router.site.stats.refusals


async def test_a_decision_tells_what_was_compared_and_what_failed():
    async with Bench() as bench:
        _, ports = await _engines(bench, "b")
        rule = Rule("x", (BackendRef("a"), BackendRef("b", 1)))
        router = await bench.router(fleet({"a": [free_port()], **ports}, rule))
        got = await router.ask()
        assert got.body == b"b"
        ring = router.site.decisions
        assert ring is not None
        request_id = got.header(b"x-request-id")
        assert request_id is not None
        decision = ring.find(request_id.decode())
        assert decision is not None
        shown = json.loads(json.dumps(decision.as_dict()))
        assert (shown["route"], shown["rule"], shown["outcome"], shown["status"], shown["model"]) == ("r", "x", "ok", 200, "m")
        first, second = shown["attempts"]
        assert (first["backend"], first["endpoint"], first["failure"]) == ("a", "a-0", "connect_failed")
        assert (second["backend"], second["endpoint"], second["failure"]) == ("b", "b-0", None)
        assert {"endpoint": "a-0", "score": None, "eliminated": "down"} in second["candidates"]
        assert b"messages" not in json.dumps(shown).encode()
