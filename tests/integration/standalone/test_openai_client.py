"""The official OpenAI client against the quickstart, as `make run` starts it."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import Callable

import openai
import pytest
from tests.integration.standalone.conftest import Standalone, until

FILES = {
    "backend.yaml": """
apiVersion: spillway.dev/v1alpha1
kind: ModelBackend
metadata: {name: pool}
spec:
  provider: VLLM
  model: demo-model
  pods: {selector: {matchLabels: {app: pool}}, port: 8000}
  limits: {maxConcurrency: 300, maxQueue: 300}
""",
    "route.yaml": """
apiVersion: spillway.dev/v1alpha1
kind: ModelRoute
metadata: {name: chat}
spec:
  models: [chat]
  rules: [{name: all, backendRefs: [{name: pool}]}]
""",
    "spillway.yaml": "simulate: {pool: {replicas: 2, decodeRate: 60, prefillRate: 50000, maxRunning: 300, kvTokens: 2000000}}\n",
}
MESSAGES = [{"role": "user", "content": "Where does the excess go?"}]


@pytest.fixture
def client_of() -> Callable[[Standalone], openai.OpenAI]:
    return lambda standalone: openai.OpenAI(base_url=standalone.api, api_key="unused", max_retries=0, timeout=60)


def running(standalone: Standalone, endpoint: str) -> int:
    """Sequences at one simulated engine."""
    with urllib.request.urlopen(standalone.engine_url(endpoint) + "/metrics", timeout=5) as reply:
        text = reply.read().decode()
    line = next(line for line in text.splitlines() if line.startswith("vllm:num_requests_running"))
    return int(float(line.rsplit(" ", 1)[1]))


def test_every_call_of_the_official_client_works(
    start: Callable[..., Standalone], client_of: Callable[[Standalone], openai.OpenAI]
):
    standalone = start("quickstart")
    with client_of(standalone) as client:
        reply = client.chat.completions.create(model="chat", messages=MESSAGES, max_tokens=8)
        assert reply.choices[0].message.content
        assert reply.usage is not None
        assert reply.usage.completion_tokens == 8
        chunks = list(
            client.chat.completions.create(
                model="chat", messages=MESSAGES, max_tokens=8, stream=True, stream_options={"include_usage": True}
            )
        )
        assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.completion_tokens == 8
        assert client.completions.create(model="chat", prompt="Once", max_tokens=4).choices[0].text
        vectors = client.embeddings.create(model="chat", input=["one", "two"]).data
        assert [v.index for v in vectors] == [0, 1]
        assert len(vectors[0].embedding) == len(vectors[1].embedding) > 0
        assert [model.id for model in client.models.list().data] == ["chat"]
        with pytest.raises(openai.NotFoundError) as caught:
            client.chat.completions.create(model="no-such", messages=MESSAGES)
        assert caught.value.code == "model_not_found"
        assert caught.value.param == "model"
    assert standalone.stop() == 0


def test_a_client_that_leaves_frees_its_slot_on_the_engine(
    start: Callable[..., Standalone], client_of: Callable[[Standalone], openai.OpenAI]
):
    standalone = start(FILES)
    with client_of(standalone) as client:
        stream = client.chat.completions.create(model="chat", messages=MESSAGES, max_tokens=4000, stream=True)
        next(iter(stream))
        assert running(standalone, "pool-0") + running(standalone, "pool-1") == 1
        stream.close()
        until(lambda: running(standalone, "pool-0") + running(standalone, "pool-1") == 0, "the engines are idle", 5)
    info = standalone.page("/info", gateway=True)
    until(lambda: standalone.page("/info", gateway=True)["route"]["in_flight"] == 0, "the gateway holds nothing", 5)
    assert info["route"]["clusters"]["default/pool"]


def test_five_hundred_streams_at_once_complete(start: Callable[..., Standalone]):
    standalone = start(FILES)
    body = json.dumps({"model": "chat", "stream": True, "max_tokens": 40, "messages": MESSAGES}).encode()
    request = (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        % len(body)
    )

    async def one() -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", standalone.port)
        writer.write(request + body)
        reply = await reader.read()
        writer.close()
        return reply

    async def all_of_them() -> list[bytes]:
        async with asyncio.timeout(90):
            return await asyncio.gather(*(one() for _ in range(500)))

    replies = asyncio.run(all_of_them())
    whole = [r for r in replies if r.startswith(b"HTTP/1.1 200") and r.count(b"data: [DONE]") == 1 and r.endswith(b"0\r\n\r\n")]
    assert len(whole) == 500
    contents = [r.count(b'"content":"') for r in whole]
    assert min(contents) == max(contents) >= 40
