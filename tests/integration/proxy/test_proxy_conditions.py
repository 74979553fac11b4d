"""Fallback and spill on the data path: what is counted of attempts, however they end, and where the next ones go."""

from __future__ import annotations

from typing import Any

from tests.fakes.proxy_bench import STREAM_BODY, Bench, Router, post, until
from tests.fakes.raw_engine import Call, answers, chunk, event, reply, resets, silent, stream

from spillway_wire.names import DiversionCause, Provider
from spillway_wire.snapshot import (
    BackendRef,
    Cluster,
    Endpoint,
    Endpoints,
    Fallback,
    Resource,
    ResourceKey,
    Retries,
    Route,
    Rule,
    Spill,
    key_of,
)


def pools(ports: dict[str, int], **conditions: Any) -> dict[ResourceKey, Resource]:
    """One rule over backends in the order of their priority."""
    refs = tuple(BackendRef(name, priority) for priority, name in enumerate(ports))
    resources: list[Resource] = [Route("r", ("m",), (Rule("x", refs, (), **conditions),), retries=Retries(2, 100))]
    for name, port in ports.items():
        resources += [Cluster(name, Provider.VLLM, "m"), Endpoints(name, (Endpoint(f"{name}-0", "127.0.0.1", port),))]
    return {key_of(resource): resource for resource in resources}


def _left_over(router: Router) -> tuple[int, int]:
    """Attempts that a fallback still waits for, and requests that a spill still sees waiting."""
    fallback, target = router.site.conditions.fallbacks["r", "x", 0], router.target(0, "a")
    assert target.turn is not None
    waiting: Any = fallback.info()["waiting"]
    return waiting, target.turn.waiting


async def test_whatever_way_an_attempt_ends_it_is_counted_out():
    async def begins_and_breaks(call: Call) -> None:
        await call.write(stream("a", done=False).removesuffix(b"0\r\n\r\n") + chunk(event("b")))
        call.reset()

    async with Bench() as bench:
        engine = await bench.engine(silent)
        spare = await bench.engine(answers(stream("spare")))
        conditions = {"fallback": Fallback(99), "spill": Spill(30.0)}
        router = await bench.router(pools({"a": engine.port, "b": spare.port}, **conditions))
        for script in (
            answers(stream("a", "b")),
            answers(reply(b"{}", status=400)),
            answers(reply(b"no", status=404, kind="text/plain")),
            answers(reply(b"{}", status=500)),
            answers(reply(b"{}", status=429)),
            answers(b"rubbish\r\n\r\n"),
            resets,
            begins_and_breaks,
        ):
            engine.script = script
            for target in router.site.clusters["a"].targets:
                target.limited_until = 0.0
                target.mark()
            await router.ask(post(STREAM_BODY))
            await until(lambda: _left_over(router) == (0, 0), what=f"{script} leaves something behind")
        engine.script = silent
        client = await router.client()
        client.send(post(STREAM_BODY))
        await until(lambda: _left_over(router) == (1, 1) or router.site.stats.backends["r", "x", "b"].outcomes)
        client.leave()
        await until(lambda: _left_over(router) == (0, 0) and router.idle())


async def test_a_priority_that_fails_is_left_and_probed():
    async with Bench() as bench:
        engine = await bench.engine(answers(reply(b'"a"')))
        spare = await bench.engine(answers(reply(b'"b"')))
        router = await bench.router(pools({"a": engine.port, "b": spare.port}, fallback=Fallback(30)))
        for _ in range(8):
            assert (await router.ask()).body == b'"a"'
        target = router.target(0, "a")
        fallback = router.site.conditions.fallbacks["r", "x", 0]
        engine.script = answers(reply(b"{}", status=500))
        for _ in range(40):
            assert (await router.ask()).status == 200, "made good at the next priority"
            if fallback.because is not None:
                break
            target.succeeded(router.site.clock())  # keep it from being ejected for itself
        assert fallback.because is not None
        assert fallback.because.cause is DiversionCause.ERROR_RATE
        met = len(engine.calls)
        got = await router.ask()
        assert (got.body, len(engine.calls)) == (b'"b"', met)
        shown = router.site.decisions.find(got.header(b"x-request-id").decode()).as_dict()  # type: ignore[union-attr]
        assert shown["attempts"][0]["diverted"].startswith("fell back: error rate ")  # type: ignore[index]
        assert router.site.stats.backends["r", "x", "b"].diverted[DiversionCause.ERROR_RATE] >= 1
        assert [each.cause for each in router.site.diversions()] == [DiversionCause.ERROR_RATE]
        engine.script = answers(reply(b'"a"'))
        for _ in range(60):
            router.advance(0.5)
            await router.ask()
        assert fallback.because is None
        assert (await router.ask()).body == b'"a"'


async def test_what_was_learned_outlives_a_snapshot_that_declares_the_same():
    async with Bench() as bench:
        engine = await bench.engine(answers(reply(b'"a"')))
        resources = pools({"a": engine.port, "b": engine.port}, fallback=Fallback(30), spill=Spill(2.0))
        router = await bench.router(resources)
        before = dict(router.site.conditions.fallbacks), dict(router.site.conditions.spills)
        turn = router.target(0, "a").turn
        assert turn is not None
        router.swapper.swap("2", resources)
        assert (router.site.conditions.fallbacks, router.site.conditions.spills) == before
        assert router.target(0, "a").turn is turn
        router.swapper.swap("3", pools({"a": engine.port, "b": engine.port}))
        assert router.site.conditions.info(0.0) == {"fallbacks": {}, "spills": {}}
