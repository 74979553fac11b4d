"""Steady traffic from this machine, open loop: what every request came to while something else went on.

`python -m e2e.chart.steady URL SECONDS RATE` prints JSON: answers by outcome, and the first failures.
"""

import asyncio
import json
import sys
from collections import Counter
from typing import Any

import aiohttp

LONG_EVERY = 10  # each tenth request is a stream of some seconds
LONG_TOKENS, SHORT_TOKENS = 200, 3
KEPT_FAILURES = 10


async def ask(session: aiohttp.ClientSession, url: str, *, stream: bool) -> str:
    """What became of one request: `ok`, or what went wrong."""
    body = {"model": "chat", "stream": stream, "messages": [{"role": "user", "content": "hi"}]}
    try:
        async with session.post(url, json={**body, "max_tokens": LONG_TOKENS if stream else SHORT_TOKENS}) as reply:
            text = await reply.read()
            whole = not stream or text.rstrip().endswith(b"[DONE]")
            return (
                "ok"
                if reply.status == 200 and whole
                else f"{reply.status} {reply.headers.get('x-spillway-reason')} {text[-100:]!r}"
            )
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        return f"{type(error).__name__}: {error}"


async def steady(url: str, seconds: float, rate: float, *, keep: bool) -> dict[str, Any]:
    """All outcomes of requests sent for `seconds` at `rate`; `keep` connections, or one for each request."""
    loop = asyncio.get_running_loop()
    tasks = []
    connector = aiohttp.TCPConnector(limit=0, force_close=not keep)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(60)) as session:
        begin = loop.time()
        while (now := loop.time()) < begin + seconds:
            tasks.append(asyncio.create_task(ask(session, url, stream=len(tasks) % LONG_EVERY == 0)))
            await asyncio.sleep(max(0.0, begin + len(tasks) / rate - now))
        outcomes = Counter(await asyncio.gather(*tasks))
    failures = {text: count for text, count in outcomes.most_common() if text != "ok"}
    return {"sent": len(tasks), "ok": outcomes["ok"], "failures": dict(list(failures.items())[:KEPT_FAILURES])}


async def both(url: str, seconds: float, rate: float) -> list[dict[str, Any]]:
    """Half of the traffic over kept connections, half over one for each request."""
    return await asyncio.gather(*(steady(url, seconds, rate / 2, keep=keep) for keep in (True, False)))


if __name__ == "__main__":
    print(json.dumps(asyncio.run(both(sys.argv[1], float(sys.argv[2]), float(sys.argv[3])))))
