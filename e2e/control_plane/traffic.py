"""Chat requests through a gateway while something else goes on: short answers and streams of some seconds, each of which has to come whole."""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import aiohttp

CLIENTS = 6
STREAM_EVERY = 20
PAUSE_SECONDS = 0.05
AFTERWARDS_SECONDS = 2.0


class Traffic:
    """What became of every request, in a thread of its own."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/v1/chat/completions"
        self._outcomes: Counter[str] = Counter()
        self._over = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def start(self) -> None:
        self._thread.start()

    async def _run(self) -> None:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(60)) as session:
            await asyncio.gather(*(self._client(session) for _ in range(CLIENTS)))

    async def _ask(self, session: aiohttp.ClientSession, *, stream: bool) -> str:
        body = {
            "model": "chat",
            "stream": stream,
            "max_tokens": 200 if stream else 3,
            "messages": [{"role": "user", "content": "hi"}],
        }
        try:
            async with session.post(self._url, json=body) as answer:
                text = await answer.read()
                whole = answer.status == 200 and (not stream or text.rstrip().endswith(b"[DONE]"))
                return "ok" if whole else f"{answer.status} {text[-200:]!r}"
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return f"{type(error).__name__}: {error}"

    async def _client(self, session: aiohttp.ClientSession) -> None:
        sent = 0
        while not self._over.is_set():
            self._outcomes[await self._ask(session, stream=sent % STREAM_EVERY == 0)] += 1
            sent += 1
            await asyncio.sleep(PAUSE_SECONDS)

    def stop(self) -> Counter[str]:
        """All outcomes; `ok` is the good one."""
        self._over.set()
        self._thread.join(60)
        return self._outcomes


@contextmanager
def untouched(port: int, *, what: str) -> Iterator[None]:
    """Not one request fails while the block runs."""
    traffic = Traffic(port)
    traffic.start()
    try:
        yield
        time.sleep(AFTERWARDS_SECONDS)
    finally:
        outcomes = traffic.stop()
    failed = {text: count for text, count in outcomes.items() if text != "ok"}
    print(f"\n{what}: {outcomes.total()} requests, {sum(failed.values())} failed", end="")
    assert not failed
    assert outcomes["ok"] > CLIENTS
