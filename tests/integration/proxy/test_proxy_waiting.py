"""Requests that no endpoint has room for: held at the router, in order, bound late, refused in time, and never lost."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from tests.fakes.proxy_bench import Bench, Client, Reply, Router, config, post, routed, until
from tests.fakes.raw_engine import Call, answers, reply, silent
from tests.integration.proxy.test_proxy_life import outcomes

from spillway_sidecar.flow.reserve import reserve
from spillway_wire.snapshot import FlowControl, HeaderPriority, Limits, key_of

OBJECTIVE = b"x-llm-d-inference-objective"
FLOW = b"x-llm-d-inference-fairness-id"
PRIORITIES = (HeaderPriority("interactive", 10), HeaderPriority("batch", -10))


def ask(name: str, *extra: bytes) -> bytes:
    """A request that the engine can tell from others."""
    return post(b'{"model":"m","name":"%b"}' % name.encode(), *extra)


def names(engine: Any) -> list[str]:
    """Who has come to the engine, in order."""
    return [json.loads(call.body)["name"] for call in engine.calls]


async def send(router: Router, request: bytes, *, waiting: int | None = None) -> Client:
    """Sends on a connection of its own, and waits until so many wait."""
    client = await router.client()
    client.send(request)
    if waiting is not None:
        await until(lambda: router.site.waiting.count == waiting)
    return client


async def serve(engine: Any, clients: dict[str, Client]) -> None:
    """Answers one call after the other; each must reach the client that sent it."""
    for number in range(len(clients)):
        await until(lambda number=number: len(engine.calls) > number)  # type: ignore[misc]
        name = names(engine)[number]
        await engine.calls[number].write(reply(name.encode()))
        assert (await clients[name].reply()).body == name.encode()


async def test_a_burst_is_held_and_the_engine_never_has_more_than_it_may():
    at_work, most = 0, 0

    async def script(call: Call) -> None:
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        await asyncio.sleep(0.002)
        at_work -= 1
        await call.write(reply())

    async with routed(script, limits=Limits(max_concurrency=4)) as (router, _):
        replies = await asyncio.gather(*(router.ask() for _ in range(100)))
        assert {r.status for r in replies} == {200}
        assert most == 4
        await until(router.idle)


async def test_the_order_is_priority_then_turns_between_flows_then_arrival():
    flow = FlowControl(priorities=PRIORITIES)
    async with routed(silent, limits=Limits(max_concurrency=1), flow=flow) as (router, engine):
        clients = {"first": await send(router, ask("first"))}
        await until(lambda: engine.calls)
        requests = [
            ("batch", OBJECTIVE + b": batch"),
            ("hog 1", FLOW + b": hog"),
            ("hog 2", FLOW + b": hog"),
            ("hog 3", FLOW + b": hog"),
            ("light", FLOW + b": light"),
            ("unknown", OBJECTIVE + b": whatever", FLOW + b": light"),
            ("top", OBJECTIVE + b": interactive"),
        ]
        for count, (name, *extra) in enumerate(requests, 1):
            clients[name] = await send(router, ask(name, *extra), waiting=count)
        await serve(engine, clients)
        assert names(engine) == ["first", "top", "hog 1", "light", "hog 2", "unknown", "hog 3", "batch"]
        await until(router.idle)


async def test_while_others_wait_a_few_places_are_kept_for_higher_priorities():
    flow = FlowControl(priorities=PRIORITIES)
    top = OBJECTIVE + b": interactive"
    async with routed(silent, limits=Limits(max_concurrency=32), flow=flow) as (router, engine):
        site = router.site
        for n in range(32):
            await send(router, ask(str(n)))
        await until(lambda: len(engine.calls) == 32)
        for n in range(32, 72):
            await send(router, ask(str(n), top), waiting=n - 31)
        for number in range(40):  # the queue learns that higher priorities come
            await until(lambda number=number: len(engine.calls) > number)  # type: ignore[misc]
            await engine.calls[number].write(reply())
        await until(lambda: len(engine.calls) == 72 and router.target().in_flight == 32)
        for n in range(72, 77):
            await send(router, ask(str(n)), waiting=n - 71)
        kept = reserve(1.0, 32)
        assert kept > 1
        for number in range(40, 40 + kept):
            await engine.calls[number].write(reply())
        await until(lambda: router.target().in_flight == 32 - kept)
        site.waiting.sweep(site.clock())
        assert (site.waiting.count, len(engine.calls)) == (5, 72), "they wait beside free places"
        await send(router, ask("77", top))
        await until(lambda: len(engine.calls) == 73)
        assert names(engine)[-1] == "77", "one that those are kept for need not"
        for number in range(40 + kept, 42 + kept):
            await engine.calls[number].write(reply())
        await until(lambda: len(engine.calls) == 74)
        assert (names(engine)[-1], site.waiting.count) == ("72", 4), "what is beyond is for all"


async def test_who_waits_goes_to_the_endpoint_that_frees_first():
    async with Bench() as bench:
        stuck, other = await bench.engine(silent), await bench.engine(silent)
        router = await bench.router(config(stuck.port, other.port, limits=Limits(max_concurrency=1)))
        clients = {"0": await send(router, ask("0")), "1": await send(router, ask("1"))}
        await until(lambda: stuck.calls and other.calls)
        for n in range(2, 6):
            clients[str(n)] = await send(router, ask(str(n)), waiting=n - 1)
        for number in range(5):
            await until(lambda number=number: len(other.calls) > number)  # type: ignore[misc]
            name = names(other)[number]
            await other.calls[number].write(reply(name.encode()))
            assert (await clients[name].reply()).body == name.encode()
        assert names(other)[1:] == ["2", "3", "4", "5"]
        assert len(stuck.calls) == 1


async def test_who_waits_goes_back_to_where_it_was_when_nothing_else_is_left():
    async with Bench() as bench:
        here, gone = await bench.engine(silent), await bench.engine(silent)
        limits = Limits(max_concurrency=1)
        router = await bench.router(config(here.port, gone.port, limits=limits))
        clients = {"0": await send(router, ask("0")), "1": await send(router, ask("1"))}
        await until(lambda: here.calls and gone.calls)
        clients["2"] = await send(router, ask("2"), waiting=1)
        await here.calls[0].write(reply(names(here)[0].encode()))
        await until(lambda: len(here.calls) == 2)
        await here.calls[1].write(reply(status=503))
        await until(lambda: router.site.waiting.count == 1)
        router.swapper.swap("2", config(here.port, limits=limits))
        await until(lambda: len(here.calls) == 3)
        await here.calls[2].write(reply(b"at last"))
        assert (await clients["2"].reply()).body == b"at last"


async def test_who_leaves_the_queue_is_forgotten():
    async with routed(silent, limits=Limits(max_concurrency=1)) as (router, engine):
        clients = {"a": await send(router, ask("a"))}
        await until(lambda: engine.calls)
        gone = await send(router, ask("gone"), waiting=1)
        clients["b"] = await send(router, ask("b"), waiting=2)
        gone.leave()
        await until(lambda: router.site.waiting.count == 1)
        await serve(engine, clients)
        await until(router.idle)
        assert names(engine) == ["a", "b"]
        assert outcomes(router) == {"ok": 2, "client_gone": 1}


async def test_a_full_queue_refuses_at_once_and_gives_way_to_what_matters_more():
    flow = FlowControl(max_requests=2, priorities=PRIORITIES)
    async with routed(silent, limits=Limits(max_concurrency=1), flow=flow) as (router, engine):
        clients = {"a": await send(router, ask("a"))}
        await until(lambda: engine.calls)
        clients["b"] = await send(router, ask("b"), waiting=1)
        last = await send(router, ask("c"), waiting=2)
        refused = await router.ask(ask("d"))
        clients["top"] = await send(router, ask("top", OBJECTIVE + b": interactive"))
        evicted = await last.reply()
        for got, reason in ((refused, b"overloaded"), (evicted, b"evicted")):
            assert got.status == 429
            assert got.header(b"x-spillway-reason") == reason
            assert int(got.header(b"retry-after") or b"0") >= 1
            assert json.loads(got.body)["error"]["code"] == "overloaded"
        await serve(engine, clients)
        assert names(engine) == ["a", "top", "b"]
        await until(router.idle)
        assert outcomes(router) == {"ok": 3, "overloaded": 1, "evicted": 1}


@pytest.mark.parametrize(("extra", "seconds"), [((), 10.0), ((b"x-llm-d-slo-ttft-ms: 500",), 0.5)])
async def test_nobody_waits_for_longer_than_allowed(extra: tuple[bytes, ...], seconds: float):
    async with routed(silent, limits=Limits(max_concurrency=1)) as (router, engine):
        await send(router, ask("a"))
        await until(lambda: engine.calls)
        client = await send(router, ask("b", *extra), waiting=1)
        router.advance(seconds - 0.4)
        assert router.site.waiting.count == 1
        router.advance(0.5)
        got = await client.reply()
        assert (got.status, got.header(b"x-spillway-reason")) == (429, b"queue_timeout")
        assert got.header(b"retry-after") is not None
        assert len(engine.calls) == 1


async def test_bytes_that_wait_are_bounded():
    async with routed(silent, limits=Limits(max_concurrency=1), flow=FlowControl(max_bytes=100)) as (router, engine):
        await send(router, ask("a"))
        await until(lambda: engine.calls)
        await send(router, ask("b"), waiting=1)
        assert (await router.ask(ask("x" * 100))).status == 429
        await send(router, ask("c"), waiting=2)


async def test_an_endpoint_that_a_snapshot_brings_is_for_those_who_wait_too():
    async with Bench() as bench:
        full, fresh = await bench.engine(silent), await bench.engine(answers(reply()))
        router = await bench.router(config(full.port, limits=Limits(max_concurrency=1)))
        await send(router, ask("a"))
        await until(lambda: full.calls)
        client = await send(router, ask("b"), waiting=1)
        router.swapper.swap("2", config(full.port, fresh.port, limits=Limits(max_concurrency=1)))
        assert (await client.reply()).status == 200
        assert names(fresh) == ["b"]
        decisions = router.site.decisions
        assert decisions is not None
        decision = decisions.find("t-2")
        assert decision is not None
        assert "waited" in str(decision.as_dict()["attempts"])


async def test_a_request_that_a_full_sidecar_refuses_waits_for_its_room():
    """Two routers that do not know of each other, one place, no queue before the engine."""
    async with Bench() as bench:
        engine = await bench.engine(silent)
        guard = await bench.guard(engine.port)
        guard.site.resize(1, 0)
        resources = config(guard.port, inbound=True, limits=Limits(max_concurrency=1, max_queue=0))
        one, two = await bench.router(resources), await bench.router(resources)
        first = await send(one, ask("a"))
        await until(lambda: engine.calls)
        second = await send(two, ask("b"), waiting=1)
        assert guard.site.outcomes == {"overloaded": 1}
        await engine.calls[0].write(reply())
        assert (await first.reply()).status == 200
        two.advance(3.1)  # its word that it is full has grown old
        await until(lambda: len(engine.calls) == 2)
        await engine.calls[1].write(reply())
        got: Reply = await second.reply()
        assert got.status == 200
        await until(two.idle)
        assert outcomes(two) == {"ok": 1}


async def test_priority_goes_on_to_the_sidecar_and_counts_in_its_queue():
    async with Bench() as bench:
        engine = await bench.engine(silent)
        guard = await bench.guard(engine.port)
        guard.site.resize(1, 8)
        flow = FlowControl(max_requests=0, priorities=PRIORITIES)  # all wait before the engine
        router = await bench.router(config(guard.port, inbound=True, flow=flow, limits=Limits(1, 8)))
        clients = {}
        for count, (name, *extra) in enumerate(
            [("a",), ("b", OBJECTIVE + b": batch"), ("c",), ("d", OBJECTIVE + b": interactive")]
        ):
            clients[name] = await send(router, ask(name, *extra))
            await until(lambda count=count: guard.site.queued == count and guard.site.in_flight == 1)  # type: ignore[misc]
        await serve(engine, clients)
        assert names(engine) == ["a", "d", "c", "b"]


async def test_a_client_cannot_tell_the_sidecar_its_priority():
    async with Bench() as bench:
        engine = await bench.engine(answers(reply()))
        router = await bench.router(config(engine.port, inbound=True))
        assert (await router.ask(ask("a", b"x-spillway-priority: 100"))).status == 200
        assert engine.calls[0].header(b"x-spillway-priority") is None


async def test_limits_of_a_queue_follow_the_snapshot():
    async with Bench() as bench:
        engine = await bench.engine(silent)
        resources = config(engine.port, limits=Limits(max_concurrency=1))
        router = await bench.router(resources)
        await send(router, ask("a"))
        await until(lambda: engine.calls)
        await send(router, ask("b"), waiting=1)
        smaller = config(engine.port, limits=Limits(max_concurrency=1), flow=FlowControl(max_requests=1))
        assert key_of(smaller["route", "default/r"]) in resources
        router.swapper.swap("2", smaller)
        assert (await router.ask(ask("c"))).status == 429
        assert router.site.waiting.count == 1, "nobody who waits is thrown out"
