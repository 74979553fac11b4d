"""Open-loop streams through a gateway: each request goes out at its time whatever the ones before it do, and is written down.

A trace is a list of (seconds from the start, prompt tokens, output tokens), so that what runs twice runs the same.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

CHARACTERS_PER_TOKEN = 4
PATIENCE_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request of a trace."""

    at_seconds: float
    prompt_tokens: int
    output_tokens: int


@dataclass(slots=True)
class Sent:
    """What became of it: monotonic times, 0 where it did not come so far."""

    arrival: Arrival
    began: float
    first: float = 0.0
    ended: float = 0.0
    status: int = 0
    model: str = ""  # as the engine names itself: tells the backend
    request_id: str = ""

    @property
    def ttft(self) -> float:
        """Seconds to the first token; for ever where none came."""
        return self.first - self.began if self.first and self.status == 200 else float("inf")


def poisson(seed: int, phases: Sequence[tuple[float, float]], prompt: tuple[int, int], output: tuple[int, int]) -> list[Arrival]:
    """Arrivals at random over phases of (seconds, requests a second)."""
    rng = random.Random(seed)
    trace, at, end = [], 0.0, 0.0
    for seconds, rate in phases:
        at, end = end, end + seconds
        while rate > 0 and (at := at + rng.expovariate(rate)) < end:
            trace.append(Arrival(at, rng.randint(*prompt), rng.randint(*output)))
    return trace


def body(arrival: Arrival, model: str) -> bytes:
    """The request; its text is of no meaning, of the right length, and begins like no other's."""
    length = arrival.prompt_tokens * CHARACTERS_PER_TOKEN
    text = (f"{arrival.at_seconds!r} " + "water " * (length // 6 + 1))[:length]
    said = f'{{"model":"{model}","stream":true,"max_tokens":{arrival.output_tokens},"messages":[{{"role":"user","content":"{text}"}}]}}'
    return said.encode()


Idle = list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]


async def play(port: int | Sequence[int], trace: Sequence[Arrival], model: str) -> list[Sent]:
    """Sends a trace, to several ports in turn; returns when all have ended. Connections are kept and taken again, as clients do."""
    ports = [port] if isinstance(port, int) else list(port)
    idle: dict[int, Idle] = {each: [] for each in ports}
    begin = time.monotonic()
    records: list[Sent] = []
    tasks: set[asyncio.Task[None]] = set()
    for arrival in trace:
        await asyncio.sleep(max(0.0, begin + arrival.at_seconds - time.monotonic()))
        record = Sent(arrival, time.monotonic())
        records.append(record)
        to = ports[len(records) % len(ports)]
        task = asyncio.create_task(_one(to, record, model, idle[to]))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    if tasks:
        await asyncio.wait(tasks, timeout=PATIENCE_SECONDS)
    for _, writer in (connection for connections in idle.values() for connection in connections):
        writer.close()
    return records


async def saturate(port: int, workers: int, seconds: float, model: str, prompt: tuple[int, int], output: tuple[int, int]) -> float:
    """Requests ended a second while `workers` are always under way; the first third is not counted."""
    rng = random.Random(5)
    idle: Idle = []
    begin = time.monotonic()
    ended: list[float] = []

    async def work() -> None:
        while time.monotonic() < begin + seconds:
            record = Sent(Arrival(0.0, rng.randint(*prompt), rng.randint(*output)), time.monotonic())
            await _one(port, record, model, idle)
            if record.status == 200:
                ended.append(record.ended)

    await asyncio.gather(*(work() for _ in range(workers)))
    for _, writer in idle:
        writer.close()
    return sum(begin + seconds / 3 <= at < begin + seconds for at in ended) / (seconds * 2 / 3)


async def _one(port: int, record: Sent, model: str, idle: Idle) -> None:
    data = body(record.arrival, model)
    try:
        reader, writer = idle.pop() if idle else await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(data) + data)
        head = await reader.readuntil(b"\r\n\r\n")
        record.status = int(head[9:12])
        record.request_id = _header(head, b"x-request-id")
        length = _header(head, b"content-length")
        if length:
            await reader.readexactly(int(length))
        while not length:
            size = int(await reader.readline(), 16)
            chunk = await reader.readexactly(size + 2)
            if size == 0:
                break
            if not record.first and b'"content":"' in chunk.replace(b'"content":""', b""):
                record.first = time.monotonic()
                name = chunk.partition(b'"model":"')[2]
                record.model = name[: name.find(b'"')].decode()
        idle.append((reader, writer))
    except (OSError, ValueError, asyncio.IncompleteReadError):
        record.status = record.status if record.status != 200 else 599
    record.ended = time.monotonic()


def _header(head: bytes, name: bytes) -> str:
    for line in head.split(b"\r\n"):
        key, _, value = line.partition(b":")
        if key.lower() == name:
            return value.strip().decode()
    return ""


def quantile(values: Sequence[float], share: float) -> float:
    """The value that `share` of them stay within; for ever where there are none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else float("inf")
