"""Load on replies, both ways, and what a router does when a sidecar declines."""

from __future__ import annotations

import json
from typing import Any

from tests.fakes.proxy_bench import STREAM_BODY, Bench, Reply, Router, config, post
from tests.fakes.raw_engine import answers, reply

from spillway_wire.loads import Load
from spillway_wire.orca import decode_load

WAITING = 50_000


async def _guarded(bench: Bench, *names: bytes) -> tuple[list[Any], list[Any], Router]:
    engines = [await bench.engine(answers(reply(name))) for name in names]
    guards = [await bench.guard(engine.port) for engine in engines]
    return engines, guards, await bench.router(config(*(guard.port for guard in guards), inbound=True))


async def test_a_sidecar_with_more_waiting_than_thought_declines_and_the_other_gets_the_request():
    async with Bench() as bench:
        _, (busy, _), router = await _guarded(bench, b"busy", b"free")
        first, second = router.site.clusters["default/a"].targets
        second.report(Load(waiting_tokens=1000), bench.clock())  # so the first looks better
        busy.site.waiting_tokens = WAITING
        got = await router.ask()
        assert (got.status, got.body) == (200, b"free")
        assert busy.site.outcomes == {"declined": 1}
        assert len(first.idle) == 1, "the connection is kept"
        assert (first.failures, first.in_flight, first.awaiting_tokens, second.awaiting_tokens) == (0, 0, 0, 0)
        assert first.load is not None
        assert first.load.waiting_tokens == WAITING, "and what it has told is known"
        shown = _decision(router, got)
        assert [(each["endpoint"], each["failure"]) for each in shown["attempts"]] == [("a-0", "declined"), ("a-1", None)]
        assert router.site.stats.backend("default/r", "all", "default/a").retries == 0
        assert (await router.ask()).body == b"free"
        assert busy.site.outcomes == {"declined": 1}, "it is not asked again at once"


async def test_after_two_declines_a_request_is_taken_whatever_waits():
    async with Bench() as bench:
        _, guards, router = await _guarded(bench, b"a", b"b")
        for guard in guards:
            guard.site.waiting_tokens = WAITING
        targets = router.site.clusters["default/a"].targets
        request = post()
        for told in (100, 200):  # each time one of the two looks better than it is
            for target in targets:
                target.report(Load(waiting_tokens=told), bench.clock())
        client = await router.client()
        client.send(request)
        got = await client.reply()
        assert got.status == 200
        assert 1 <= sum(guard.site.outcomes.get("declined", 0) for guard in guards) <= 2


async def test_a_lone_endpoint_never_declines():
    async with Bench() as bench:
        _, (guard,), router = await _guarded(bench, b"only")
        guard.site.waiting_tokens = WAITING
        assert (await router.ask()).body == b"only"
        assert "declined" not in guard.site.outcomes


async def test_what_waits_is_counted_until_the_first_byte_and_given_back():
    async with Bench() as bench:
        engine = await bench.engine(answers(reply(b"x")))
        guard = await bench.guard(engine.port)
        router = await bench.router(config(guard.port, inbound=True))
        for _ in range(3):
            assert (await router.ask()).status == 200
        (target,) = router.site.clusters["default/a"].targets
        assert guard.site.waiting_tokens == 0
        assert target.load is not None
        assert target.load.waiting_tokens == 0, "the reply's load is without the request that it ends"


async def test_an_engine_is_asked_for_its_load_which_is_heard_and_not_passed_on():
    async with Bench() as bench:
        word = b'JSON {"named_metrics": {"kv_cache_usage_perc": 0.5, "num_requests_waiting": 3}}'
        engine = await bench.engine(answers(reply(b"x", head=b"endpoint-load-metrics: " + word + b"\r\n")))
        router = await bench.router(config(engine.port))
        got = await router.ask()
        assert got.header(b"endpoint-load-metrics") is None
        assert engine.calls[0].header(b"endpoint-load-metrics-format") == b"JSON"
        (target,) = router.site.clusters["default/a"].targets
        assert target.load is not None
        assert (target.load.engine_waiting, target.load.kv_cache_ratio) == (3, 0.5)


async def test_a_client_that_asks_gets_the_load_of_the_endpoint_that_served_it():
    async with Bench() as bench:
        _, _, router = await _guarded(bench, b"x")
        client = await router.client()
        client.send(post(STREAM_BODY, b"endpoint-load-metrics-format: JSON"))
        told = (await client.reply()).header(b"endpoint-load-metrics")
        assert told is not None
        load = decode_load(told)
        assert load is not None
        assert load.max_concurrency > 0
        client.send(post(STREAM_BODY, b"endpoint-load-metrics-format: text"))
        told = (await client.reply()).header(b"endpoint-load-metrics")
        assert told is not None
        assert told.startswith(b"TEXT named_metrics.in_flight=")
        assert decode_load(told) is not None
        client.send(post(STREAM_BODY))
        assert (await client.reply()).header(b"endpoint-load-metrics") is None


def _decision(router: Router, got: Reply) -> Any:
    ring = router.site.decisions
    request_id = got.header(b"x-request-id")
    assert ring is not None
    assert request_id is not None
    decision = ring.find(request_id.decode())
    assert decision is not None
    return json.loads(json.dumps(decision.as_dict()))
