"""Requests for a backend without replicas: held until the first is up, told of, let go by and by, and answered clearly when none comes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
from tests.fakes.ports import free_port
from tests.fakes.proxy_bench import BODY, STREAM_BODY, Bench, Client, Reply, Router, config, post, until
from tests.fakes.raw_engine import Call, answers, chunk, event, reply, resets, silent, stream
from tests.integration.proxy.test_proxy_life import outcomes

from spillway_sidecar.proxy.errors import Outcome
from spillway_sidecar.proxy.held import COMMENT, HEARTBEAT_SECONDS
from spillway_wire.names import Provider, RequestType
from spillway_wire.snapshot import (
    BackendRef,
    Cluster,
    Endpoint,
    Endpoints,
    FlowControl,
    Limits,
    Resource,
    ResourceKey,
    Route,
    Rule,
    Timeouts,
    key_of,
)

HOLD = 60.0
PARTS = b"transfer-encoding: chunked\r\n\r\n" + chunk(b'{"error":{') + chunk(b'"message":"parts"}') + chunk(b"}") + b"0\r\n\r\n"


def scaled(*ports: int, **options: Any) -> dict[ResourceKey, Resource]:
    """A route to one backend that scales, with an endpoint at each port."""
    return config(*ports, **{"hold_seconds": HOLD, **options})


def beside(asleep: tuple[int, ...], other: tuple[int, ...], *, priority: int = 1, **cluster: Any) -> dict[ResourceKey, Resource]:
    """A rule with a backend that scales, `a`, and one that does not, `b`."""
    found = scaled(*asleep)
    route = found["route", "default/r"]
    assert isinstance(route, Route)
    refs = (BackendRef("default/a"), BackendRef("default/b", priority=priority))
    extra: list[Resource] = [
        msgspec.structs.replace(route, rules=(Rule(name="all", backends=refs),)),
        Cluster(name="default/b", model="m", **{"provider": Provider.VLLM, **cluster}),
        Endpoints(name="default/b", endpoints=tuple(Endpoint(f"b-{i}", "127.0.0.1", port) for i, port in enumerate(other))),
    ]
    return found | {key_of(resource): resource for resource in extra}


async def begun(router: Router, request: bytes | None = None, *, held: int = 1) -> Client:
    """A request that is held, on a connection of its own."""
    client = await router.client()
    client.send(post() if request is None else request)
    await until(lambda: router.site.waiting.held().get("default/a", (0, 0))[0] == held)
    return client


def demand(router: Router) -> Mapping[str, tuple[int, int, int]]:
    """Held requests, their tokens and what has come since the last look, by cluster."""
    return {entry.cluster: (entry.held, entry.held_tokens, entry.arrived_tokens) for entry in router.site.demand()}


def failed(got: Reply) -> tuple[int, bytes | None, str]:
    """Status, reason and code of an error."""
    return got.status, got.header(b"x-spillway-reason"), json.loads(got.body)["error"]["code"]


async def test_two_hundred_wait_for_the_first_replica_and_all_are_answered():
    at_work, most = 0, 0

    async def script(call: Call) -> None:
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        await asyncio.sleep(0.002)
        at_work -= 1
        await call.write(reply(json.loads(call.body)["name"].encode()))

    async with Bench() as bench:
        router = await bench.router(scaled(limits=Limits(max_concurrency=16)))
        clients = [await router.client() for _ in range(200)]
        for number, client in enumerate(clients):
            client.send(post(b'{"model":"m","name":"%d"}' % number))
        await until(lambda: router.site.waiting.count == 200)
        for _ in range(5):
            router.advance(5.0)
        assert router.site.waiting.held()["default/a"] == (200, demand(router)["default/a"][1])
        assert router.site.waiting.held_figures() == [("default/a", 200, 200)]
        engine = await bench.engine(script)
        router.swapper.swap("2", scaled(engine.port, limits=Limits(max_concurrency=16)))
        sweeping = asyncio.create_task(sweep(router))
        replies = await asyncio.gather(*(client.reply() for client in clients))
        sweeping.cancel()
        assert [(r.status, r.body) for r in replies] == [(200, b"%d" % number) for number in range(200)]
        assert most <= 16
        await until(router.idle)
        assert outcomes(router) == {"ok": 200}
        assert router.site.waiting.held_figures() == [("default/a", 0, 200)]


async def sweep(router: Router) -> None:
    """What the proxy's timer does."""
    while True:
        router.advance(0.1)
        await asyncio.sleep(0.01)


async def test_a_replica_that_has_come_up_is_given_a_few_at_first_and_all_it_runs_in_the_end():
    async with Bench() as bench:
        router = await bench.router(scaled())
        clients = [await router.client() for _ in range(100)]
        for client in clients:
            client.send(post())
        await until(lambda: router.site.waiting.count == 100)
        engine = await bench.engine(silent)
        router.site.routers = 2
        begin = bench.clock()
        router.swapper.swap("2", scaled(engine.port, limits=Limits(max_concurrency=60)))
        counts = []
        for _ in range(12):
            await asyncio.sleep(0.01)
            counts.append(router.target().in_flight)
            assert counts[-1] <= 4 + 56 * (bench.clock() - begin) / 5.0
            router.advance(0.5)
        assert counts[0] == 4, "eight at first, for two routers"
        assert counts == sorted(counts)
        assert counts[-1] == 60


async def test_nobody_is_held_for_longer_than_declared_and_a_failed_start_is_told_as_such():
    async with Bench() as bench:
        router = await bench.router(scaled())
        client = await begun(router)
        router.advance(HOLD - 1.0)
        assert router.site.waiting.count == 1
        router.advance(1.5)
        got = await client.reply()
        assert failed(got) == (503, b"cold_start_timeout", "no_endpoint")
        assert int(got.header(b"retry-after") or b"0") >= 1
        assert router.idle()
        assert router.site.waiting.held() == {}
        assert router.site.stats.refusals["default/r"].outcomes == {"cold_start_timeout": 1}


@pytest.mark.parametrize(
    ("options", "extra", "seconds"),
    [({"timeouts": Timeouts(request_seconds=20.0)}, (), 20.0), ({}, (b"x-llm-d-slo-ttft-ms: 2500",), 2.5)],
)
async def test_the_routes_timeout_and_the_requests_own_bound_it_too(
    options: Mapping[str, Any], extra: tuple[bytes, ...], seconds: float
):
    async with Bench() as bench:
        router = await bench.router(scaled(**options))
        client = await begun(router, post(BODY, *extra))
        router.advance(seconds - 0.5)
        assert router.site.waiting.count == 1
        router.advance(1.0)
        assert failed(await client.reply())[:2] == (503, b"cold_start_timeout")


async def test_a_full_queue_refuses_and_one_of_no_length_holds_nothing():
    async with Bench() as bench:
        router = await bench.router(scaled(flow=FlowControl(max_requests=2)))
        clients = [await begun(router, held=count) for count in (1, 2)]
        got = await router.ask()
        assert failed(got) == (429, b"overloaded", "overloaded")
        assert int(got.header(b"retry-after") or b"0") >= 1
        clients[0].leave()
        await until(lambda: router.site.waiting.count == 1)
        await begun(router, held=2)
        router.swapper.swap("2", scaled(flow=FlowControl(max_requests=0)))
        assert failed(await router.ask())[:2] == (503, b"no_endpoint")


async def test_a_backend_that_does_not_scale_refuses_at_once():
    async with Bench() as bench:
        router = await bench.router(config())
        assert failed(await router.ask()) == (503, b"no_endpoint", "no_endpoint")


async def test_who_leaves_is_forgotten_with_what_it_counted_for():
    async with Bench() as bench:
        router = await bench.router(scaled())
        clients = [await begun(router, held=1), await begun(router, post(STREAM_BODY), held=2)]
        (held, tokens, _) = demand(router)["default/a"]
        assert held == 2
        clients[0].leave()
        await until(lambda: router.site.waiting.count == 1)
        assert 0 < demand(router)["default/a"][1] < tokens
        clients[1].leave()
        await until(router.idle)
        assert demand(router) == {}
        assert router.site.stats.refusals["default/r"].outcomes == {"client_gone": 2}


async def test_who_is_held_for_a_route_that_is_deleted_hears_of_it_at_once():
    async with Bench() as bench:
        router = await bench.router(scaled())
        clients = [await begun(router, held=1), await begun(router, held=2)]
        router.swapper.swap("2", {})
        for client in clients:
            assert failed(await client.reply())[:2] == (503, b"no_endpoint")
        await until(router.idle)
        assert router.site.waiting.held_figures() == []


# --- heartbeats


async def test_a_streaming_client_hears_comments_until_its_stream_begins():
    async with Bench() as bench:
        router = await bench.router(scaled())
        client = await begun(router, post(STREAM_BODY))
        router.advance(HEARTBEAT_SECONDS - 0.5)
        router.advance(1.0)
        router.advance(1.0)
        router.advance(HEARTBEAT_SECONDS)
        engine = await bench.engine(answers(stream("a", "b")))
        router.swapper.swap("2", scaled(engine.port))
        got = await client.reply()
        assert (got.status, got.whole) == (200, True)
        assert got.header(b"content-type") == b"text/event-stream"
        assert got.header(b"x-request-id") == b"t-1"
        assert got.body == COMMENT * 2 + event("a") + event("b") + b"data: [DONE]\n\n"
        client.send(post(STREAM_BODY))
        assert (await client.reply()).body == event("a") + event("b") + b"data: [DONE]\n\n", "the connection carries on"
        await until(router.idle)
        assert outcomes(router) == {"ok": 2}


@pytest.mark.parametrize("request_", [post(), post(STREAM_BODY, version=b"1.0")], ids=["unary", "HTTP/1.0"])
async def test_other_clients_just_wait(request_: bytes):
    async with Bench() as bench:
        router = await bench.router(scaled())
        client = await begun(router, request_)
        router.advance(3 * HEARTBEAT_SECONDS)
        with pytest.raises(TimeoutError):
            await client.reply(0.05)
        client = await begun(router, request_, held=2)
        router.advance(HOLD)
        head = await client.head()
        assert head.split(b"\r\n")[0] == b"HTTP/1.1 503 Service Unavailable"


def told(got: Reply) -> dict[str, Any]:
    """What the last event of a stream says that had only comments before it."""
    assert (got.status, got.whole) == (200, True)
    comments, _, last = got.body.rpartition(COMMENT)
    assert comments == COMMENT * comments.count(COMMENT)
    assert last.startswith(b"data: ")
    assert last.endswith(b"\n\n")
    assert b"[DONE]" not in last
    error: dict[str, Any] = json.loads(last[6:])["error"]
    return error


async def test_a_failed_start_ends_a_stream_that_has_begun_with_an_event():
    async with Bench() as bench:
        router = await bench.router(scaled())
        client = await begun(router, post(STREAM_BODY))
        router.advance(HEARTBEAT_SECONDS)
        router.advance(HOLD)
        error = told(await client.reply())
        assert (error["code"], error["reason"]) == ("no_endpoint", "cold_start_timeout")
        assert set(error) == {"message", "type", "param", "code", "reason"}
        assert router.idle()


@pytest.mark.parametrize(
    ("engine_says", "message"),
    [
        (reply(b'{"error":{\n"message":"context length exceeded","code":"x"}}', status=400), "context length exceeded"),
        (reply(b"<html>no</html>", status=400, kind="text/html"), "The model's server refused the request."),
        (reply(b'"what"', status=404), "The model's server refused the request."),
        (
            reply(status=422).partition(b"content-length")[0] + PARTS,
            "parts",
        ),
        (reply(b'{"choices":[]}'), "The model's server failed."),  # no stream at all
        (b"nonsense\r\n\r\n", "The model's server broke the connection or its answer is malformed."),
    ],
)
async def test_what_an_engine_refuses_after_a_heartbeat_is_told_by_an_event(engine_says: bytes, message: str):
    async with Bench() as bench:
        router = await bench.router(scaled())
        client = await begun(router, post(STREAM_BODY))
        router.advance(HEARTBEAT_SECONDS)
        engine = await bench.engine(answers(engine_says))
        router.swapper.swap("2", scaled(engine.port))
        assert told(await client.reply())["message"] == message
        await until(router.idle)


async def test_a_stream_that_breaks_after_heartbeats_ends_as_any_other():
    async with Bench() as bench:
        router = await bench.router(scaled())
        client = await begun(router, post(STREAM_BODY))
        router.advance(HEARTBEAT_SECONDS)

        async def script(call: Call) -> None:
            await call.write(stream("a", done=False)[:-5])
            await asyncio.sleep(0.01)
            call.reset()

        engine = await bench.engine(script)
        router.swapper.swap("2", scaled(engine.port))
        got = await client.reply()
        assert got.whole
        assert got.body.startswith(COMMENT + event("a") + b"data: ")
        assert json.loads(got.body.rpartition(b"data: ")[2])["error"]["code"] == "stream_interrupted"
        await until(router.idle)


async def test_an_attempt_that_fails_after_heartbeats_goes_elsewhere():
    async with Bench() as bench:
        router = await bench.router(scaled())
        client = await begun(router, post(STREAM_BODY))
        router.advance(HEARTBEAT_SECONDS)
        bad, good = await bench.engine(resets), await bench.engine(answers(stream("a")))
        router.swapper.swap("2", scaled(bad.port, good.port))
        assert (await client.reply()).body == COMMENT + event("a") + b"data: [DONE]\n\n"


async def test_a_stream_that_is_to_go_on_elsewhere_can_be_held_before():
    async with Bench() as bench:
        router = await bench.router(scaled(continues=True))
        client = await begun(router, post(STREAM_BODY))
        router.advance(HEARTBEAT_SECONDS)

        async def dies(call: Call) -> None:
            await call.write(stream("a", done=False)[:-5])
            await asyncio.sleep(0.01)
            call.reset()

        one, two = await bench.engine(dies), await bench.engine(answers(stream("b")))
        router.swapper.swap("2", scaled(one.port, continues=True))
        await until(lambda: one.calls)
        router.swapper.swap("3", scaled(two.port, continues=True))
        got = await client.reply()
        assert got.whole
        assert got.body.startswith(COMMENT + event("a"))
        assert b"stream_interrupted" in got.body, "its table knew of one endpoint"
        await until(router.idle)


# --- beside other backends, and when endpoints go


async def test_another_backend_serves_at_once_while_the_one_that_is_missing_is_asked_for():
    async with Bench() as bench:
        other = await bench.engine(answers(reply()))
        router = await bench.router(beside((), (other.port,)))
        calls: list[int] = []
        router.site.waiting.woken = lambda: calls.append(1)
        assert [(await router.ask()).status for _ in range(3)] == [200] * 3
        assert router.site.waiting.held_total == {}
        assert calls == [1], "told of at once, and not for each"
        asked = demand(router)
        assert asked["default/a"][2] > 0
        assert "default/b" not in asked, "it does not scale"
        await router.ask()
        assert calls == [1], "the next report says so anyway"
        demand(router)
        demand(router)
        await router.ask()
        assert calls == [1, 1], "asked for after a pause"


async def test_a_backend_for_other_requests_is_neither_woken_nor_in_the_way():
    async with Bench() as bench:
        other = await bench.engine(answers(reply()))
        resources = beside((), (other.port,), capabilities=(RequestType.EMBEDDINGS,))
        chat = resources["cluster", "default/a"]
        assert isinstance(chat, Cluster)
        resources["cluster", "default/a"] = msgspec.structs.replace(chat, capabilities=(RequestType.CHAT,))
        router = await bench.router(resources)
        assert (await router.ask(post(b'{"model":"m","input":"x"}', path=b"/v1/embeddings"))).status == 200
        assert demand(router) == {}
        await begun(router)
        assert len(other.calls) == 1


async def test_who_finds_all_others_unreachable_is_held():
    async with Bench() as bench:
        router = await bench.router(beside((), (free_port(),)))
        client = await begun(router)
        engine = await bench.engine(answers(reply()))
        router.swapper.swap("2", beside((engine.port,), (free_port(),)))
        assert (await client.reply()).status == 200


async def test_a_replica_that_dies_is_waited_for_and_nobody_hears_of_it():
    async with Bench() as bench:
        port = free_port()
        router = await bench.router(scaled(port))
        clients = [await begun(router, held=count) for count in range(1, 21)]
        for _ in range(20):
            router.advance(0.3)
            await asyncio.sleep(0.005)
        assert router.site.waiting.held()["default/a"][0] >= 19, "but for one that looks whether it is back"
        engine = await bench_engine_at(bench, port)
        sweeping = asyncio.create_task(sweep(router))
        assert {(await client.reply()).status for client in clients} == {200}
        sweeping.cancel()
        await until(router.idle)
        assert outcomes(router) == {"ok": 20}
        assert len(engine.calls) == 20


async def bench_engine_at(bench: Bench, port: int) -> Any:
    """An engine at a port of our choice."""
    from tests.fakes.raw_engine import RawEngine

    engine = RawEngine(answers(reply()), port=port)
    await engine.start()
    bench.stops.append(engine.stop)
    return engine


async def test_who_waits_for_room_is_held_when_the_last_endpoint_goes():
    async with Bench() as bench:
        first = await bench.engine(silent)
        limits = Limits(max_concurrency=1)
        router = await bench.router(scaled(first.port, limits=limits))
        served = await router.client()
        served.send(post())
        await until(lambda: first.calls)
        waiting = await router.client()
        waiting.send(post())
        await until(lambda: router.site.waiting.count == 1)
        assert router.site.waiting.held() == {}
        calls: list[int] = []
        router.site.waiting.woken = lambda: calls.append(1)
        router.swapper.swap("2", scaled(limits=limits))
        await until(router.site.waiting.held)
        router.advance(12.0)
        assert router.site.waiting.held()["default/a"][0] == 1, "longer than for room"
        assert calls == [1]
        await first.calls[0].write(reply())
        assert (await served.reply()).status == 200
        second = await bench.engine(answers(reply()))
        router.swapper.swap("3", scaled(second.port, limits=limits))
        assert (await waiting.reply()).status == 200


async def test_a_sidecar_whose_engine_is_not_up_yet_is_no_replica():
    async with Bench() as bench:
        engine = await bench.engine(answers(reply()))
        guard = await bench.guard(engine.port)
        guard.state["up"] = False
        router = await bench.router(scaled(guard.port, inbound=True))
        clients = []
        for _ in range(10):
            clients.append(await router.client())
            clients[-1].send(post())
        await until(lambda: router.site.waiting.count == 10)
        for _ in range(5):
            router.advance(1.1)
            await asyncio.sleep(0.01)
        await until(lambda: router.site.waiting.count == 10)
        guard.state["up"] = True
        sweeping = asyncio.create_task(sweep(router))
        assert {(await client.reply()).status for client in clients} == {200}
        sweeping.cancel()
        await until(router.idle)


async def test_a_sidecar_that_finds_out_that_its_engine_is_not_there_yet_has_begun_nothing():
    async with Bench() as bench:
        port = free_port()
        guard = await bench.guard(port)
        guard.site.engine_failed = lambda: guard.state.update(up=False)
        router = await bench.router(scaled(guard.port, inbound=True, attempts=1))
        client = await begun(router)
        guard.state["up"] = True
        await bench_engine_at(bench, port)
        router.advance(1.1)
        assert (await client.reply()).status == 200
        await until(router.idle)
        assert outcomes(router) == {"ok": 1}


async def test_full_sidecars_send_held_requests_back_into_the_queue_however_often():
    """Routers that do not know of each other come to one small replica all at once."""

    async def script(call: Call) -> None:
        await asyncio.sleep(0.01)
        await call.write(reply())

    async with Bench() as bench:
        engine = await bench.engine(script)
        guard = await bench.guard(engine.port)
        guard.site.resize(2, 0)
        limits = Limits(max_concurrency=2, max_queue=0)
        routers = [await bench.router(scaled(limits=limits)) for _ in range(3)]
        clients = []
        for router in routers:
            for _ in range(20):
                clients.append(await router.client())
                clients[-1].send(post())
            await until(lambda router=router: router.site.waiting.count == 20)  # type: ignore[misc]
        for router in routers:
            router.swapper.swap("2", scaled(guard.port, inbound=True, limits=limits))
        sweeping = [asyncio.create_task(sweep(router)) for router in routers]
        assert [(await client.reply()).status for client in clients] == [200] * 60
        for task in sweeping:
            task.cancel()
        for router in routers:
            await until(router.idle)
            assert outcomes(router) == {"ok": 20}


# --- what is told


async def test_demand_counts_a_request_once_and_is_put_right_when_it_has_ended():
    async with Bench() as bench:
        answer = b'{"usage":{"prompt_tokens":500,"completion_tokens":300}}'
        bad, good = await bench.engine(resets), await bench.engine(answers(reply(answer)))
        router = await bench.router(scaled(bad.port, good.port))
        total = 0
        while not bad.calls:
            assert (await router.ask()).status == 200
            total += 800
        assert demand(router)["default/a"] == (0, 0, total)
        assert demand(router) == {}


async def test_what_is_held_is_told_of_at_once_and_only_the_first():
    async with Bench() as bench:
        router = await bench.router(scaled())
        calls: list[Mapping[str, tuple[int, int, int]]] = []
        router.site.waiting.woken = lambda: calls.append(demand(router))
        await begun(router, held=1)
        await begun(router, held=2)
        assert len(calls) == 1
        held, tokens, arrived = calls[0]["default/a"]
        assert held == 1
        assert tokens == arrived > 0


async def test_a_decision_tells_of_the_wait():
    async with Bench() as bench:
        router = await bench.router(scaled())
        client = await begun(router)
        router.advance(7.0)
        engine = await bench.engine(answers(reply()))
        router.swapper.swap("2", scaled(engine.port))
        assert (await client.reply()).status == 200
        decisions = router.site.decisions
        assert decisions is not None
        decision = decisions.find("t-1")
        assert decision is not None
        attempts: Any = decision.as_dict()["attempts"]
        assert attempts[-1]["endpoint"] == "a-0"
        assert attempts[-1]["diverted"].startswith("held 7.")


async def test_higher_priority_and_light_flows_go_first_when_it_is_up():
    async with Bench() as bench:
        limits, flow = Limits(max_concurrency=1), b"x-llm-d-inference-fairness-id"
        router = await bench.router(scaled(limits=limits))
        clients = {}
        for count, (name, who) in enumerate([("1", b"hog"), ("2", b"hog"), ("3", b"hog"), ("4", b"light")], 1):
            clients[name] = await begun(router, post(b'{"model":"m","name":"%b"}' % name.encode(), flow + b": " + who), held=count)
        engine = await bench.engine(silent)
        router.swapper.swap("2", scaled(engine.port, limits=limits))
        for number in range(4):
            await until(lambda number=number: len(engine.calls) > number)  # type: ignore[misc]
            name = json.loads(engine.calls[number].body)["name"]
            await engine.calls[number].write(reply(name.encode()))
            assert (await clients[name].reply()).body == name.encode()
        assert [json.loads(call.body)["name"] for call in engine.calls] == ["1", "4", "2", "3"]


async def test_the_proxys_own_drain_ends_what_is_held():
    async with Bench() as bench:
        router = await bench.router(scaled())
        unary, streaming = await begun(router, held=1), await begun(router, post(STREAM_BODY), held=2)
        router.advance(HEARTBEAT_SECONDS)
        router.site.draining = True
        for client in tuple(router.site.connections):
            assert client.exchange is not None
            client.exchange.cut_off(Outcome.DRAINING, "This server is shutting down.")
        got = await unary.reply()
        assert failed(got)[:2] == (503, b"draining")
        assert told(await streaming.reply())["reason"] == "draining"
        assert await streaming.ended()
        await until(router.idle)
