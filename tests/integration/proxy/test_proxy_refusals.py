"""What is refused: with the right status, in OpenAI's shape, before a byte reaches an engine."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.fakes.proxy_bench import BODY, Bench, Router, assert_error, config, post, until
from tests.fakes.raw_engine import answers, reply

from spillway_sidecar.proxy.listener import ClientLimits

MAX_BODY_BYTES = 65536


async def _bench(bench: Bench) -> tuple[Router, Any]:
    engine = await bench.engine(answers(reply()))
    return await bench.router(config(engine.port), limits=ClientLimits(max_body_bytes=MAX_BODY_BYTES)), engine


@pytest.mark.parametrize(
    ("request_", "param", "code"),
    [
        (post(b'{"model":"x"}'), "model", "model_not_found"),
        (post(b"{}"), "model", "bad_request"),
        (post(b'{"model":[]}'), "model", "bad_request"),
        (post(b'{"model":"m","stream":"no"}'), "stream", "bad_request"),
        (post(b"{"), None, "bad_request"),
    ],
)
async def test_the_field_at_fault_is_named(request_: bytes, param: str | None, code: str):
    async with Bench() as bench:
        router, _ = await _bench(bench)
        got = await router.ask(request_)
        error = assert_error(got, got.status)
        assert (error["param"], error["code"]) == (param, code)


@pytest.mark.parametrize("method", [b"GET", b"DELETE", b"PATCH", b"HEAD", b"OPTIONS"])
async def test_methods_that_an_endpoint_does_not_take_are_told_which_it_takes(method: bytes):
    async with Bench() as bench:
        router, _ = await _bench(bench)
        got = await router.ask(b"%b /v1/completions HTTP/1.1\r\nHost: proxy\r\n\r\n" % method)
        assert_error(got, 405)
        assert got.header(b"allow") == b"POST"


async def test_the_body_is_asked_for_when_the_client_waits_and_not_when_it_is_refused():
    async with Bench() as bench:
        router, engine = await _bench(bench)
        client = await router.client()
        client.send(post(BODY, b"Expect: 100-continue")[: -len(BODY)])
        assert await client.head() == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.send(BODY)
        assert (await client.reply()).status == 200
        client.send(post(b"", b"Expect: 100-continue").replace(b"Content-Length: 0", b"Content-Length: 70000"))
        got = await client.reply()
        assert got.interim == []
        assert_error(got, 413)
        assert len(engine.calls) == 1


async def test_a_client_that_sends_on_still_sees_why_its_body_is_refused():
    """Closed at once, the unread bytes would turn the answer into a reset."""
    async with Bench() as bench:
        router, engine = await _bench(bench)
        client = await router.client()
        body = b"x" * (8 << 20)
        client.send(post(body))
        assert_error(await client.reply(), 413)
        await client.writer.drain()
        assert not engine.connections
        router.advance(10.0)
        await until(lambda: not router.site.connections)


async def test_a_slow_head_is_refused_after_five_seconds():
    async with Bench() as bench:
        router, _ = await _bench(bench)
        client = await router.client()
        client.send(post()[:20])
        await until(lambda: any(c.busy for c in router.site.connections))
        router.advance(4.0)
        client.send(post()[20:40])
        router.advance(0.5)
        assert len(router.site.connections) == 1
        router.advance(1.0)
        assert_error(await client.reply(), 408)
        assert await client.ended()


async def test_a_slow_head_on_a_kept_connection_is_refused_as_soon():
    async with Bench() as bench:
        router, _ = await _bench(bench)
        client = await router.client()
        client.send(post())
        assert (await client.reply()).status == 200
        router.advance(60.0)
        client.send(b"POST ")
        await until(lambda: any(c.busy for c in router.site.connections))
        router.advance(5.1)
        assert_error(await client.reply(), 408)


async def test_a_connection_that_says_nothing_is_closed_without_a_word():
    async with Bench() as bench:
        router, _ = await _bench(bench)
        client = await router.client()
        await until(lambda: router.site.connections)
        router.advance(5.1)
        assert await client.ended()


@pytest.mark.parametrize("framing", [b"Content-Length: 60000", b"Transfer-Encoding: chunked"])
async def test_a_slow_body_is_refused_after_ten_seconds_and_a_steady_one_is_not(framing: bytes):
    async with Bench() as bench:
        router, engine = await _bench(bench)
        chunked = framing.startswith(b"T")

        def piece(size: int) -> bytes:
            return b"%x\r\n%b\r\n" % (size, b" " * size) if chunked else b" " * size

        client = await router.client()
        client.send(post().split(b"Content-Length")[0] + framing + b"\r\n\r\n")
        await until(lambda: any(c.busy for c in router.site.connections))
        connection = next(iter(router.site.connections))
        for _ in range(4):  # 2 KiB in each two seconds is steady
            before = connection.deadline
            client.send(piece(2048))
            await until(lambda before=before: connection.deadline > before)  # type: ignore[misc]
            router.advance(2.0)
        router.advance(9.9)
        assert connection.busy
        router.advance(0.2)
        assert_error(await client.reply(), 408)
        assert not engine.connections


async def test_requests_sent_at_once_are_answered_in_order():
    async with Bench() as bench:
        engine = await bench.engine(answers(reply()))

        async def echo(call: Any) -> None:
            await call.write(reply(call.body))

        engine.script = echo
        router = await bench.router(config(engine.port))
        bodies = [b'{"model":"%b","n":%d}' % (b"x" if n % 3 == 0 else b"m", n) for n in range(60)]
        client = await router.client()
        client.send(b"".join(post(body) for body in bodies))
        for n, body in enumerate(bodies):
            got = await client.reply()
            assert (got.status, got.body) == (200, body) if n % 3 else got.status == 404
        assert len(engine.connections) == 1


async def test_after_a_bad_request_nothing_of_its_connection_is_read():
    async with Bench() as bench:
        router, engine = await _bench(bench)
        client = await router.client()
        client.send(post() + b"POST /x HTTP/1.1\r\nA B: c\r\n\r\n" + post())
        assert (await client.reply()).status == 200
        assert (await client.reply()).status == 400
        assert await client.ended()
        assert len(engine.calls) == 1


async def test_the_models_of_all_routes_are_listed():
    async with Bench() as bench:
        router, _ = await _bench(bench)
        listed = json.loads((await router.ask(b"GET /v1/models HTTP/1.1\r\nHost: proxy\r\n\r\n")).body)
        assert listed == {"object": "list", "data": [{"id": "m", "object": "model", "created": 0, "owned_by": "spillway"}]}
        one = json.loads((await router.ask(b"GET /v1/models/%6d HTTP/1.1\r\nHost: proxy\r\n\r\n")).body)
        assert one["id"] == "m"


async def test_without_a_configuration_there_is_nothing_to_serve():
    async with Bench() as bench:
        router = await bench.router({})
        got = await router.ask()
        assert_error(got, 503)
        assert got.header(b"retry-after") == b"1"
