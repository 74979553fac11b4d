"""A backend without replicas under `spillway run`: requests wait for the first one, which the operator asks for, and all are answered."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable

import openai
from tests.integration.standalone.conftest import Standalone, until

HELD = 200
FILES = {
    "backend.yaml": """
apiVersion: spillway.dev/v1alpha1
kind: ModelBackend
metadata: {name: pool}
spec:
  provider: VLLM
  model: demo-model
  pods: {selector: {matchLabels: {app: pool}}, port: 8000}
  limits: {maxConcurrency: 40, maxQueue: 10}
  scaling: {targetRef: {name: pool}, minReplicas: 0, maxReplicas: 2, holdTimeout: 90s}
""",
    "route.yaml": """
apiVersion: spillway.dev/v1alpha1
kind: ModelRoute
metadata: {name: chat}
spec:
  models: [chat]
  rules: [{name: all, backendRefs: [{name: pool}]}]
""",
    "spillway.yaml": "simulate: {pool: {replicas: 0, coldStartSeconds: 6, decodeRate: 200, prefillRate: 50000, maxRunning: 40}}\n",
}
MESSAGES = [{"role": "user", "content": "Is anybody there?"}]


def held(standalone: Standalone) -> int:
    """Requests that wait at the gateway for a first replica."""
    found: dict[str, int] = standalone.page("/info", gateway=True)["route"]["waiting"]["held"]
    return found.get("default/pool", 0)


def programmed(standalone: Standalone) -> bool:
    """Whether the route is in force at the gateway, ready or not."""
    try:
        conditions = standalone.object("modelroutes", "chat")["status"]["conditions"]
        return "default/pool" in standalone.page("/info", gateway=True)["route"]["clusters"] and any(
            c["type"] == "Programmed" and c["status"] == "True" for c in conditions
        )
    except (OSError, KeyError, StopIteration):
        return False


async def ask(port: int, number: int) -> bytes:
    """One request as raw bytes, every other one for a stream."""
    body = json.dumps({"model": "chat", "stream": number % 2 == 0, "max_tokens": 5, "messages": MESSAGES}).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head + b"content-length: %d\r\n\r\n" % len(body) + body)
    reply = await reader.read()
    writer.close()
    return reply


def test_two_hundred_wait_for_the_first_replica_and_are_answered_though_the_operator_dies(start: Callable[..., Standalone]):
    standalone = start(FILES, ready=False)
    until(lambda: programmed(standalone), "the gateway knows of the route")
    assert standalone.pids("sim-engine") == []

    async def all_of_them() -> tuple[list[bytes], str]:
        tasks = [asyncio.create_task(ask(standalone.port, number)) for number in range(HELD)]
        async with openai.AsyncOpenAI(base_url=standalone.api, api_key="unused", max_retries=0, timeout=60) as client:
            official = asyncio.create_task(said(client))
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(None, until, lambda: held(standalone) == HELD + 1, "all are held")
            await loop.run_in_executor(None, until, lambda: standalone.pids("sim-engine") != [], "an engine was asked for")
            for pid in standalone.pids("spillway_operator"):
                os.kill(pid, signal.SIGKILL)
            async with asyncio.timeout(90):
                return await asyncio.gather(*tasks), await official

    replies, text = asyncio.run(all_of_them())
    assert not [r for r in replies if not r.startswith(b"HTTP/1.1 200 OK\r\n")]
    streams = [r for r in replies if b"text/event-stream" in r]
    assert len(streams) == HELD / 2
    assert all(r.count(b"data: [DONE]") == 1 and r.count(b'"content":') >= 5 and r.endswith(b"0\r\n\r\n") for r in streams)
    assert all(b": waiting\n\n" in r for r in streams), "it took longer than a heartbeat"
    assert text, "comments are no trouble to the official client"
    info = standalone.page("/info", gateway=True)["route"]["waiting"]
    assert (info["waiting"], info["held"]) == (0, {})
    until(lambda: standalone.object("modelbackends", "pool")["status"]["summary"]["replicas"].startswith("1/"), "it is told of")


async def said(client: openai.AsyncOpenAI) -> str:
    """What a stream says to the official client."""
    stream = await client.chat.completions.create(model="chat", messages=MESSAGES, max_tokens=5, stream=True)  # type: ignore[call-overload]
    return "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])
