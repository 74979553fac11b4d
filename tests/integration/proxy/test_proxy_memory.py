"""What a request leaves behind in memory: nothing, without the garbage collector's help."""

from __future__ import annotations

import gc
from typing import Any

from tests.fakes.ports import free_port
from tests.fakes.proxy_bench import STREAM_BODY, Bench, config, post, routed, until
from tests.fakes.raw_engine import Call, answers, reply, silent, stream

from spillway_sidecar.proxy.downstream import Downstream
from spillway_sidecar.proxy.exchange import Exchange


def alive(*kinds: type) -> int:
    """Objects of these kinds."""
    return sum(isinstance(thing, kinds) for thing in gc.get_objects())


async def _without_collector(work: Any) -> None:
    gc.collect()
    gc.disable()
    try:
        await work()
    finally:
        gc.enable()


async def test_requests_free_themselves_however_they_end():
    async def flaky(call: Call) -> None:
        if call.number % 3 == 2:
            call.reset()
        elif b"stream" in call.body:
            await call.write(stream("a"))
        else:
            await call.write(reply(status=503 if call.number % 3 else 200))

    async with Bench() as bench:
        engines = [await bench.engine(flaky) for _ in range(2)]
        router = await bench.router(config(*(engine.port for engine in engines), free_port(), attempts=3))
        client = await router.client()

        async def work() -> None:
            for n in range(60):
                client.send(post(STREAM_BODY if n % 2 else post()[-27:]))
                await client.reply()
            assert router.idle()
            assert alive(Exchange) == 0

        await _without_collector(work)


async def test_connections_free_themselves_when_clients_leave():
    async with routed(silent) as (router, engine):

        async def work() -> None:
            for n in range(8):
                client = await router.client()
                client.send(post())
                await until(lambda n=n: len(engine.calls) == n + 1)  # type: ignore[misc]
                assert (alive(Exchange), alive(Downstream)) == (1, 1)
                client.leave()
                await until(router.idle)
            await until(lambda: not router.site.connections)
            assert alive(Exchange) == 0
            assert alive(Downstream) == 0

        await _without_collector(work)


async def test_a_kept_connection_holds_no_request():
    body = b'{"model":"m","x":"%b"}' % (b"x" * 1_000_000)
    async with routed(answers(reply())) as (router, _):
        client = await router.client()
        client.send(post(body))
        await client.reply()
        (connection,) = router.site.connections
        held = gc.get_referents(connection)
        assert not [value for value in held if isinstance(value, bytes) and len(value) > 1000]
        assert alive(Exchange) == 0
