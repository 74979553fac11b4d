"""What a client gets of an engine's reply: whole as it came, or told apart from whole, wherever it is cut."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest
from tests.fakes.proxy_bench import STREAM_BODY, Bench, Reply, config, post, routed, until
from tests.fakes.raw_engine import DONE, LAST, SSE_HEAD, Call, answers, chunk, event, reply

from spillway_wire.snapshot import Limits


def _streamed(body: bytes) -> tuple[bytes, bytes | None]:
    """A stream's payload, and the error event at its end."""
    found = re.search(rb'data: \{"error":\{[^\n]*"code":"stream_interrupted"[^\n]*\}\}\n\n\Z', body)
    return (body[: found.start()], found.group()) if found else (body, None)


async def test_what_is_between_neighbours_does_not_pass():
    head = b"".join(
        line + b"\r\n"
        for line in (
            b"Connection: close, X-Named, content-length",
            b"X-Named: 1",
            b"Keep-Alive: timeout=5",
            b"Proxy-Authenticate: x",
            b"Upgrade: h2c",
            b"Trailer: x",
            b"Set-Cookie: a=b",
            b"Endpoint-Load-Metrics: JSON {}",
            b"X-Request-Id: engine",
            b"X-Spillway-Reason: ok",
            b"X-Spillway-Admission: admitted",
            b"OpenAI-Processing-Ms: 5",
        )
    )
    async with routed(answers(reply(head=head))) as (router, _):
        got = await router.ask()
        assert got.body == b'{"ok":true}'
        names = sorted(name for name, _ in got.headers)
        assert names == [b"content-length", b"content-type", b"openai-processing-ms", b"x-request-id"]
        assert got.header(b"x-request-id") != b"engine"


@pytest.mark.parametrize(
    "raw",
    [
        reply(b"abc") + b"d",
        reply(b"abc") + reply(b"poison"),
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + chunk(b"abc") + LAST + reply(b"poison"),
        b"HTTP/1.1 204 X\r\n\r\npoison",
        reply(b"abc", head=b"connection: close\r\n"),
    ],
)
@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
async def test_a_connection_with_more_on_it_than_its_reply_is_not_used_again(raw: bytes, version: bytes):
    async with routed(answers(raw)) as (router, engine):
        for _ in range(3):
            got = await router.ask(post(version=version))
            assert b"poison" not in got.body
            assert got.status in {200, 204}
        assert len(engine.connections) == 3


@pytest.mark.parametrize("status", [400, 401, 404, 413, 422, 451])
async def test_an_engines_own_refusal_passes_when_it_is_json(status: int):
    body = b'{"error":{"message":"too many tokens"}}'
    async with routed(answers(reply(body, status=status))) as (router, engine):
        got = await router.ask()
        assert (got.status, got.body) == (status, body)
        assert got.header(b"x-spillway-reason") == b"upstream_error"
        assert len(engine.calls) == 1


@pytest.mark.parametrize(("status", "told"), [(400, 400), (404, 404), (418, 502)])
async def test_an_engines_html_does_not_pass(status: int, told: int):
    async with routed(answers(reply(b"<html>nginx/1.2</html>", status=status, kind="text/html"))) as (router, engine):
        got = await router.ask()
        assert got.status == told
        assert b"nginx" not in got.body + got.raw_head
        assert len(engine.calls) == 1
        assert router.idle()


async def _cut_everywhere(raw: bytes, request: bytes, check: Any) -> None:
    """Answers with ever more of `raw`, then ends the connection, by turns orderly and by a reset."""
    state = {"cut": 0}

    async def script(call: Call) -> None:
        cut = state["cut"]
        await call.write(raw[:cut])
        await asyncio.sleep(0.002)
        call.reset() if cut % 2 else call.close()

    async with routed(script, attempts=1) as (router, _):
        for cut in range(len(raw)):
            state["cut"] = cut
            target = router.target()
            target.failures, target.penalty, target.down_until = 0, 1.0, 0.0
            target.mark()
            check(cut, await router.ask(request))
        await until(router.idle)


async def test_a_body_of_a_length_cut_anywhere_is_never_taken_for_whole():
    raw = reply(b"0123456789" * 4)
    start = raw.index(b"\r\n\r\n") + 4

    def check(cut: int, got: Reply) -> None:
        if cut <= start:
            assert got.status == 502, cut
        else:
            assert got.status == 200
            assert not got.whole, cut
            assert raw[start:].startswith(got.body)

    await _cut_everywhere(raw, post(), check)


async def test_a_chunked_body_cut_anywhere_is_never_taken_for_whole():
    raw = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + chunk(b"01234") + chunk(b"56789") + LAST

    def check(cut: int, got: Reply) -> None:
        assert got.status == 502 or not got.whole, cut
        if got.status == 200:
            assert b"0123456789".startswith(got.body)

    await _cut_everywhere(raw, post(), check)


@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
async def test_a_stream_cut_anywhere_ends_with_one_error_event_after_whole_events(newline: bytes):
    events = [event(text).replace(b"\n", newline) for text in "abc"]
    raw = SSE_HEAD + b"".join(chunk(one) for one in events) + chunk(DONE) + LAST
    start = len(SSE_HEAD)
    ends = [start + sum(len(chunk(one)) for one in events[: n + 1]) - 2 for n in range(3)]  # the text is whole before its chunk is
    done = ends[-1] + len(chunk(DONE))

    def check(cut: int, got: Reply) -> None:
        whole_events = sum(1 for end in ends if cut >= end)
        if whole_events == 0:
            assert got.status == 502, cut
            return
        payload, error = _streamed(got.body)
        if cut >= done:
            assert payload.endswith(DONE)
            assert error is not None or not got.whole, cut
            return
        assert got.whole, cut
        assert payload == b"".join(events[:whole_events]), cut
        assert error is not None
        assert b"[DONE]" not in got.body

    await _cut_everywhere(raw, post(STREAM_BODY), check)


@pytest.mark.parametrize("done", [b"", b"data: DONE\n\n", event("[DONE]"), event('\\"finish_reason\\":\\"stop')])
async def test_a_stream_that_ends_orderly_without_its_end_is_interrupted(done: bytes):
    raw = SSE_HEAD + chunk(event("a")) + (chunk(done) if done else b"") + LAST
    async with routed(answers(raw)) as (router, _):
        got = await router.ask(post(STREAM_BODY))
        payload, error = _streamed(got.body)
        assert payload == event("a") + done
        assert error is not None
        assert got.whole
        info: Any = router.site.stats.backend("default/r", "all", "default/a").outcomes
        assert info == {"interrupted": 1}


async def test_large_events_over_many_chunks_pass_and_are_not_mixed_when_cut():
    large = b"data: " + b"x" * 200_000 + b"\n\n" + b"y: z\n\n" * 10_000
    for cut in (None, 70_000, 150_000, 200_100, 230_001):
        raw = SSE_HEAD + chunk(event("a")) + chunk(large) + chunk(DONE) + LAST

        async def script(call: Call, raw: bytes = raw, cut: int | None = cut) -> None:
            await call.write(raw[: cut or len(raw)])
            if cut:
                call.close()

        async with routed(script) as (router, _):
            got = await router.ask(post(STREAM_BODY))
            text = event("a") + large + DONE
            if cut is None:
                assert (got.body, got.whole) == (text, True)
            else:
                payload, error = _streamed(got.body)
                assert text.startswith(payload)
                assert (error is not None) is got.whole


async def test_two_proxies_in_a_row_tell_of_one_interruption_once():
    async def script(call: Call) -> None:
        await call.write(SSE_HEAD + chunk(event("a")))
        await asyncio.sleep(0.01)
        call.reset()

    async with Bench() as bench:
        engine = await bench.engine(script)
        guard = await bench.guard(engine.port)
        router = await bench.router(config(guard.port, inbound=True))
        got = await router.ask(post(STREAM_BODY))
        assert got.whole
        assert got.body.count(b"stream_interrupted") == 1
        assert got.body.startswith(event("a"))
        await until(lambda: router.idle() and guard.idle())


async def test_an_error_of_a_stream_request_passes():
    body = b'{"error":{"message":"no"}}'
    async with routed(answers(reply(body, status=400))) as (router, _):
        assert (await router.ask(post(STREAM_BODY))).body == body


async def test_no_more_is_read_from_an_engine_than_a_slow_client_takes():
    sent = {"bytes": 0}
    piece = event("z" * 4000)

    async def script(call: Call) -> None:
        await call.write(SSE_HEAD)
        for _ in range(8000):  # 32 MB
            await call.write(chunk(piece))
            sent["bytes"] += len(piece)
        await call.write(chunk(DONE) + LAST)

    async with routed(script) as (router, _):
        client = await router.bench.connect(router.port, limit=1 << 16)
        client.send(post(STREAM_BODY))
        await client.head()
        seen = -1
        while seen != sent["bytes"]:
            seen = sent["bytes"]
            await asyncio.sleep(0.05)
        assert seen < 24 << 20, "what the kernel's buffers hold, not the whole reply"
        connection = next(iter(router.site.connections))
        assert connection.transport.get_write_buffer_size() < 1 << 20
        body, whole = await client._chunks()
        assert whole
        assert body == piece * 8000 + DONE
        assert router.idle()


async def test_a_large_reply_to_a_slow_client_does_not_stop_the_connection_that_it_came_on():
    body = b"x" * (12 << 20)

    async def script(call: Call) -> None:
        await call.write(reply(body if call.number == 0 else b"{}"))

    async with routed(script) as (router, engine):
        slow = await router.bench.connect(router.port, limit=1 << 16)
        slow.send(post())
        await slow.head()
        await asyncio.sleep(0.05)
        got, whole = await slow._exactly(len(body))
        assert whole
        assert got == body
        for _ in range(3):
            slow.send(post())
            assert (await slow.reply()).body == b"{}"
        assert len(engine.connections) == 1


async def test_a_client_that_asks_on_and_never_reads_is_held_back():
    async with routed(answers(reply(b"x" * 200_000))) as (router, engine):
        client = await router.bench.connect(router.port, limit=1 << 16)
        count = 400  # 80 MB of replies
        client.send(post() * count)
        seen = -1
        while seen != len(engine.calls):
            seen = len(engine.calls)
            await asyncio.sleep(0.1)
        assert seen < count
        connection = next(iter(router.site.connections))
        assert connection.transport.get_write_buffer_size() < 1 << 20
        for _ in range(count):
            assert (await client.reply()).whole
        assert len(engine.calls) == count


async def test_five_hundred_streams_at_a_time_do_not_mix():
    gate = asyncio.Event()

    async def script(call: Call) -> None:
        name = re.search(rb'"name":"([^"]+)"', call.body)
        assert name is not None
        text = name.group(1).decode()
        await call.write(SSE_HEAD + chunk(event(f"{text}-0")))
        await gate.wait()
        for n in range(1, 5):
            await call.write(chunk(event(f"{text}-{n}")))
        await call.write(chunk(DONE) + LAST)

    async with routed(script, limits=Limits(max_concurrency=500)) as (router, engine):

        async def one(n: int) -> bool:
            client = await router.client()
            client.send(post(b'{"model":"m","stream":true,"name":"s%d"}' % n))
            got = await client.reply(30.0)
            return got.whole and got.body == b"".join(event(f"s{n}-{i}") for i in range(5)) + DONE

        asked = [asyncio.ensure_future(one(n)) for n in range(500)]
        await until(lambda: len(engine.calls) == 500, 20.0)
        gate.set()
        assert all(await asyncio.gather(*asked))
        assert router.idle()
        assert router.target().info()["in_flight"] == 0
