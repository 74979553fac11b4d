"""The inbound listener: an answer at once, a bounded queue in order, and the load on every reply."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.fakes.ports import free_port
from tests.fakes.proxy_bench import BODY, STREAM_BODY, Bench, Client, Inbound, post, until
from tests.fakes.raw_engine import DONE, LAST, SSE_HEAD, Call, answers, chunk, event, reply, resets, silent, stream

from spillway_wire.loads import Load
from spillway_wire.orca import decode_load

DEADLINE = b"x-spillway-deadline: 60000"


def load_of(headers: Any) -> Load:
    """The load in a reply's head."""
    value = dict(headers).get(b"endpoint-load-metrics")
    assert value is not None, headers
    load = decode_load(value)
    assert load is not None, value
    return load


async def interim(client: Client) -> dict[bytes, bytes]:
    """The next interim response's headers."""
    async with asyncio.timeout(5.0):
        head = await client.head()
    assert head.startswith(b"HTTP/1.1 103 "), head
    return dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:-2])


async def _guard(bench: Bench, script: Any, *, limit: int = 256, queue: int = 128) -> tuple[Inbound, Any]:
    engine = await bench.engine(script)
    guard = await bench.guard(engine.port)
    guard.site.resize(limit, queue)
    return guard, engine


async def _send(guard: Inbound, *extra: bytes, body: bytes = BODY) -> Client:
    client = await guard.client()
    client.send(post(body, DEADLINE, *extra))
    return client


async def test_admission_is_answered_before_the_engine_says_anything():
    async with Bench() as bench:
        guard, engine = await _guard(bench, silent)
        client = await _send(guard, b"x-spillway-prompt-tokens: 77", b"x-request-id: from-the-router")
        told = await interim(client)
        assert told[b"x-spillway-admission"] == b"admitted"
        assert load_of(told).in_flight == 1
        await until(lambda: engine.calls)
        assert guard.site.in_flight_tokens == 77
        await engine.calls[0].write(reply())
        got = await client.reply()
        assert got.body == b'{"ok":true}'
        assert got.header(b"x-request-id") == engine.calls[0].header(b"x-request-id") == b"from-the-router"
        assert load_of(got.headers).max_concurrency == 256
        assert guard.idle()


async def test_who_asks_for_no_deadline_gets_no_interim_answer():
    async with Bench() as bench:
        guard, _ = await _guard(bench, answers(reply()))
        client = await guard.client()
        client.send(post())
        assert (await client.reply()).interim == []


async def test_the_queue_tells_positions_and_is_first_come_first_served():
    async with Bench() as bench:
        guard, engine = await _guard(bench, silent, limit=1, queue=3)
        clients = []
        for n in range(4):
            clients.append(await _send(guard, body=b'{"model":"m","n":%d}' % n))
            told = await interim(clients[-1])
            if n == 0:
                assert told[b"x-spillway-admission"] == b"admitted"
            else:
                assert (told[b"x-spillway-admission"], told[b"x-spillway-position"]) == (b"queued", b"%d" % n)
            assert load_of(told).queued == n
        refused = await (await _send(guard)).reply()
        assert refused.status == 429
        assert refused.header(b"x-spillway-admission") == b"refused"
        assert refused.header(b"retry-after") == b"1"
        assert load_of(refused.headers).queued == 3
        for n, client in enumerate(clients):
            await until(lambda n=n: len(engine.calls) == n + 1)  # type: ignore[misc]
            assert engine.calls[n].body == b'{"model":"m","n":%d}' % n
            await engine.calls[n].write(reply())
            assert (await client.reply()).status == 200
        assert guard.idle()


async def test_who_leaves_the_queue_gives_the_place_to_the_next():
    async with Bench() as bench:
        guard, engine = await _guard(bench, silent, limit=1, queue=2)
        first = await _send(guard, body=b'{"n":0}')
        second = await _send(guard, body=b'{"n":1}')
        await until(lambda: guard.site.queued == 1)
        third = await _send(guard, body=b'{"n":2}')
        await until(lambda: guard.site.queued == 2)
        second.leave()
        await until(lambda: guard.site.queued == 1)
        first.leave()
        await until(lambda: len(engine.calls) == 2)
        assert engine.calls[1].body == b'{"n":2}'
        third.leave()
        await until(guard.idle)
        await until(lambda: engine.open == 0)
        assert guard.site.outcomes == {"client_gone": 3}


async def test_more_room_starts_who_waits_and_less_throws_nobody_out():
    async with Bench() as bench:
        guard, engine = await _guard(bench, silent, limit=1, queue=8)
        clients = [await _send(guard) for _ in range(5)]
        await until(lambda: guard.site.queued == 4)
        guard.site.resize(3, 8)
        await until(lambda: len(engine.calls) == 3)
        guard.site.resize(1, 0)
        assert (guard.site.in_flight, guard.site.queued) == (3, 2)
        assert (await (await _send(guard)).reply()).status == 429
        for client in clients:
            client.leave()
        await until(guard.idle)


@pytest.mark.parametrize("why", ["draining", "down"])
async def test_new_work_is_refused_while_leaving_or_without_an_engine(why: str):
    async with Bench() as bench:
        guard, engine = await _guard(bench, answers(reply()))
        if why == "draining":
            guard.site.draining = True
        else:
            guard.state["up"] = False
        got = await (await _send(guard)).reply()
        assert got.status == 503
        assert got.header(b"x-spillway-admission") == b"refused"
        load = load_of(got.headers)
        assert (load.draining, load.engine_up) == (why == "draining", why != "down")
        assert not engine.connections
        client = await guard.client()
        client.send(b"GET /health HTTP/1.1\r\nHost: proxy\r\n\r\n")
        assert (await client.reply()).status == 503


async def test_health_is_answered_without_asking_the_engine():
    async with Bench() as bench:
        guard, engine = await _guard(bench, answers(reply()))
        client = await guard.client()
        for _ in range(2):
            client.send(b"GET /health HTTP/1.1\r\nHost: proxy\r\n\r\n")
            got = await client.reply()
            assert got.status == 200
            assert load_of(got.headers).max_concurrency == 256
        assert not engine.connections


@pytest.mark.parametrize("status", [200, 400, 429, 500, 503])
async def test_the_engines_answer_passes_whatever_it_is_with_our_load_in_place_of_its_own(status: int):
    head = b"endpoint-load-metrics: JSON {}\r\nx-spillway-admission: refused\r\n"
    async with Bench() as bench:
        guard, _ = await _guard(bench, answers(reply(b"{}", status=status, head=head)))
        got = await (await _send(guard)).reply()
        assert (got.status, got.body) == (status, b"{}")
        assert got.header(b"x-spillway-admission") is None
        assert load_of(got.headers).in_flight == 1
        assert guard.idle()


async def test_a_stream_carries_the_load_in_its_head_and_its_tokens_are_counted():
    async with Bench() as bench:
        guard, _ = await _guard(bench, answers(stream("a", "b", "c")))
        got = await (await _send(guard, body=STREAM_BODY)).reply()
        assert got.body.endswith(DONE)
        assert load_of(got.headers).in_flight == 1
        assert guard.site.output_tokens_total == 2


@pytest.mark.parametrize("script", [None, resets, answers(b"HTTP/9\r\n\r\n")])
async def test_an_engine_that_fails_is_told_of_and_watched(script: Any):
    async with Bench() as bench:
        if script is None:
            guard = await bench.guard(free_port())
        else:
            guard, _ = await _guard(bench, script)
        got = await (await _send(guard)).reply()
        assert got.status == 502
        assert load_of(got.headers).max_concurrency == 256
        assert guard.state["failures"] == 1
        assert guard.idle()


async def test_a_kept_connection_that_had_ended_is_replaced():
    async def script(call: Call) -> None:
        if call.number:
            call.reset()
        else:
            await call.write(reply())

    async with Bench() as bench:
        guard, engine = await _guard(bench, script)
        for _ in range(4):
            assert (await (await _send(guard)).reply()).status == 200
        assert len(engine.connections) == 4
        assert guard.state["failures"] == 0


@pytest.mark.parametrize("queued", [False, True])
async def test_the_routers_deadline_ends_what_waits(queued: bool):
    async with Bench() as bench:
        guard, engine = await _guard(bench, silent, limit=1)
        first = await _send(guard)
        await interim(first)
        await until(lambda: engine.calls)
        client = first
        if queued:
            client = await guard.client()
            client.send(post(BODY, b"x-spillway-deadline: 3000"))
            await interim(client)
        guard.advance(2.9 if queued else 59.0)
        assert not guard.idle()
        guard.advance(0.2 if queued else 1.1)
        got = await client.reply()
        assert got.status == 504
        assert load_of(got.headers)
        assert guard.site.in_flight == (1 if queued else 0)
        assert len(engine.calls) == 1


async def test_the_routers_deadline_ends_a_stream_so_that_it_shows():
    async def script(call: Call) -> None:
        await call.write(SSE_HEAD + chunk(event("a")))

    async with Bench() as bench:
        guard, engine = await _guard(bench, script)
        client = await _send(guard, body=STREAM_BODY)
        await interim(client)
        await client.head()
        guard.advance(60.1)
        body, whole = await client._chunks()
        assert whole
        assert b"request_timeout" in body
        await until(lambda: engine.open == 0)
        assert guard.idle()
        assert guard.site.outcomes == {"request_timeout": 1}


@pytest.mark.parametrize("value", [b"-1", b"1e3", b"", b"999999999999999", b"x"])
async def test_a_deadline_that_is_no_plain_number_is_ours(value: bytes):
    async with Bench() as bench:
        guard, engine = await _guard(bench, silent)
        client = await guard.client()
        client.send(post(BODY, b"x-spillway-deadline: " + value))
        await interim(client)
        await until(lambda: engine.calls)
        guard.advance(590.0)
        assert not guard.idle()
        guard.advance(11.0)
        assert (await client.reply()).status == 504


@pytest.mark.parametrize(("request_", "status"), [(b"GET /metrics HTTP/1.1\r\nHost: e\r\n\r\n", 404), (b"GET /v1/completions HTTP/1.1\r\nHost: e\r\n\r\n", 405), (post(BODY, b"Content-Encoding: br"), 415)])  # fmt: skip
async def test_only_what_a_router_sends_is_taken(request_: bytes, status: int):
    async with Bench() as bench:
        guard, engine = await _guard(bench, answers(reply()))
        client = await guard.client()
        client.send(request_)
        assert (await client.reply()).status == status
        assert not engine.connections


async def test_a_large_request_id_is_replaced():
    async with Bench() as bench:
        guard, engine = await _guard(bench, answers(SSE_HEAD + LAST))
        await (await _send(guard, b"x-request-id: " + b"a" * 200)).reply()
        assert engine.calls[0].header(b"x-request-id") == b"i-1"


async def test_each_request_is_counted_once():
    async with Bench() as bench:
        guard, _ = await _guard(bench, answers(reply()), limit=1, queue=0)
        await (await _send(guard)).reply()
        guard.state["up"] = False
        await (await _send(guard)).reply()
        assert guard.site.outcomes == {"ok": 1, "no_endpoint": 1}
        assert guard.site.info()["outcomes"] == guard.site.outcomes
