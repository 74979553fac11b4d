"""The life of a request: clients that leave, engines that fail, retries, deadlines, and that every count comes back to zero."""

from __future__ import annotations

import asyncio
import json
import random
import time
from typing import Any

import pytest
from tests.fakes.ports import free_port
from tests.fakes.proxy_bench import BODY, STREAM_BODY, Bench, Router, config, post, routed, until
from tests.fakes.raw_engine import DONE, LAST, SSE_HEAD, Call, answers, chunk, event, reply, resets, silent, stream

from spillway_sidecar.drain import drain
from spillway_sidecar.proxy.sweep import run_sweeps
from spillway_sidecar.scheduling.health import Ejection
from spillway_wire.names import RequestType
from spillway_wire.snapshot import Cluster, FlowControl, Limits, Timeouts, key_of


def outcomes(router: Router) -> dict[str, int]:
    """Requests by how they ended, over all counters."""
    total: dict[str, int] = {}
    stats = router.site.stats
    for counts in [b.outcomes for b in stats.backends.values()] + [r.outcomes for r in stats.refusals.values()]:
        for outcome, count in counts.items():
            total[str(outcome)] = total.get(str(outcome), 0) + count
    return total


async def _starts(call: Call) -> None:
    await call.write(SSE_HEAD + chunk(event("a")))


@pytest.mark.parametrize(("script", "request_"), [(silent, post()), (silent, post(STREAM_BODY)), (_starts, post(STREAM_BODY))])
@pytest.mark.parametrize("orderly", [True, False])
async def test_a_client_that_leaves_takes_its_engines_connection_along(script: Any, request_: bytes, orderly: bool):
    async with routed(script) as (router, engine):
        client = await router.client()
        client.send(request_)
        await until(lambda: engine.calls)
        if script is _starts:
            await client.head()
        left = time.monotonic()
        client.writer.close() if orderly else client.leave()
        await asyncio.wait_for(engine.connections[0].closed.wait(), 5.0)
        assert time.monotonic() - left < 1.0
        await until(router.idle)
        assert outcomes(router) == {"client_gone": 1}
        assert router.target().failures == 0


async def test_a_client_that_closes_its_half_has_left():
    async with routed(silent) as (router, engine):
        client = await router.client()
        client.send(post())
        await until(lambda: engine.calls)
        client.writer.write_eof()
        await asyncio.wait_for(engine.connections[0].closed.wait(), 5.0)
        assert router.idle()


async def test_a_client_that_leaves_while_an_endpoint_is_dialled(monkeypatch: pytest.MonkeyPatch):
    async with Bench() as bench:
        router = await bench.router(config(free_port()))
        dialling = asyncio.Event()
        cancelled = asyncio.Event()

        async def dial() -> Any:
            dialling.set()
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()

        client = await router.client()
        monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", lambda *_args: dial(), raising=False)
        client.send(post())
        await dialling.wait()
        client.leave()
        await asyncio.wait_for(cancelled.wait(), 5.0)
        await until(router.idle)


async def test_a_client_that_leaves_in_its_body_reaches_no_engine():
    async with routed(answers(reply())) as (router, engine):
        client = await router.client()
        client.send(post()[:-5])
        await until(lambda: any(c.busy for c in router.site.connections))
        client.leave()
        await until(lambda: not router.site.connections)
        assert not engine.connections


async def test_a_thousand_clients_that_leave_at_any_point_leave_nothing_behind():
    """Through router and sidecar, with a short queue, while some are refused, some fail and some finish."""
    rng = random.Random(11)

    async def script(call: Call) -> None:
        if rng.random() < 0.1:
            call.reset()
            return
        for piece in (SSE_HEAD, chunk(event("a")), chunk(event("b")), chunk(DONE) + LAST):
            await asyncio.sleep(rng.random() * 0.004)
            await call.write(piece)

    async with Bench() as bench:
        engine = await bench.engine(script)
        guard = await bench.guard(engine.port)
        guard.site.resize(8, 8)
        resources = config(guard.port, inbound=True)
        cluster = resources["cluster", "default/a"]
        assert isinstance(cluster, Cluster)
        resources[key_of(cluster)] = Cluster(cluster.name, cluster.provider, cluster.model, limits=Limits(8, 40))
        router = await bench.router(resources)

        async def one() -> None:
            client = await router.client()
            request = post(STREAM_BODY)
            point = rng.random()
            if point < 0.1:
                client.send(request[: rng.randrange(len(request))])
            else:
                client.send(request)
            if point < 0.9:
                await asyncio.sleep(rng.random() * 0.02)
            else:
                await client.reply()
            client.leave()
            bench.clients.remove(client)

        sweeps = asyncio.ensure_future(run_sweeps(router.site, guard.site))
        try:
            for _ in range(20):
                await asyncio.gather(*(one() for _ in range(50)))
        finally:
            sweeps.cancel()
            await asyncio.gather(sweeps, return_exceptions=True)
        await until(lambda: router.idle() and guard.idle())
        assert engine.calls, "none reached the engine"
        await until(lambda: not router.site.connections)
        open_here = len(router.target().idle)
        await until(lambda: len(guard.site.connections) == open_here)
        await until(lambda: engine.open == len(guard.site.engine.idle))
        assert sum(outcomes(router).values()) >= 800


# --- elsewhere


async def _two(bench: Bench, script: Any, **options: Any) -> tuple[Router, Any, Any]:
    bad, good = await bench.engine(script), await bench.engine(answers(reply()))
    return await bench.router(config(bad.port, good.port, **options)), bad, good


async def _together(router: Router, count: int = 2) -> list[int]:
    """Asks so often at once that each of so many endpoints has its turn; the statuses."""
    return [got.status for got in await asyncio.gather(*(router.ask() for _ in range(count)))]


async def _ask_until(router: Router, tried: Any, count: int = 15) -> list[int]:
    """Asks until `tried` holds; the statuses."""
    statuses = []
    for _ in range(count):
        statuses += await _together(router)
        if tried():
            return statuses
    raise AssertionError("it was never tried")


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
async def test_errors_that_another_endpoint_may_not_have_go_there(status: int):
    async with Bench() as bench:
        router, bad, good = await _two(bench, answers(reply(b'{"error":{}}', status=status)))
        statuses = await _ask_until(router, lambda: bad.calls)
        assert set(statuses) == {200}
        assert len(bad.calls) == 1
        assert len(good.calls) == len(statuses)
        assert router.idle()


@pytest.mark.parametrize(
    "script", [resets, answers(b"", close=True), answers(reply()[:20], close=True), answers(SSE_HEAD, close=True)]
)
async def test_connections_that_break_before_a_byte_of_the_body_go_elsewhere(script: Any):
    async with Bench() as bench:
        router, bad, _ = await _two(bench, script)
        assert set(await _ask_until(router, lambda: bad.calls)) == {200}
        assert len(bad.calls) == 1
        assert router.idle()


async def test_refused_connections_go_elsewhere_and_the_endpoint_is_let_be():
    async with Bench() as bench:
        good = await bench.engine(answers(reply()))
        router = await bench.router(config(free_port(), good.port))
        assert {status for _ in range(15) for status in await _together(router)} == {200}
        down = router.target(0)
        assert down.failures == 1
        assert down.info()["down"]


async def test_an_endpoint_that_fails_fast_is_left_after_three_requests_and_comes_back():
    async with Bench() as bench:
        state = {"bad": True}

        async def script(call: Call) -> None:
            await call.write(reply(status=500) if state["bad"] else reply())

        router, bad, _ = await _two(bench, script)
        assert {status for _ in range(30) for status in await _together(router)} == {200}
        assert 1 <= len(bad.calls) <= 3
        state["bad"] = False
        seen = len(bad.calls)
        for _ in range(300):  # a penalty for one failure fades, a longer one ends by a probe
            router.advance(3.0)
            assert await _together(router) == [200, 200]
            if len(bad.calls) > seen + 2:
                break
        assert len(bad.calls) > seen + 2


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
async def test_no_request_goes_elsewhere_after_a_4xx(status: int):
    async with Bench() as bench:
        engines = [await bench.engine(answers(reply(b"{}", status=status))) for _ in range(2)]
        router = await bench.router(config(*(engine.port for engine in engines)))
        assert (await router.ask()).status == status
        assert sum(len(engine.calls) for engine in engines) == 1


async def test_nothing_is_asked_again_once_a_byte_has_gone_out():
    async def script(call: Call) -> None:
        await call.write(SSE_HEAD + chunk(event("a")))
        await asyncio.sleep(0.005)
        call.reset()

    async with Bench() as bench:
        engines = [await bench.engine(script) for _ in range(2)]
        router = await bench.router(config(*(engine.port for engine in engines)))
        got = await router.ask(post(STREAM_BODY))
        assert got.body.count(event("a")) == 1
        assert b"stream_interrupted" in got.body
        assert sum(len(engine.calls) for engine in engines) == 1


@pytest.mark.parametrize("attempts", [1, 2, 3, 5])
async def test_attempts_are_bounded_and_never_at_the_same_endpoint(attempts: int):
    async with Bench() as bench:
        engines = [await bench.engine(answers(reply(status=503))) for _ in range(4)]
        router = await bench.router(config(*(engine.port for engine in engines), attempts=attempts))
        got = await router.ask()
        assert got.status == 503
        assert max(len(engine.calls) for engine in engines) == 1
        assert sum(len(engine.calls) for engine in engines) == min(attempts, 4)
        assert router.idle()


async def test_retries_beyond_the_budget_are_not_made():
    async with Bench() as bench:
        gate = asyncio.Event()

        async def script(call: Call) -> None:
            await gate.wait()
            await call.write(reply(status=503))

        engines = [await bench.engine(script) for _ in range(2)]
        router = await bench.router(config(*(engine.port for engine in engines), budget=10))
        waiting = [asyncio.ensure_future(router.ask()) for _ in range(40)]
        await until(lambda: sum(len(engine.calls) for engine in engines) == 40)
        gate.set()
        assert {got.status for got in await asyncio.gather(*waiting)} == {503}
        assert sum(len(engine.calls) for engine in engines) < 60
        budget = router.site.budgets["default/r"]
        assert budget.denied_total > 0
        assert router.idle()


async def test_without_a_budget_nothing_is_asked_twice():
    async with Bench() as bench:
        engines = [await bench.engine(answers(reply(status=500))) for _ in range(2)]
        router = await bench.router(config(*(engine.port for engine in engines), budget=0))
        assert (await router.ask()).status == 502
        assert sum(len(engine.calls) for engine in engines) == 1


async def test_a_kept_connection_that_had_ended_is_replaced_outside_budget_and_attempts():
    async def script(call: Call) -> None:
        if call.number == 0:
            await call.write(reply())
        else:
            call.reset()

    async with routed(script, attempts=1, budget=0) as (router, engine):
        for _ in range(10):
            assert (await router.ask()).status == 200
        assert len(engine.connections) == 10
        assert router.target().failures == 0
        assert router.site.budgets["default/r"].info()["spent_total"] == 0
        assert router.idle()


async def test_a_kept_connection_that_broke_after_a_byte_is_a_failure():
    async def script(call: Call) -> None:
        await call.write(reply() if call.number == 0 else b"HTTP")
        if call.number:
            call.reset()

    async with routed(script, attempts=1) as (router, engine):
        assert (await router.ask()).status == 200
        assert (await router.ask()).status == 502
        assert len(engine.calls) == 2


async def test_a_request_that_has_failed_is_no_probe_while_an_endpoint_is_well():
    async with Bench() as bench:

        async def fails(call: Call) -> None:
            router.target(1).probing = False
            router.target(1).penalty = router.target(1).factor = 1.0
            await call.write(reply(status=500))

        bad = await bench.engine(fails)
        half_open, good = [await bench.engine(answers(reply())) for _ in range(2)]
        router = await bench.router(config(bad.port, half_open.port, good.port))
        router.target(1).failed(bench.clock(), hard=True)
        bench.clock.ahead += 0.6
        router.target(1).probing = True  # until the request has been at the bad one
        router.target(2).factor = 500.0
        client = await router.client()
        client.send(post())
        assert (await client.reply()).status == 200
        assert len(bad.calls) == 1
        assert not half_open.calls
        assert len(good.calls) == 1


async def test_connections_that_are_refused_do_not_use_attempts_up():
    async with Bench() as bench:
        good = await bench.engine(answers(reply()))
        router = await bench.router(config(free_port(), free_port(), free_port(), good.port, budget=0))
        for _ in range(5):
            assert await _together(router, 4) == [200] * 4
        assert [router.target(n).ejected for n in range(4)].count(Ejection.UNREACHABLE) >= 1
        alone = await bench.router(config(free_port(), good.port, attempts=1))
        assert sorted({status for _ in range(10) for status in await _together(alone)}) == [200, 503], "one try is one try"


async def test_when_all_are_gone_the_answer_is_quick_and_says_when_to_come_again():
    async with Bench() as bench:
        router = await bench.router(config(free_port(), free_port(), free_port()))
        for _ in range(5):
            asked = time.monotonic()
            got = await router.ask()
            assert time.monotonic() - asked < 1.0
            assert got.status == 503
            assert got.header(b"retry-after") == b"1"
            assert json.loads(got.body)["error"]["code"] == "no_endpoint"
        assert router.idle()


async def test_when_all_are_full_the_answer_says_when_to_come_again():
    async with routed(silent, limits=Limits(max_concurrency=2), flow=FlowControl(max_requests=0)) as (router, engine):
        clients = [await router.client() for _ in range(2)]
        for client in clients:
            client.send(post())
        await until(lambda: len(engine.calls) == 2)
        got = await router.ask()
        assert got.status == 429
        assert got.header(b"retry-after") == b"1"
        assert json.loads(got.body)["error"]["type"] == "rate_limit_error"
        for client in clients:
            client.leave()
        await until(router.idle)
        assert outcomes(router) == {"client_gone": 2, "overloaded": 1}


async def test_a_type_that_no_backend_serves_is_refused_and_keeps_no_place():
    async with routed(answers(reply()), capabilities=(RequestType.CHAT,)) as (router, engine):
        for _ in range(3):
            got = await router.ask(post(path=b"/v1/embeddings"))
            assert got.status == 400
        assert not engine.calls
        assert router.idle()
        assert outcomes(router) == {"unsupported": 3}


async def test_each_request_is_counted_once():
    async with routed(answers(reply())) as (router, _):
        await router.ask()
        await router.ask(post(b'{"model":"x"}'))
        await router.ask(post(b"{"))
        await router.ask(b"nonsense\r\n\r\n")
        assert outcomes(router) == {"ok": 1, "model_not_found": 1, "bad_request": 2}
        traffic = router.site.stats.traffic()
        assert [(t.requests, t.errors) for t in traffic] == [(1, 0)]
        assert router.site.stats.traffic() == ()


# --- time


async def test_the_first_token_has_a_deadline():
    async with Bench() as bench:
        engine = await bench.engine(silent)
        router = await bench.router(config(engine.port, timeouts=Timeouts(first_token_seconds=5.0)))
        client = await router.client()
        client.send(post())
        await until(lambda: engine.calls)
        router.advance(4.9)
        assert not router.idle()
        router.advance(0.2)
        got = await client.reply()
        assert got.status == 504
        assert got.header(b"x-spillway-reason") == b"first_token_timeout"
        await until(lambda: engine.open == 0)
        assert router.idle()


async def test_a_head_is_not_a_first_token():
    async with Bench() as bench:
        engine = await bench.engine(answers(SSE_HEAD))
        good = await bench.engine(answers(stream("a")))
        router = await bench.router(config(engine.port, good.port, timeouts=Timeouts(first_token_seconds=5.0)))
        asked = [asyncio.ensure_future(router.ask(post(STREAM_BODY))) for _ in range(2)]
        await until(lambda: engine.calls and good.calls)
        await asyncio.sleep(0.02)
        assert [each.done() for each in asked].count(False) == 1
        router.advance(5.1)
        assert [(await each).body for each in asked] == [event("a") + DONE] * 2


async def test_a_stream_may_be_silent_for_so_long():
    async with Bench() as bench:
        engine = await bench.engine(_starts)
        router = await bench.router(config(engine.port, timeouts=Timeouts(stream_idle_seconds=5.0)))
        client = await router.client()
        client.send(post(STREAM_BODY))
        await client.head()
        router.sweep()
        router.advance(4.9)
        await engine.calls[0].write(chunk(event("b")))
        await client.reader.readuntil(event("b") + b"\r\n")
        router.sweep()
        router.advance(4.9)
        assert not router.idle()
        router.advance(0.2)
        body, whole = await client._chunks()
        assert whole
        assert json.loads(body[6:])["error"]["reason"] == "stream_idle_timeout"
        await until(lambda: engine.open == 0)
        assert router.idle()


async def test_the_whole_request_has_a_deadline_however_busy_its_stream():
    async with Bench() as bench:
        engine = await bench.engine(_starts)
        router = await bench.router(config(engine.port, timeouts=Timeouts(request_seconds=20.0)))
        client = await router.client()
        client.send(post(STREAM_BODY))
        await client.head()
        for n in range(3):
            router.advance(5.0)
            await engine.calls[0].write(chunk(event(f"n{n}")))
            await client.reader.readuntil(event(f"n{n}") + b"\r\n")
        router.advance(5.1)
        body, whole = await client._chunks()
        assert whole
        assert b"request_timeout" in body
        assert router.idle()


async def test_dialling_has_a_deadline_and_an_outcome_of_its_own(monkeypatch: pytest.MonkeyPatch):
    async with Bench() as bench:
        router = await bench.router(config(free_port(), attempts=1, timeouts=Timeouts(connect_seconds=3.0)))
        dialling, cancelled = asyncio.Event(), asyncio.Event()

        async def never() -> Any:
            dialling.set()
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()

        client = await router.client()
        monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", lambda *_args: never(), raising=False)
        client.send(post())
        await dialling.wait()
        router.advance(2.9)
        assert not router.idle()
        router.advance(0.2)
        got = await client.reply()
        await asyncio.wait_for(cancelled.wait(), 5.0)
        assert got.status == 503
        assert got.header(b"x-spillway-reason") == b"connect_timeout"
        assert got.header(b"retry-after") == b"1"
        assert router.target().ejected is Ejection.UNREACHABLE
        assert router.idle()


async def _admits(call: Call) -> None:
    await call.write(b"HTTP/1.1 103 X\r\nx-spillway-admission: admitted\r\n\r\n")


async def test_a_silent_sidecar_costs_a_tenth_of_a_second_and_a_slow_engine_is_waited_for():
    async with Bench() as bench:
        frozen = await bench.engine(silent)
        slow = await bench.engine(_admits)
        router = await bench.router(config(frozen.port, slow.port, inbound=True))
        sweeps = asyncio.ensure_future(run_sweeps(router.site))
        try:
            clients = [await router.client() for _ in range(6)]
            asked = time.monotonic()
            for client in clients:
                client.send(post())
            await until(lambda: len(slow.calls) == len(clients))
            assert frozen.calls, "the frozen one was never asked"
            assert time.monotonic() - asked < 2.0
            await until(lambda: frozen.open == 0)
            await asyncio.sleep(0.3)
            assert sum(1 for c in router.site.connections if c.exchange is not None) == len(clients)
            for call in slow.calls:
                await call.write(reply())
            for client in clients:
                assert (await client.reply()).status == 200
            assert router.idle()
        finally:
            sweeps.cancel()
            await asyncio.gather(sweeps, return_exceptions=True)


async def test_an_endpoint_that_said_its_engine_is_down_is_asked_again():
    state = {"up": False}

    async def script(call: Call) -> None:
        load = b'endpoint-load-metrics: JSON {"named_metrics":{"engine_down":1}}\r\nx-spillway-admission: refused\r\n'
        await call.write(reply() if state["up"] else reply(b"{}", status=503, head=load))

    async with routed(script, inbound=True) as (router, engine):
        for _ in range(5):
            got = await router.ask()
            assert got.status == 503
            assert got.header(b"retry-after") == b"1"
        assert len(engine.calls) == 1
        state["up"] = True
        router.advance(1.1)
        assert (await router.ask()).status == 200
        assert router.target().penalty == 1.0, "a refusal is no failure"


async def test_being_turned_away_by_pods_that_leave_is_no_attempt():
    """Three of four leave at once: as in a rollout that is quicker than the word of it."""
    left = b'endpoint-load-metrics: JSON {"named_metrics":{"draining":1}}\r\nx-spillway-admission: refused\r\n'
    async with Bench() as bench:
        leaving = [await bench.engine(answers(reply(b"{}", status=503, head=left))) for _ in range(3)]
        stays = await bench.engine(answers(reply()))
        ports = [*(engine.port for engine in leaving), stays.port]
        for attempts, budget in ((1, 100), (2, 0)):
            router = await bench.router(config(*ports, inbound=True, attempts=attempts, budget=budget))
            for _ in range(30):
                assert await _together(router, 4) == [200] * 4
                router.advance(1.1)
            assert router.idle()
    assert all(engine.calls for engine in leaving)


async def test_a_request_that_probes_for_the_router_has_its_attempts_all_the_same():
    async with Bench() as bench:
        good = await bench.engine(answers(reply()))
        router = await bench.router(config(free_port(), good.port, attempts=1))
        assert sorted({status for _ in range(15) for status in await _together(router)}) == [200, 503], "the first to find it out"
        for _ in range(30):
            router.advance(5.0)
            assert (await router.ask()).status == 200
        assert router.target(0).ejections > 3, "it was probed"


# --- leaving


async def test_draining_answers_what_is_under_way_and_closes_the_rest():
    gate = asyncio.Event()

    async def script(call: Call) -> None:
        await gate.wait()
        await call.write(reply())

    async with routed(script) as (router, engine):
        busy, half, idle = [await router.client() for _ in range(3)]
        idle.send(b"GET /v1/models HTTP/1.1\r\nHost: proxy\r\n\r\n")
        await idle.reply()
        busy.send(post())
        half.send(post()[:-5])
        await until(lambda: engine.calls and sum(c.busy for c in router.site.connections) == 2)
        leaving = asyncio.ensure_future(drain((router.site,), (), 5.0, router.bench.clock))
        assert await idle.ended()
        half.send(BODY[-5:])
        await until(lambda: len(engine.calls) == 2)
        assert not leaving.done()
        gate.set()
        for client in (busy, half):
            got = await client.reply()
            assert (got.status, got.header(b"connection")) == (200, b"close")
            assert await client.ended()
        assert await leaving == 0
        assert router.idle()


async def test_draining_tells_what_is_not_done_in_time():
    async def script(call: Call) -> None:
        if b"stream" in call.body:
            await call.write(SSE_HEAD + chunk(event("a")))

    flow = FlowControl(max_requests=8)
    async with routed(script, limits=Limits(max_concurrency=2), flow=flow) as (router, engine):
        asked, streaming, waiting, half = [await router.client() for _ in range(4)]
        asked.send(post())
        streaming.send(post(STREAM_BODY))
        await until(lambda: len(engine.calls) == 2)
        await streaming.head()
        waiting.send(post())
        half.send(post()[:-5])
        await until(lambda: router.site.waiting.count == 1 and sum(c.busy for c in router.site.connections) == 4)
        assert await drain((router.site,), (), 0.05, router.bench.clock) == 4
        for client in (asked, waiting):
            got = await client.reply()
            assert (got.status, got.header(b"x-spillway-reason")) == (503, b"draining")
            assert (got.header(b"retry-after"), got.header(b"connection")) == (b"1", b"close")
        assert b"stream_interrupted" in (await streaming.reader.read(1 << 16))
        for client in (asked, waiting, streaming, half):
            assert await client.ended()
        await until(lambda: engine.open == 0 and router.idle())


async def test_what_was_sent_before_its_sender_heard_of_the_drain_is_served():
    """On a connection that was idle, on one whose reply had said nothing of an end, and on one that is only then accepted."""
    gate = asyncio.Event()

    async def script(call: Call) -> None:
        await call.write(SSE_HEAD + chunk(event("a")))
        await gate.wait()
        await call.write(chunk(DONE) + LAST)

    async with routed(script) as (router, _):
        idle, streaming = await router.client(), await router.client()
        idle.send(b"GET /v1/models HTTP/1.1\r\nHost: proxy\r\n\r\n")
        await idle.reply()
        streaming.send(post(STREAM_BODY))
        await until(lambda: any(c.exchange is not None and c.exchange.first_byte_at for c in router.site.connections))
        leaving = asyncio.ensure_future(drain((router.site,), (), 5.0, router.bench.clock))
        await until(lambda: router.site.draining)
        models = b"GET /v1/models HTTP/1.1\r\nHost: proxy\r\n\r\n"
        fresh = await router.client()
        for client in (idle, fresh):
            client.send(models)
            assert (await client.reply()).status == 200
        gate.set()
        assert (await streaming.reply()).header(b"connection") is None
        streaming.send(models)
        assert (await streaming.reply()).status == 200
        for client in (idle, fresh, streaming):
            assert await client.ended()
        assert await leaving == 0


async def test_a_request_keeps_the_configuration_that_it_began_with():
    gate = asyncio.Event()

    async def script(call: Call) -> None:
        await gate.wait()
        await call.write(reply(b"old"))

    async with Bench() as bench:
        old, new = await bench.engine(script), await bench.engine(answers(reply(b"new")))
        router = await bench.router(config(old.port))
        target = router.target()
        client = await router.client()
        client.send(post())
        await until(lambda: old.calls)
        router.swapper.swap("2", config(new.port))
        assert (await router.ask()).body == b"new"
        gate.set()
        assert (await client.reply()).body == b"old"
        await until(lambda: old.open == 0)
        assert target.in_flight == 0
        assert router.idle()
        with pytest.raises(KeyError):
            router.swapper.swap("3", {k: v for k, v in config(new.port).items() if k[0] != "cluster"})
        assert (await router.ask()).body == b"new"
        assert router.site.version == "2"


# --- nothing better


async def test_endpoints_that_all_pass_for_not_ready_are_asked_all_the_same():
    async with Bench() as bench:
        engines = [await bench.engine(answers(reply())) for _ in range(2)]
        router = await bench.router(config(*(engine.port for engine in engines)))
        for target in range(2):
            router.target(target).mark(draining=True)
        assert await _together(router, 4) == [200] * 4
        router.target(1).mark(draining=False)
        before = len(engines[0].calls)
        assert await _together(router, 4) == [200] * 4
        assert len(engines[0].calls) == before, "one that is ready is better"
        assert router.idle()


async def test_endpoints_that_leave_are_asked_once_and_refuse():
    left = b'endpoint-load-metrics: JSON {"named_metrics":{"draining":1}}\r\nx-spillway-admission: refused\r\n'
    async with Bench() as bench:
        engines = [await bench.engine(answers(reply(b"{}", status=503, head=left))) for _ in range(2)]
        router = await bench.router(config(*(engine.port for engine in engines), inbound=True))
        for target in range(2):
            router.target(target).mark(draining=True)
        assert [(await router.ask()).status for _ in range(5)] == [503] * 5
        assert [len(engine.calls) for engine in engines] == [1, 1]
        assert router.idle()
