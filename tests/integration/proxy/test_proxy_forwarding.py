"""What an engine sees: one plain request with allow-listed headers only, on a connection that is used again."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.fakes.proxy_bench import BODY, Bench, Inbound, Router, config, post, routed, until
from tests.fakes.raw_engine import Call, answers, chunk, reply

from spillway_wire.snapshot import Cluster, External, SecretKeyRef, key_of

NOISE = (
    b"Authorization: Bearer client-key",
    b"Cookie: a=b",
    b"Proxy-Authorization: x",
    b"Proxy-Connection: keep-alive",
    b"Connection: keep-alive, X-Named",
    b"X-Named: 1",
    b"Keep-Alive: timeout=5",
    b"TE: trailers",
    b"Trailer: X-T",
    b"Upgrade: h2c",
    b"HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA",
    b"X-Forwarded-For: 1.2.3.4",
    b"X-Request-Id: chosen-by-the-client",
    b"X-Spillway-Admission: admitted",
    b"X-Spillway-Deadline: 1",
    b"X-Spillway-Prompt-Tokens: 999999",
    b"Endpoint-Load-Metrics: JSON {}",
    b"Accept: application/json",
    b"User-Agent: test",
    b"Traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    b"Tracestate: a=b",
)


async def test_only_listed_headers_pass():
    async with routed(answers(reply())) as (router, engine):
        got = await router.ask(post(BODY, *NOISE))
        assert got.status == 200
        (call,) = engine.calls
        assert call.line == b"POST /v1/chat/completions HTTP/1.1"
        assert dict(call.headers) == {
            b"host": b"127.0.0.1:%d" % engine.port,
            b"content-type": b"application/json",
            b"accept": b"application/json",
            b"user-agent": b"test",
            b"endpoint-load-metrics-format": b"JSON",  # ours: how an engine is asked to tell its load
            b"traceparent": b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            b"tracestate": b"a=b",
            b"x-request-id": got.header(b"x-request-id"),
            b"content-length": b"27",
        }
        assert len(call.headers) == 9
        assert call.header(b"x-request-id") != b"chosen-by-the-client"


async def test_a_sidecar_is_told_the_deadline_and_the_size_by_us_alone():
    async def script(call: Call) -> None:
        await call.write(b"HTTP/1.1 103 X\r\nx-spillway-admission: admitted\r\n\r\n" + reply())

    async with routed(script, inbound=True) as (router, engine):
        assert (await router.ask(post(BODY, *NOISE))).status == 200
        (call,) = engine.calls
        assert 599_000 < int(call.header(b"x-spillway-deadline")) <= 600_000
        assert int(call.header(b"x-spillway-prompt-tokens")) < 1000


async def test_each_request_has_an_id_of_its_own():
    async with routed(answers(reply())) as (router, engine):
        ids = [(await router.ask()).header(b"x-request-id") for _ in range(5)]
        assert len(set(ids)) == 5
        assert [call.header(b"x-request-id") for call in engine.calls] == ids


async def test_every_kind_of_body_arrives_as_one_of_a_length():
    body = b'{"model":"m","prompt":"%b"}' % (b"x" * 300_000)
    chunks = b"".join(chunk(body[i : i + 7919]) for i in range(0, len(body), 7919)) + b"0\r\n\r\n"
    request = post(body).replace(b"Content-Length: %d\r\n\r\n" % len(body) + body, b"Transfer-Encoding: chunked\r\n\r\n" + chunks)
    async with routed(answers(reply())) as (router, engine):
        assert (await router.ask(request)).status == 200
        assert (await router.ask(post(body))).status == 200
        assert [call.body for call in engine.calls] == [body, body]


async def test_types_lead_to_their_paths():
    async with routed(answers(reply())) as (router, engine):
        for path in (b"/v1/chat/completions", b"/v1/completions", b"/v1/embeddings"):
            assert (await router.ask(post(path=path + b"?x=y"))).status == 200
        assert [call.line for call in engine.calls] == [
            b"POST /v1/chat/completions HTTP/1.1",
            b"POST /v1/completions HTTP/1.1",
            b"POST /v1/embeddings HTTP/1.1",
        ]


async def test_connections_to_an_engine_are_used_again():
    async with routed(answers(reply())) as (router, engine):
        for _ in range(20):
            assert (await router.ask()).status == 200
        client = await router.client()
        for _ in range(20):
            client.send(post())
            assert (await client.reply()).status == 200
        assert len(engine.connections) == 1
        assert len(engine.calls) == 40


async def test_connections_kept_are_as_many_as_were_needed_at_a_time():
    gate = asyncio.Event()

    async def script(call: Call) -> None:
        await gate.wait()
        await call.write(reply())

    async with routed(script) as (router, engine):
        waiting = [asyncio.ensure_future(router.ask()) for _ in range(30)]
        await until(lambda: len(engine.calls) == 30)
        gate.set()
        assert {got.status for got in await asyncio.gather(*waiting)} == {200}
        for _ in range(10):
            await asyncio.gather(*(router.ask() for _ in range(30)))
        assert len(engine.connections) == 30
        assert router.idle()


async def test_a_chunked_and_an_empty_reply_keep_their_connection_too():
    replies = iter(
        [
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + chunk(b"abc") + b"0\r\n\r\n",
            reply(b""),
            b"HTTP/1.1 204 No Content\r\n\r\n",
            reply(),
        ]
    )

    async def script(call: Call) -> None:
        await call.write(next(replies))

    async with routed(script) as (router, engine):
        assert [(await router.ask()).body for _ in range(4)] == [b"abc", b"", b"", b'{"ok":true}']
        assert len(engine.connections) == 1


async def test_bytes_that_nobody_asked_for_end_an_idle_connection():
    async with routed(answers(reply())) as (router, engine):
        assert (await router.ask()).status == 200
        engine.connections[0].writer.write(reply(b"poison"))
        await engine.connections[0].closed.wait()
        assert (await router.ask()).body == b'{"ok":true}'
        assert len(engine.connections) == 2


async def test_the_models_name_is_replaced_and_values_stay_as_they_came():
    body = b'{ "messages" : [{"role":"user","content":"the \\"model\\": \\"m\\" {"}], "x":{"model":"m"},\n"mod\\u0065l"\t: "m" ,"n":1.50}'
    wanted = b'{"messages":[{"role":"user","content":"the \\"model\\": \\"m\\" {"}],"x":{"model":"m"},"model":"org/other \\"q\\"","n":1.50}'
    async with routed(answers(reply()), override='org/other "q"') as (router, engine):
        assert (await router.ask(post(body))).status == 200
        assert engine.calls[0].body == wanted


def _external(port: int, key: str) -> dict[Any, Any]:
    resources = config(port)
    cluster = resources["cluster", "default/a"]
    assert isinstance(cluster, Cluster)
    auth, allowed = SecretKeyRef("s", key), ("127.0.0.0/8",)
    external = External("127.0.0.1", port, tls=False, path_prefix="/base/v1", auth=auth, allowed_networks=allowed)
    resources[key_of(cluster)] = Cluster(cluster.name, cluster.provider, cluster.model, external=external)
    return resources


async def test_a_server_outside_gets_our_key_and_never_the_clients():
    async with Bench() as bench:
        engine = await bench.engine(answers(reply()))
        router = await bench.router(_external(engine.port, "good"))
        assert (await router.ask(post(BODY, *NOISE))).status == 200
        (call,) = engine.calls
        assert call.line == b"POST /base/v1/chat/completions HTTP/1.1"
        assert call.header(b"authorization") == b"Bearer the-key"
        assert b"client-key" not in engine.received


async def test_without_its_key_a_server_outside_is_not_asked():
    async with Bench() as bench:
        engine = await bench.engine(answers(reply()))
        router = await bench.router(_external(engine.port, "missing"))
        assert (await router.ask()).status == 503
        assert not engine.connections


async def _pair(bench: Bench, script: Any) -> tuple[Router, Inbound, Any]:
    engine = await bench.engine(script)
    guard = await bench.guard(engine.port)
    return await bench.router(config(guard.port, inbound=True)), guard, engine


async def test_through_a_sidecar_the_engine_sees_the_routers_id_and_none_of_our_headers():
    async with Bench() as bench:
        router, guard, engine = await _pair(bench, answers(reply(head=b"endpoint-load-metrics: JSON {}\r\nserver: e\r\n")))
        for _ in range(3):
            got = await router.ask(post(BODY, *NOISE))
            assert got.status == 200
            assert got.interim == []
            names = [name for name, _ in got.headers]
            assert sorted(names) == [b"content-length", b"content-type", b"server", b"x-request-id"]
        names = {name for call in engine.calls for name, _ in call.headers}
        assert not [name for name in names if name.startswith(b"x-spillway")]
        assert engine.calls[-1].header(b"x-request-id") == got.header(b"x-request-id")
        assert len(engine.connections) == 1
        assert len(guard.site.connections) == 1
        assert router.target().in_flight == 0
