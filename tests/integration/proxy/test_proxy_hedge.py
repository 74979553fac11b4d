"""First tokens that are late: hedges, who of two replies is given to the client, and how a silent engine is found and left."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.fakes.proxy_bench import STREAM_BODY, Bench, Client, Reply, Router, config, post, until
from tests.fakes.raw_engine import DONE, LAST, SSE_HEAD, Call, RawEngine, answers, chunk, event, reply, resets, silent, stream

from spillway_sidecar.proxy.sweep import compare
from spillway_sidecar.scheduling.health import Ejection
from spillway_sidecar.scheduling.state import PROBE_TURNS

ASK = post(STREAM_BODY)


class Switched:
    """An engine's script that can be exchanged."""

    def __init__(self, script: Any) -> None:
        self.script = script

    async def __call__(self, call: Call) -> None:
        await self.script(call)


async def _history(router: Router, count: int = 60) -> None:
    """So many requests that are answered, and what is learned of them."""
    client = await router.client()
    for _ in range(count):
        client.send(ASK)
        assert (await client.reply()).status == 200
    _learn(router)


def _learn(router: Router) -> None:
    now = router.bench.clock()
    for cluster in router.site.clusters.values():
        compare(cluster, now)
        assert cluster.speed.late.stream > 0.0


async def _pair(bench: Bench, **options: Any) -> tuple[Router, tuple[RawEngine, Switched], tuple[RawEngine, Switched]]:
    """A router before two engines that have answered some requests."""
    scripts = [Switched(answers(stream("a"))) for _ in range(2)]
    engines = [await bench.engine(script) for script in scripts]
    router = await bench.router(config(*(engine.port for engine in engines), **options))
    await _history(router)
    router.site.budgets["default/r"].begun_total += 500  # so many more went well
    return router, (engines[0], scripts[0]), (engines[1], scripts[1])


async def _waiting(router: Router, engine: RawEngine, count: int) -> list[Client]:
    """So many requests that wait at the engine, which is the first one."""
    now = router.bench.clock()
    for target, slowness in ((router.target(0), 1.0), (router.target(1), 100.0)):
        target.slowness, target.slowness_at = slowness, now
        target.refresh(now)
    clients = [await router.client() for _ in range(count)]
    before = len(engine.calls)
    for number, client in enumerate(clients, 1):
        client.send(ASK)
        await until(lambda number=number: len(engine.calls) == before + number)  # type: ignore[misc]
    return clients


async def _late(router: Router, engine: RawEngine) -> Client:
    """One of these."""
    return (await _waiting(router, engine, 1))[0]


def _hedges(router: Router) -> dict[str, int]:
    return {result: count for stats in router.site.stats.backends.values() for result, count in stats.hedges.items()}


def _decision(router: Router, got: Reply) -> list[tuple[str, str | None]]:
    ring = router.site.decisions
    request_id = got.header(b"x-request-id")
    assert ring is not None
    assert request_id is not None
    decision = ring.find(request_id.decode())
    assert decision is not None
    shown: Any = decision.as_dict()["attempts"]
    return [(attempt["endpoint"], attempt["failure"]) for attempt in shown]


async def test_a_late_first_token_is_asked_for_elsewhere_and_the_first_try_is_ended():
    async with Bench() as bench:
        router, (slow, script), (quick, _) = await _pair(bench)
        script.script = silent
        client = await _late(router, slow)
        before = len(quick.calls)
        router.advance(0.3)
        got = await client.reply()
        assert got.body == event("a") + DONE
        assert len(quick.calls) == before + 1
        await asyncio.wait_for(slow.connections[-1].closed.wait(), 5.0)
        assert _hedges(router) == {"won": 1}
        assert _decision(router, got) == [("a-0", "late"), ("a-1", None)]
        assert router.target(0).slowness > 1.0, "that it was late is known of it"
        assert router.target(0).failures == 0
        assert router.idle()
        script.script = answers(stream("b"))
        client.send(ASK)
        assert (await client.reply()).status == 200


async def test_a_first_try_that_answers_after_all_ends_its_hedge():
    async with Bench() as bench:
        router, (first, script), (second, other) = await _pair(bench)
        script.script = other.script = silent
        client = await _late(router, first)
        before = len(second.calls)
        router.advance(0.3)
        await until(lambda: len(second.calls) == before + 1)
        await first.calls[-1].write(stream("x"))
        got = await client.reply()
        assert got.body == event("x") + DONE
        await asyncio.wait_for(second.connections[-1].closed.wait(), 5.0)
        assert _hedges(router) == {"lost": 1}
        assert _decision(router, got) == [("a-1", "hedge_lost"), ("a-0", None)]
        assert router.idle()


@pytest.mark.parametrize("late_head", [True, False])
async def test_only_one_of_two_replies_is_given_to_the_client(late_head: bool):
    """Both send their heads, then both their bodies, piece by piece."""
    async with Bench() as bench:
        router, (first, script), (second, other) = await _pair(bench)
        script.script = other.script = silent
        client = await _late(router, first)
        if late_head:
            await first.calls[-1].write(SSE_HEAD)
        before = len(second.calls)
        router.advance(0.3)
        await until(lambda: len(second.calls) == before + 1)
        await second.calls[-1].write(SSE_HEAD)
        await asyncio.sleep(0.02)
        await second.calls[-1].write(chunk(event("second")))
        await client.head()
        await until(lambda: not first.open or first.connections[-1].closed.is_set())
        await second.calls[-1].write(chunk(event("more")) + chunk(DONE) + LAST)
        body, whole = await client._chunks()
        assert body == event("second") + event("more") + DONE
        assert whole
        assert router.idle()


@pytest.mark.parametrize(
    "script", [resets, answers(reply(b"{}", status=500)), answers(reply(b"{}", status=429)), answers(b"", close=True)]
)
async def test_a_hedge_that_fails_leaves_the_first_try_alone(script: Any):
    async with Bench() as bench:
        router, (first, slow), (second, other) = await _pair(bench)
        slow.script = silent
        other.script = script
        client = await _late(router, first)
        before = len(second.calls)
        router.advance(0.3)
        await until(lambda: len(second.calls) == before + 1)
        await until(lambda: _hedges(router) == {"failed": 1})
        router.advance(0.3)
        await first.calls[-1].write(stream("x"))
        assert (await client.reply()).body == event("x") + DONE
        assert len(second.calls) == before + 1, "there is one hedge a request"
        assert router.idle()


async def test_a_first_try_that_fails_leaves_the_request_to_its_hedge():
    async with Bench() as bench:
        router, (first, script), (second, other) = await _pair(bench)
        script.script = other.script = silent
        client = await _late(router, first)
        before = len(second.calls)
        router.advance(0.3)
        await until(lambda: len(second.calls) == before + 1)
        first.calls[-1].reset()
        await until(lambda: router.target(0).failures == 1)
        assert not router.idle()
        await second.calls[-1].write(stream("y"))
        got = await client.reply()
        assert got.body == event("y") + DONE
        assert _decision(router, got) == [("a-0", "upstream_reset"), ("a-1", None)]
        assert router.idle()


async def test_when_both_fail_the_client_is_told_and_nothing_is_left():
    async with Bench() as bench:
        router, (first, script), (second, other) = await _pair(bench)
        script.script = other.script = silent
        client = await _late(router, first)
        before = len(second.calls)
        router.advance(0.3)
        await until(lambda: len(second.calls) == before + 1)
        first.calls[-1].reset()
        await until(lambda: router.target(0).failures == 1)
        second.calls[-1].reset()
        got = await client.reply()
        assert (got.status, got.header(b"x-spillway-reason")) == (502, b"upstream_reset")
        assert _decision(router, got) == [("a-0", "upstream_reset"), ("a-1", "upstream_reset")]
        assert router.idle()


async def test_a_client_that_leaves_takes_both_along():
    async with Bench() as bench:
        router, (first, script), (second, other) = await _pair(bench)
        script.script = other.script = silent
        client = await _late(router, first)
        before = len(second.calls)
        router.advance(0.3)
        await until(lambda: len(second.calls) == before + 1)
        client.leave()
        await asyncio.wait_for(first.connections[-1].closed.wait(), 5.0)
        await asyncio.wait_for(second.connections[-1].closed.wait(), 5.0)
        await until(router.idle)


async def test_the_whole_requests_time_holds_for_both():
    async with Bench() as bench:
        router, (first, script), (second, other) = await _pair(bench)
        script.script = other.script = silent
        client = await _late(router, first)
        router.advance(0.3)
        await until(lambda: second.open and router.target(1).in_flight == 1)
        router.advance(601.0)
        got = await client.reply()
        assert (got.status, got.header(b"x-spillway-reason")) == (504, b"request_timeout")
        assert router.idle()


@pytest.mark.parametrize("options", [{"hedge": 0}, {"attempts": 1}])
async def test_a_route_may_do_without_hedges(options: dict[str, int]):
    async with Bench() as bench:
        router, (first, script), (second, _) = await _pair(bench, **options)
        script.script = silent
        client = await _late(router, first)
        before = len(second.calls)
        router.advance(0.3)
        router.advance(0.1)
        await first.calls[-1].write(stream("x"))
        assert (await client.reply()).body == event("x") + DONE
        assert len(second.calls) == before


async def test_hedges_are_a_small_share_of_the_traffic():
    async with Bench() as bench:
        router, (first, script), _ = await _pair(bench)
        script.script = silent
        router.site.budgets["default/r"].begun_total -= 500
        clients = await _waiting(router, first, 12)
        router.advance(0.3)
        assert router.site.budgets["default/r"].hedged_total == 1, "of 72 requests"
        for client in clients:
            client.leave()
        await until(router.idle)


async def test_nothing_is_hedged_while_little_is_known():
    async with Bench() as bench:
        scripts = [Switched(answers(stream("a"))) for _ in range(2)]
        engines = [await bench.engine(script) for script in scripts]
        router = await bench.router(config(*(engine.port for engine in engines)))
        router.site.budgets["default/r"].begun_total += 500
        for script in scripts:
            script.script = silent
        client = await router.client()
        client.send(ASK)
        await until(lambda: sum(len(engine.calls) for engine in engines) == 1)
        router.advance(5.0)
        assert sum(len(engine.calls) for engine in engines) == 1


# --- silence


async def test_an_engine_that_says_nothing_is_out_within_two_seconds_and_who_waits_there_goes_elsewhere():
    async with Bench() as bench:
        router, (hung, script), (well, _) = await _pair(bench, hedge=0)
        script.script = silent
        waiting = await _waiting(router, hung, 6)
        seconds = 0.0
        while router.target(0).ejected is None:
            seconds += 0.1
            assert seconds < 2.0
            router.target(1).replied_at = bench.clock()  # the other one answers
            router.advance(0.1)
        assert seconds > 0.3
        assert router.target(0).ejected is Ejection.SILENT
        before = len(well.calls)
        router.advance(0.1)
        for client in waiting:
            assert (await client.reply()).body == event("a") + DONE
        assert len(well.calls) - before == len(waiting)
        await until(lambda: hung.open == 0)
        assert router.target(0).peers.ejections == {Ejection.SILENT: 1}
        assert router.idle()


async def test_the_probe_of_a_silent_engine_does_not_wait_for_the_first_tokens_timeout():
    async with Bench() as bench:
        router, (hung, script), _ = await _pair(bench, hedge=0)
        script.script = silent
        router.target(0).eject(Ejection.SILENT, bench.clock())
        router.advance(0.6)
        client = await router.client()
        before = len(hung.calls)
        client.send(ASK)
        await until(lambda: len(hung.calls) == before + 1)
        assert router.target(0).probing
        router.advance(0.3)
        assert (await client.reply()).body == event("a") + DONE
        assert router.target(0).ejections == 2
        assert not router.target(0).probing
        script.script = answers(stream("b"))
        router.advance(1.1)
        bodies = []
        for _ in range(PROBE_TURNS + 1):  # its peer has its turns first
            client.send(ASK)
            bodies.append((await client.reply()).body)
        assert bodies.count(event("b") + DONE) >= 1
        assert router.target(0).ejected is None


async def test_a_standstill_of_all_puts_nobody_out():
    async with Bench() as bench:
        router, (first, script), (second, other) = await _pair(bench, hedge=0)
        script.script = other.script = silent
        before = len(first.calls), len(second.calls)
        clients = await _waiting(router, first, 4)
        router.target(1).slowness = 0.001
        router.target(1).refresh(bench.clock())
        clients += [await router.client() for _ in range(4)]
        for client in clients[4:]:
            client.send(ASK)
        await until(lambda: len(first.calls) + len(second.calls) == sum(before) + 8)
        for _ in range(40):
            router.advance(0.1)
        assert [router.target(n).ejected for n in range(2)] == [None, None]
        for call in first.calls[before[0] :] + second.calls[before[1] :]:
            await call.write(stream("z"))
        for client in clients:
            assert (await client.reply()).body == event("z") + DONE
        assert router.idle()
