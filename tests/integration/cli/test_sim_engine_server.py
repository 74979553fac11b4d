"""The simulated engine behind a real socket: OpenAI's forms, cancellation, faults, many streams at once."""

from __future__ import annotations

import asyncio
import base64
import json
import random
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import aiohttp
import pytest
from openai import AsyncOpenAI

from spillway.sim_engine.faults import Faults
from spillway.sim_engine.model import Engine, EngineSpec
from spillway.sim_engine.openai import parse, text_of
from spillway.sim_engine.server import EngineServer
from spillway_wire.orca import decode_load

FAST = EngineSpec(prefill_tokens_per_second=1e6, decode_tokens_per_second=2000)
MESSAGES = [{"role": "user", "content": "Where does the excess go?"}]


class Running:
    """A server and where it is."""

    def __init__(self, server: EngineServer, port: int) -> None:
        self.server, self.engine, self.port = server, server.engine, port
        self.url = f"http://127.0.0.1:{port}"


Start = Callable[..., Awaitable[Running]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    async with AsyncExitStack() as stack:

        async def begin(spec: EngineSpec = FAST, **options: bool) -> Running:
            server = EngineServer(Engine(spec), Faults(random.Random(0)), ["sim"], lambda: 1_700_000_000.0, **options)
            port = await server.start("127.0.0.1", 0)
            stack.push_async_callback(server.stop, 0.0)
            return Running(server, port)

        yield begin


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session:
        yield session


async def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - the server under test tells nobody
            await asyncio.sleep(0.002)


def body(**more: object) -> dict[str, object]:
    return {"model": "sim", "messages": MESSAGES, **more}


async def test_the_official_client_gets_chat_completions_embeddings_and_models(start: Start):
    running = await start()
    async with AsyncOpenAI(base_url=running.url + "/v1", api_key="none", max_retries=0) as client:
        chat = await client.chat.completions.create(model="sim", messages=MESSAGES, max_completion_tokens=7)
        assert chat.choices[0].message.content == text_of(parse("/v1/chat/completions", json.dumps(body()).encode()), 7)
        assert (chat.choices[0].finish_reason, chat.usage.completion_tokens) == ("length", 7)

        chunks = [c async for c in await client.chat.completions.create(
            model="sim", messages=MESSAGES, stream=True, max_tokens=7, stream_options={"include_usage": True}
        )]  # fmt: skip
        assert chunks[0].choices[0].delta.role == "assistant"
        assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == chat.choices[0].message.content
        assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "length"
        assert chunks[-1].usage == chat.usage
        assert len({c.id for c in chunks}) == 1

        completion = await client.completions.create(model="sim", prompt="Once")
        assert (completion.choices[0].finish_reason, completion.usage.completion_tokens) == ("stop", 64)
        streamed = [c.choices[0].text async for c in await client.completions.create(model="sim", prompt="Once", stream=True)]
        assert "".join(streamed) == completion.choices[0].text

        embeddings = await client.embeddings.create(model="sim", input=["a", "b"], dimensions=8)
        again = await client.embeddings.create(model="sim", input="b", dimensions=8, encoding_format="float")
        assert embeddings.data[1].embedding == pytest.approx(again.data[0].embedding, abs=1e-6)
        assert sum(value * value for value in again.data[0].embedding) == pytest.approx(1)
        assert [model.id async for model in client.models.list()] == ["sim"]


async def test_embeddings_come_as_base64_of_little_endian_floats_when_asked_for(start: Start, http: aiohttp.ClientSession):
    running = await start()
    vectors = []
    for form in ("float", "base64"):
        async with http.post(
            running.url + "/v1/embeddings", json={"model": "sim", "input": [1, 2, 3], "encoding_format": form}
        ) as reply:
            vectors.append((await reply.json())["data"][0]["embedding"])
    assert struct.unpack("<64f", base64.b64decode(vectors[1])) == pytest.approx(vectors[0])


@pytest.mark.parametrize(
    ("path", "payload", "status", "code"),
    [
        ("/v1/chat/completions", b"{not json", 400, None),
        ("/v1/chat/completions", b'{"model": "sim"}', 400, None),
        ("/v1/chat/completions", b'{"model": "sim", "messages": "hi"}', 400, None),
        ("/v1/chat/completions", b'{"model": "sim", "messages": [{}], "max_tokens": 0}', 400, None),
        ("/v1/completions", b'{"model": "sim", "prompt": ["a", "b"]}', 400, None),
        ("/v1/embeddings", b'{"model": "sim", "input": ["a", 1]}', 400, None),
        ("/v1/embeddings", b'{"model": "sim", "input": []}', 400, None),
        ("/v1/completions", b'{"model": "sim", "prompt": "a", "max_tokens": 999999}', 400, "context_length_exceeded"),
        ("/v1/completions", b'{"model": "other", "prompt": "a"}', 404, "model_not_found"),
        ("/v1/other", b"{}", 404, None),
    ],
)
async def test_what_cannot_be_done_is_refused_in_openai_shape(
    start: Start, http: aiohttp.ClientSession, path: str, payload: bytes, status: int, code: str | None
):
    running = await start(strict_model=True)
    async with http.post(running.url + path, data=payload) as reply:
        error = (await reply.json())["error"]
        assert (reply.status, error["type"], error["code"]) == (status, "invalid_request_error", code)
        assert error["message"]
    assert (running.engine.running, running.engine.waiting) == (0, 0)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_frees_its_slot_at_once_running_or_waiting(
    start: Start, http: aiohttp.ClientSession, stream: bool
):
    running = await start(EngineSpec(max_running=1, decode_tokens_per_second=50))
    tasks = [
        asyncio.create_task(http.post(running.url + "/v1/chat/completions", json=body(stream=stream, max_tokens=5000)).__aenter__())
        for _ in range(3)
    ]
    await until(lambda: (running.engine.running, running.engine.waiting) == (1, 2))
    before = running.engine.running_ids()
    replies = [await task for task in tasks] if stream else []
    assert running.engine.running_ids() == before
    for reply in replies:
        reply.close()
    for task in tasks:
        task.cancel()
    began = asyncio.get_running_loop().time()
    await until(lambda: (running.engine.running, running.engine.waiting) == (0, 0))
    assert running.engine.cancelled_total == 3
    assert asyncio.get_running_loop().time() - began < 2  # the replies would have taken minutes
    assert running.engine.kv_tokens_reserved == 0


async def test_five_hundred_streams_at_once_get_their_own_tokens_each(start: Start):
    running = await start(EngineSpec(decode_tokens_per_second=400, max_running=512, half_speed_batch=512))

    async def one(number: int) -> bool:
        payload = {"model": "sim", "prompt": f"stream number {number}", "max_tokens": 20, "stream": True}
        raw = json.dumps(payload).encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(b"POST /v1/completions HTTP/1.1\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b" % (len(raw), raw))
        events = [line[6:] for line in (await reader.read(-1)).split(b"\n") if line.startswith(b"data: ")]
        writer.close()
        text = "".join(json.loads(event)["choices"][0]["text"] for event in events[:-1])
        return events[-1].strip() == b"[DONE]" and text == text_of(parse("/v1/completions", raw), 20)

    assert all(await asyncio.gather(*(one(number) for number in range(500))))
    assert running.engine.finished_total == 500


async def test_metrics_have_the_names_of_vllm_and_follow_the_engine(start: Start, http: aiohttp.ClientSession):
    running = await start(EngineSpec(max_running=1, kv_tokens=1000, decode_tokens_per_second=50))
    posts = [
        asyncio.create_task(http.post(running.url + "/v1/chat/completions", json=body(max_tokens=400)).__aenter__())
        for _ in range(2)
    ]
    await until(lambda: running.engine.output_tokens_total > 0)
    async with http.get(running.url + "/metrics") as reply:
        lines = dict(line.rsplit(" ", 1) for line in (await reply.text()).splitlines() if not line.startswith("#"))
    for post in posts:
        post.cancel()
    labels = '{engine="0",model_name="sim"}'
    assert lines["vllm:num_requests_running" + labels] == "1"
    assert lines["vllm:num_requests_waiting" + labels] == "1"
    assert 0.4 < float(lines["vllm:kv_cache_usage_perc" + labels]) < 0.42
    assert lines["vllm:time_to_first_token_seconds_count" + labels] == "1"
    assert int(lines["vllm:prompt_tokens_total" + labels]) == 11


@pytest.mark.parametrize("form", ["text", "JSON"])
async def test_the_load_rides_on_a_response_when_asked_for(start: Start, http: aiohttp.ClientSession, form: str):
    running = await start()
    async with http.post(
        running.url + "/v1/chat/completions", json=body(), headers={"endpoint-load-metrics-format": form}
    ) as reply:
        load = decode_load(reply.headers["endpoint-load-metrics"].encode())
    assert load is not None
    assert load.engine_waiting == 0
    assert load.kv_cache_ratio is not None
    assert load.kv_cache_ratio > 0
    async with http.post(running.url + "/v1/chat/completions", json=body()) as reply:
        assert "endpoint-load-metrics" not in reply.headers


async def fault(http: aiohttp.ClientSession, running: Running, **faults: object) -> dict[str, object]:
    async with http.post(running.url + "/fault", json=faults) as reply:
        assert reply.status == 200
        return await reply.json()


async def test_faults_strike_as_often_as_asked_for_and_show_what_is_left(start: Start, http: aiohttp.ClientSession):
    running = await start()
    assert (await fault(http, running, error={"count": 2}))["faults"] == {
        "error": {"probability": 1.0, "count": 2, "scope": "requests"}
    }
    statuses = []
    for _ in range(3):
        async with http.post(running.url + "/v1/chat/completions", json=body(max_tokens=1)) as reply:
            statuses.append(reply.status)
        async with http.get(running.url + "/health") as reply:
            assert reply.status == 200
    assert statuses == [500, 500, 200]
    async with http.get(running.url + "/fault") as reply:
        assert await reply.json() == {"faults": {}, "struck": {"error": 2}}


async def test_a_reset_is_a_reset_and_a_cut_is_an_end_without_an_end(start: Start, http: aiohttp.ClientSession):
    running = await start()
    await fault(http, running, reset={"count": 1}, cut={"chunks": 3})
    with pytest.raises(aiohttp.ClientOSError, match="reset by peer"):
        async with http.post(running.url + "/v1/chat/completions", json=body()):
            pass
    reply = await http.post(running.url + "/v1/chat/completions", json=body(stream=True))
    for _ in range(3):
        assert (await reply.content.readuntil(b"\n\n")).startswith(b"data: ")
    with pytest.raises(aiohttp.ClientPayloadError):
        await reply.content.read()
    reply.close()
    assert running.engine.running == 0


async def test_a_hang_says_nothing_and_holds_nothing_until_the_client_leaves(start: Start, http: aiohttp.ClientSession):
    running = await start()
    await fault(http, running, hang={"scope": "all"})
    for method, path in (("POST", "/v1/chat/completions"), ("GET", "/health")):
        with pytest.raises(TimeoutError):
            await http.request(method, running.url + path, json=body(), timeout=aiohttp.ClientTimeout(total=0.1))
    await until(lambda: running.engine.info()["running"] == 0 and len(running.server.connections) <= 1)
    async with http.delete(running.url + "/fault") as reply:
        assert (await reply.json())["faults"] == {}


async def test_a_delay_comes_before_the_headers_and_a_slow_engine_takes_longer(start: Start, http: aiohttp.ClientSession):
    running = await start()
    loop = asyncio.get_running_loop()

    async def seconds() -> float:
        began = loop.time()
        async with http.post(running.url + "/v1/chat/completions", json=body(max_tokens=20)) as reply:
            assert reply.status == 200
            await reply.read()
        return loop.time() - began

    await fault(http, running, delay={"seconds": 0.2, "count": 1})
    assert await seconds() >= 0.2
    await fault(http, running, slow={"factor": 20})
    assert await seconds() >= 19 * 20 / 2000
    assert running.engine.slowdown == 20
    await fault(http, running, slow=None)
    assert running.engine.slowdown == 1


@pytest.mark.parametrize("payload", [b"{", b'{"explode": {}}', b'{"delay": {"second": 1}}', b'{"error": {"probability": 2}}'])
async def test_a_fault_that_makes_no_sense_changes_nothing(start: Start, http: aiohttp.ClientSession, payload: bytes):
    running = await start()
    async with http.post(running.url + "/fault", data=payload) as reply:
        assert reply.status == 400
    assert running.server.faults.info() == {"faults": {}, "struck": {}}


async def test_requests_sent_ahead_on_one_connection_are_answered_in_order(start: Start):
    running = await start()
    raw = json.dumps({"model": "sim", "prompt": "a", "max_tokens": 2}).encode()
    chunked = b"POST /v1/completions HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(raw), raw)
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    writer.write(chunked + b"GET /health HTTP/1.1\r\n\r\n" + b"GET /nothing HTTP/1.0\r\n\r\n")
    answer = await asyncio.wait_for(reader.read(-1), 5)
    writer.close()
    statuses = [line.split(b" ")[1] for line in answer.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")] + [
        part.split(b" ")[1] for part in answer.split(b"}HTTP/1.1")[1:]
    ]
    assert sorted(statuses) == [b"200", b"200", b"404"]
    assert answer.endswith(b"}")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nbroken\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\ncontent-length: -1\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\ncontent-length: 99999999999\r\n\r\n", b"413"),
        (b"POST / HTTP/1.1\r\ntransfer-encoding: gzip\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nx: " + b"y" * 70_000, b"431"),
    ],
)
async def test_bytes_that_are_no_request_are_refused_and_the_connection_closed(start: Start, data: bytes, status: bytes):
    running = await start()
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    writer.write(data)
    answer = await asyncio.wait_for(reader.read(-1), 5)
    writer.close()
    assert answer.split(b" ")[1] == status


async def test_a_stop_lets_running_replies_end_within_the_grace(start: Start, http: aiohttp.ClientSession):
    running = await start(EngineSpec(decode_tokens_per_second=100))
    post = asyncio.create_task(http.post(running.url + "/v1/chat/completions", json=body(max_tokens=20)).__aenter__())
    await until(lambda: running.engine.running == 1)
    await running.server.stop(5.0)
    reply = await post
    assert (await reply.json())["usage"]["completion_tokens"] == 20
