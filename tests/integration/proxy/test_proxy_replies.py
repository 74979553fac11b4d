"""What a client gets of an engine's reply: whole as it came, or told apart from whole, wherever it is cut."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest
from tests.fakes.proxy_bench import STREAM_BODY, Bench, Reply, config, post, routed, until
from tests.fakes.raw_engine import DONE, LAST, SSE_HEAD, Call, answers, chunk, event, reply, stream

from spillway_wire.snapshot import Limits

BAD_REPLIES = {
    "no HTTP": b"hello\r\n\r\n",
    "no HTTP, without an end": b"220 smtp.example.com ESMTP\r\n",
    "HTTP/2": b"HTTP/2 200 OK\r\n\r\n",
    "no status": b"HTTP/1.1 OK\r\n\r\n",
    "status of two digits": b"HTTP/1.1 20 OK\r\n\r\n",
    "status of four digits": b"HTTP/1.1 2000 OK\r\n\r\n",
    "status 600": b"HTTP/1.1 600 X\r\ncontent-length: 0\r\n\r\n",
    "lines end with LF": b"HTTP/1.1 200 OK\ncontent-length: 2\n\nab",
    "folded header": b"HTTP/1.1 200 OK\r\nx-a: b\r\n c\r\ncontent-length: 2\r\n\r\nab",
    "header without a colon": b"HTTP/1.1 200 OK\r\nxa\r\ncontent-length: 2\r\n\r\nab",
    "space before the colon": b"HTTP/1.1 200 OK\r\ncontent-length : 2\r\n\r\nab",
    "NUL in a value": b"HTTP/1.1 200 OK\r\nx-a: \x00\r\ncontent-length: 2\r\n\r\nab",
    "bare CR in a value": b"HTTP/1.1 200 OK\r\nx-a: a\rb\r\ncontent-length: 2\r\n\r\nab",
    "two lengths": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nab",
    "length and chunked": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\nab",
    "negative length": b"HTTP/1.1 200 OK\r\ncontent-length: -2\r\n\r\nab",
    "length with a sign": b"HTTP/1.1 200 OK\r\ncontent-length: +2\r\n\r\nab",
    "length beyond all": b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\nab",
    "gzip, chunked": b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked on HTTP/1.0": b"HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "switching protocols": b"HTTP/1.1 101 X\r\nupgrade: h2c\r\n\r\n",
    "interim with a body": b"HTTP/1.1 100 X\r\ncontent-length: 2\r\n\r\nab",
    "endless interim": b"HTTP/1.1 102 X\r\n\r\n" * 9 + reply(),
    "large head": b"HTTP/1.1 200 OK\r\nx-a: " + b"a" * 33000 + b"\r\ncontent-length: 0\r\n\r\n",
    "endless head": b"HTTP/1.1 200 OK\r\n" + b"x-a: a\r\n" * 5000,
    "chunk size without digits": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nab\r\n0\r\n\r\n",
    "chunk size that wraps": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n10000000000000002\r\nab\r\n0\r\n\r\n",
    "SSE: chunk size without digits": SSE_HEAD + b"q\r\n",
}  # fmt: skip


def _streamed(body: bytes) -> tuple[bytes, bytes | None]:
    """A stream's payload, and the error event at its end."""
    found = re.search(rb'data: \{"error":\{[^\n]*"code":"stream_interrupted"[^\n]*\}\}\n\n\Z', body)
    return (body[: found.start()], found.group()) if found else (body, None)


@pytest.mark.parametrize("name", BAD_REPLIES)
async def test_what_is_no_reply_goes_elsewhere_and_is_told_without_its_words(name: str):
    async with routed(answers(BAD_REPLIES[name])) as (router, engine):
        got = await router.ask(post())
        assert got.status == 502
        assert got.whole
        assert got.header(b"x-spillway-reason") == b"upstream_protocol"
        assert b"smtp" not in got.body
        await until(lambda: engine.open == 0)
        assert router.idle()
        assert not router.target().idle


@pytest.mark.parametrize("name", ["no HTTP", "length and chunked", "endless interim", "chunk size without digits"])
async def test_what_is_no_reply_is_asked_of_another_endpoint(name: str):
    async with Bench() as bench:
        bad = await bench.engine(answers(BAD_REPLIES[name]))
        good = await bench.engine(answers(reply()))
        router = await bench.router(config(bad.port, good.port))
        for _ in range(8):
            assert (await router.ask()).status == 200
        assert bad.calls, "the bad one was never asked"


@pytest.mark.parametrize(
    ("raw", "body"),
    [
        (reply(b"x" * 1000), b"x" * 1000),
        (reply(b""), b""),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + chunk(b"ab") + b"3;x=y\r\ncde\r\n000;z\r\n\r\n", b"abcde"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"".join(chunk(b"z") for _ in range(300)) + LAST, b"z" * 300),
        (b"HTTP/1.1 200 OK\r\n\r\nuntil the end", b"until the end"),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 3\r\n\r\nabc", b"abc"),
        (b"HTTP/1.1 200\r\ncontent-length: 3\r\n\r\nabc", b"abc"),
        (b"HTTP/1.1 200 OK\r\nx_y: a\r\nx-z: caf\xc3\xa9\r\ncontent-length: 3\r\n\r\nabc", b"abc"),
        (b"HTTP/1.1 204 No Content\r\ntransfer-encoding: chunked\r\n\r\n", b""),
        (b"HTTP/1.1 100 C\r\n\r\nHTTP/1.1 103 E\r\nlink: x\r\n\r\n" + reply(b"abc"), b"abc"),
        (stream("a", "b"), event("a") + event("b") + DONE),
    ],
)
@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
@pytest.mark.parametrize("piecewise", [False, True])
async def test_a_whole_reply_arrives_whole(raw: bytes, body: bytes, version: bytes, piecewise: bool):
    async def script(call: Call) -> None:
        for i in range(0, len(raw), 1 if piecewise else len(raw)):
            await call.write(raw[i : i + (1 if piecewise else len(raw))])
            if piecewise:
                await asyncio.sleep(0)
        if b"until the end" in raw:
            call.close()

    async with routed(script) as (router, _):
        client = await router.client()
        client.send(post(version=version))
        got = await client.reply()
        assert (got.body, got.whole, got.interim) == (body, True, [])
        if version == b"1.0":
            assert await client.ended()
            assert got.header(b"transfer-encoding") is None
        else:
            client.send(b"GET /v1/models HTTP/1.1\r\nHost: proxy\r\n\r\n")
            assert (await client.reply()).status == 200
        assert router.idle()


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


async def test_a_stream_of_any_framing_cut_anywhere_is_never_taken_for_whole():
    text = event("first") + event("second") + DONE
    heads = {
        b"length": b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n" % len(text),
        b"until close": b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n\r\n",
    }
    for head in heads.values():
        for version in (b"1.1", b"1.0"):

            def check(cut: int, got: Reply, head: bytes = head) -> None:
                if got.status != 200:
                    assert cut <= len(head)
                    return
                payload, error = _streamed(got.body)
                assert text.startswith(payload), (cut, got.body)
                if b"[DONE]" not in payload:
                    assert error is not None or not got.whole, (cut, got.body)

            await _cut_everywhere(head + text, post(STREAM_BODY, version=version), check)


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


@pytest.mark.parametrize("end", [DONE, b"data:[DONE]\n\n", b'data: {"choices":[{"finish_reason":"stop"}]}\n\n', b'data: {"choices":[{"finish_reason" : "length"}]}\n\n'])  # fmt: skip
async def test_a_stream_that_says_its_end_is_whole(end: bytes):
    async with routed(answers(SSE_HEAD + chunk(event("a")) + chunk(end) + LAST)) as (router, engine):
        for _ in range(2):
            got = await router.ask(post(STREAM_BODY))
            assert (got.body, got.whole) == (event("a") + end, True)
        assert len(engine.connections) == 1


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 11, 60])
async def test_events_may_be_split_over_chunks_in_any_way(size: int):
    text = event("a") + event("b" * 50) + DONE
    raw = SSE_HEAD + b"".join(chunk(text[i : i + size]) for i in range(0, len(text), size)) + LAST
    async with routed(answers(raw)) as (router, engine):
        got = await router.ask(post(STREAM_BODY))
        assert (got.body, got.whole) == (text, True)
        assert len(engine.connections) == 1


@pytest.mark.parametrize("size", [9, 40])
async def test_a_stream_of_split_events_cut_anywhere_ends_with_whole_events_and_one_error_event(size: int):
    events = [event("a"), event("b" * 30), event("c")]
    text = b"".join(events) + DONE
    raw = SSE_HEAD + b"".join(chunk(text[i : i + size]) for i in range(0, len(text), size)) + LAST
    whole = {b"".join(events[:n]) for n in range(1, 4)}

    def check(cut: int, got: Reply) -> None:
        if got.status != 200:
            assert cut < len(raw) // 2
            return
        payload, error = _streamed(got.body)
        assert got.whole, cut
        assert error is not None, cut
        assert payload in whole or payload == text, cut

    await _cut_everywhere(raw, post(STREAM_BODY), check)


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
