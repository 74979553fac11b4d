"""Steady traffic, open loop: what became of every request while something else went on.

`python -m e2e.chart.steady URL RATE MOST` sends until its standard input ends, or MOST requests are sent, waits for what is under way,
and prints JSON. It runs in the network namespace of the cluster's node (`traffic`), as a client in the cluster would.

Half of the requests go over kept connections and half over one of their own each. Every 20th is a stream of some two seconds, so
that there are always streams to be lost. Nothing is tried again: what a request comes to is counted once, with its reason.
"""

import asyncio
import dataclasses
import json
import sys
from typing import Any

import aiohttp

STREAM_EVERY = 20
STREAM_TOKENS, SHORT_TOKENS = 100, 3
PATIENCE_SECONDS = 60.0


@dataclasses.dataclass(slots=True)
class Tally:
    """What came of requests; for each way of failing how often, and the first time and request id."""

    sent: int = 0
    ok: int = 0
    failures: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)

    def add(self, reason: str | None, at: float, request_id: str | None) -> None:
        self.sent += 1
        if reason is None:
            self.ok += 1
        else:
            seen = self.failures.setdefault(reason, {"times": 0, "first_after_seconds": round(at, 2), "request_id": request_id})
            seen["times"] += 1


async def ask(
    session: aiohttp.ClientSession, url: str, *, stream: bool, model: str = "steady", tokens: int | None = None
) -> tuple[str | None, str | None]:
    """Sends one request. Returns why it failed, None if it did not, and its id."""
    if tokens is None:
        tokens = STREAM_TOKENS if stream else SHORT_TOKENS
    body = {"model": model, "stream": stream, "max_tokens": tokens, "messages": [{"role": "user", "content": "hi"}]}
    request_id = None
    kind = "stream" if stream else "short"
    try:
        async with session.post(url, json=body) as reply:
            request_id = reply.headers.get("x-request-id")
            text = await reply.read()
            if reply.status != 200:
                return f"{kind}: {reply.status} {reply.headers.get('x-spillway-reason')} {text[-150:]!r}", request_id
            if stream and not text.rstrip().endswith(b"[DONE]"):
                return f"{kind}: not whole, ends in {text[-100:]!r}", request_id
            return None, request_id
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        return f"{kind}: {type(error).__name__}: {error}", request_id


async def steady(url: str, rate: float, most: int, stop: asyncio.Event, *, keep: bool) -> Tally:
    """What became of requests sent at `rate` until `stop`, `most` of them at most; over kept connections, or one for each."""
    loop = asyncio.get_running_loop()
    tally, under_way = Tally(), set[asyncio.Task[None]]()
    begin = loop.time()

    async def one(number: int) -> None:
        reason, request_id = await ask(session, url, stream=number % STREAM_EVERY == 0)
        tally.add(reason, loop.time() - begin, request_id)

    connector = aiohttp.TCPConnector(limit=0, force_close=not keep)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(PATIENCE_SECONDS)) as session:
        number = 0
        while number < most and not stop.is_set():
            task = asyncio.create_task(one(number))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
            number += 1
            await asyncio.sleep(begin + number / rate - loop.time())
        await asyncio.gather(*under_way)
    return tally


async def main(url: str, rate: float, most: int) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()

    def told() -> None:  # standard input has nothing to say but its end
        loop.remove_reader(sys.stdin.fileno())
        stop.set()

    loop.add_reader(sys.stdin.fileno(), told)
    kept, fresh = await asyncio.gather(*(steady(url, rate / 2, most // 2, stop, keep=keep) for keep in (True, False)))
    print(json.dumps({"kept": dataclasses.asdict(kept), "fresh": dataclasses.asdict(fresh)}))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], float(sys.argv[2]), int(sys.argv[3])))
