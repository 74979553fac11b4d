"""Too many connections, too many half-read bodies, a loop that is late: what is told, and that what is under way goes on."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest
from tests.fakes.proxy_bench import Bench, Client, Router, config, post, routed, until
from tests.fakes.raw_engine import Call, answers, reply

from spillway_sidecar.flow.ladder import LOOKS
from spillway_sidecar.loop_watch import LoopWatch
from spillway_sidecar.proxy.listener import MAX_TURNED_AWAY, ClientLimits
from spillway_sidecar.telemetry.decisions import DecisionRing

MODELS = b"GET /v1/models HTTP/1.1\r\nHost: proxy\r\n\r\n"


async def limited(bench: Bench, limits: ClientLimits) -> Router:
    """A router with these limits, before an engine that answers."""
    engine = await bench.engine(answers(reply()))
    return await bench.router(config(engine.port), limits=limits)


async def test_a_connection_too_many_is_told_so_and_those_that_are_there_go_on():
    async with Bench() as bench:
        router = await limited(bench, ClientLimits(max_connections=3))
        kept = [await router.client() for _ in range(3)]
        await until(lambda: len(router.site.connections) == 3)
        one_more = await router.client()
        one_more.send(MODELS)
        got = await one_more.reply()
        assert (got.status, got.header(b"x-spillway-reason")) == (503, b"too_many_connections")
        assert (got.header(b"retry-after"), got.header(b"connection")) == (b"1", b"close")
        assert json.loads(got.body)["error"]["code"] == "too_many_connections"
        one_more.leave()
        for client in kept:
            client.send(post())
            assert (await client.reply()).status == 200
        kept[0].leave()
        await until(lambda: len(router.site.connections) == 2)
        assert (await router.ask()).status == 200


async def test_a_flood_of_connections_is_closed_without_a_word():
    async with Bench() as bench:
        router = await limited(bench, ClientLimits(max_connections=1))
        flood = [await router.client() for _ in range(MAX_TURNED_AWAY + 20)]
        ended = sum([not await _head(client) for client in flood[MAX_TURNED_AWAY + 5 :]])
        assert ended > 0
        await until(lambda: len(router.site.connections) <= MAX_TURNED_AWAY + 1)


async def _head(client: Client) -> bytes:
    try:
        return await client.head()
    except ConnectionError:
        return b""


async def test_bodies_that_are_half_read_are_bounded_all_together():
    async with Bench() as bench:
        router = await limited(bench, ClientLimits(max_unread_bytes=100_000))
        body = b'{"model":"m","x":"' + b"x" * 60_000
        first, second = await router.client(), await router.client()
        first.send(post(body + b'"}')[:-2])
        await until(lambda: router.site.unread_bytes > 50_000)
        second.send(post(body + b'"}')[:-2])
        got = await second.reply()
        assert (got.status, got.header(b"x-spillway-reason")) == (503, b"proxy_overloaded")
        first.send(b'"}')
        assert (await first.reply()).status == 200
        await until(lambda: router.site.unread_bytes == 0)
        third = await router.client()
        third.send(post(body + b'"}')[:-2])
        await until(lambda: router.site.unread_bytes > 50_000)
        third.leave()
        await until(lambda: router.site.unread_bytes == 0)


async def test_a_loop_that_never_has_time_to_sleep_is_found_overloaded():
    """The kernel's count of its sleeps stands still, on either event loop."""
    async with routed(answers(reply())) as (router, _):
        watch = LoopWatch((router.site,))
        loop = asyncio.get_running_loop()
        watching = loop.create_task(watch.run())
        end = loop.time() + 20.0
        while loop.time() < end and not router.site.shed:
            until_then = loop.time() + 0.3
            while loop.time() < until_then:
                pass
            await asyncio.sleep(0)
        watching.cancel()
        assert router.site.shed > 0.0, watch.ladder.info()


async def test_a_late_loop_sheds_new_requests_and_keeps_those_under_way(caplog: pytest.LogCaptureFixture):
    gate = asyncio.Event()

    async def script(call: Call) -> None:
        await gate.wait()
        await call.write(reply())

    async with routed(script) as (router, engine):
        watch = LoopWatch((router.site,))
        client = await router.client()
        client.send(post())
        await until(lambda: engine.calls)
        with caplog.at_level(logging.INFO, "spillway.sidecar"):
            for turn in range(LOOKS + 20):
                watch.look(0.3, float(turn))
            assert router.site.decisions is None
            told = [await router.ask(MODELS) for _ in range(40)]
            assert {got.status for got in told} == {200, 503}, "most are shed, some pass"
            shed = next(got for got in told if got.status == 503)
            assert (shed.header(b"x-spillway-reason"), shed.header(b"retry-after")) == (b"proxy_overloaded", b"1")
            gate.set()
            assert (await client.reply()).status == 200
            for turn in range(LOOKS):
                watch.look(2.0, 50.0 + turn)
            late = await router.client()
            assert (await late.reply()).header(b"x-spillway-reason") == b"proxy_overloaded", "before it has asked for anything"
            for turn in range(100):
                watch.look(0.0, 60.0 + turn)
        assert isinstance(router.site.decisions, DecisionRing)
        assert (await router.ask(MODELS)).status == 200
        lines = [record.getMessage() for record in caplog.records if record.name == "spillway.sidecar"]
        assert sum("stood still" in line for line in lines) == 4, "at most one in ten seconds"
        assert sum("are shed" in line for line in lines) == 1
        assert lines[-1] == "the event loop keeps up again"


async def test_a_switch_of_leniency_reaches_the_listener():
    request = post(b'{"model":"m"}', b"X_Team: blue", b"Authorization: a", b"Authorization: b")
    async with Bench() as bench:
        strict = await limited(bench, ClientLimits())
        assert (await strict.ask(request)).status == 400
        lenient = await limited(bench, ClientLimits(compat=frozenset(("underscores", "duplicates"))))
        assert (await lenient.ask(request)).status == 200
