"""Load that rises and falls as a test says, open loop, and what became of every request.

`python -m e2e.chart.waves URL MODEL TOKENS` reads commands from standard input, a line each: `rate N`, so many requests a second from now on, or
`burst N`, so many at once. At the end of its input it waits for what is under way and prints JSON. It runs in the network namespace of
the cluster's node, as a client in the cluster would; every other request is a stream. What is answered 429 comes again a second later, as clients
do, and is counted; nothing else is tried again.
"""

import asyncio
import contextlib
import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import aiohttp
from e2e.chart.readme import in_network
from e2e.chart.steady import Tally, ask
from e2e.cluster import lifecycle
from e2e.cluster.layout import PROJECT

PATIENCE_SECONDS = 90.0
END_SECONDS = 100.0
TRIES = 10


@dataclass(slots=True)
class Waves:
    """The sender, while it runs; afterwards what came of it."""

    sender: subprocess.Popen[str]
    sent: int = 0
    ok: int = 0
    again: int = 0  # tries that were told to come back
    failures: dict[str, Any] = field(default_factory=dict)
    first_at: float = 0.0  # wall clock: the head of the first request was out

    def rate(self, per_second: float) -> None:
        self._tell(f"rate {per_second}")

    def burst(self, count: int) -> None:
        self._tell(f"burst {count}")

    def _tell(self, command: str) -> None:
        assert self.sender.stdin is not None
        self.sender.stdin.write(command + "\n")
        self.sender.stdin.flush()

    @property
    def lost(self) -> int:
        return self.sent - self.ok


@contextlib.contextmanager
def waves(cluster: lifecycle.Cluster, url: str, model: str, tokens: int) -> Iterator[Waves]:
    """Sends while the block runs; afterwards every request has come to its end, and is counted."""
    command = [*in_network(cluster), sys.executable, "-m", "e2e.chart.waves", url, model, str(tokens)]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=PROJECT
    ) as sender:
        made = Waves(sender)
        try:
            yield made
        finally:
            try:
                out, _ = sender.communicate(timeout=END_SECONDS)
            finally:
                sender.kill()
            found = json.loads(out)
            for name, value in found.items():
                setattr(made, name, value)
            print(f"{model}: {made.sent} requests, {made.lost} failed {made.failures or ''}, {made.again} times 429")


async def main(url: str, model: str, tokens: int) -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    tally, under_way = Tally(), set[asyncio.Task[None]]()
    begin, first_at, rate, next_at, number, again = loop.time(), 0.0, 0.0, 0.0, 0, 0

    async def one(number: int) -> None:
        nonlocal again
        for _ in range(TRIES):
            reason, request_id = await ask(session, url, stream=number % 2 == 0, model=model, tokens=tokens)
            if reason is None or ": 429 " not in reason:
                break
            again += 1
            await asyncio.sleep(1.0)
        tally.add(reason, loop.time() - begin, request_id)

    async def note(*_: object) -> None:
        nonlocal first_at
        first_at = first_at or datetime.now(UTC).timestamp()

    def send() -> None:
        nonlocal number
        task = asyncio.create_task(one(number))
        under_way.add(task)
        task.add_done_callback(under_way.discard)
        number += 1

    trace = aiohttp.TraceConfig()
    trace.on_request_headers_sent.append(note)
    timeout = aiohttp.ClientTimeout(PATIENCE_SECONDS)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, trace_configs=[trace]) as session:
        heard = asyncio.create_task(reader.readline())
        while True:
            wait = max(0.0, next_at - loop.time()) if rate else None
            await asyncio.wait({heard}, timeout=wait)
            if heard.done():
                word, _, count = heard.result().decode().strip().partition(" ")
                if not word:
                    break
                if word == "rate":
                    rate, next_at = float(count), loop.time()
                else:
                    for _ in range(int(count)):
                        send()
                heard = asyncio.create_task(reader.readline())
            elif rate:
                send()
                next_at += 1 / rate
        await asyncio.gather(*under_way)
    print(json.dumps({**dataclasses.asdict(tally), "first_at": first_at, "again": again}))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
