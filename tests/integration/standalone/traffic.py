"""Open-loop traffic for the tests: so many requests a second whatever happens, each with its outcome and times."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from dataclasses import dataclass, field
from typing import Self


@dataclass
class Sent:
    """One request: when it began, its status (0: the connection failed), when its first body byte came, the bytes."""

    began: float
    status: int = 0
    first: float = 0.0
    ended: float = 0.0
    whole: bool = False
    upstream: str = ""
    error: str = ""  # why it broke off


@dataclass
class Traffic:
    """Sends from a thread of its own until stopped."""

    port: int
    rate: float
    model: str = "chat"
    stream: bool = True
    max_tokens: int = 8
    headers: str = ""
    prompt: str = "Where does the excess go?"  # `{n}` is the request's number: prompts that begin alike are kept together
    sent: list[Sent] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(60)

    @property
    def failures(self) -> list[Sent]:
        """Requests that did not end whole with 200, among those that ended."""
        return [s for s in self.sent if s.ended and not (s.status == 200 and s.whole)]

    def since(self, moment: float) -> list[Sent]:
        """Whole requests that began after a moment (monotonic seconds)."""
        return [s for s in self.sent if s.began >= moment and s.whole]

    async def _run(self) -> None:
        tasks = set()
        start = time.monotonic()
        count = 0
        while not self._stop.is_set():
            task = asyncio.create_task(self._one(count))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            count += 1
            await asyncio.sleep(max(0.0, start + count / self.rate - time.monotonic()))
        async with asyncio.timeout(50):
            while tasks:
                await asyncio.wait(tasks)

    async def _one(self, number: int) -> None:
        record = Sent(time.monotonic())
        self.sent.append(record)
        body = json.dumps(
            {
                "model": self.model,
                "stream": self.stream,
                "max_tokens": self.max_tokens,
                "messages": [{"role": "user", "content": self.prompt.replace("{n}", str(number))}],
            }
        ).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{self.headers}content-length: {len(body)}\r\n\r\n"
        data = b""
        try:
            async with asyncio.timeout(40):
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                with contextlib.closing(writer):
                    writer.write(head.encode() + body)
                    answer = await reader.readuntil(b"\r\n\r\n")
                    record.status = int(answer[9:12])
                    rest = await reader.read(65536)
                    record.first = time.monotonic()
                    while rest:
                        data += rest
                        rest = await reader.read(65536)
                record.whole = b"[DONE]" in data if self.stream else b"usage" in data
                record.upstream = "fast-model" if b"fast-model" in data else "slow-model" if b"slow-model" in data else ""
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            record.error = f"{error!r} after {time.monotonic() - record.began:.1f} s, {len(data)} bytes, the last {data[-200:]!r}"
        record.ended = time.monotonic()
