"""The load: open loop, so many requests a second whatever comes back, on kept connections to the gateways in rotation.

Arrivals are Poisson from the seed, so are sizes; each is sent when it is due, late only if this process is (`lag`). A request whose
kept connection ends without a byte is sent once more on a fresh one, as every HTTP client does; whatever else goes wrong is
written down. `rotation` is what a Service is: the gateways that get connections.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections.abc import Callable, Iterator
from typing import Final

from tests.faults.fate import Fate, Request
from tests.faults.reply import GarbledError, Reply

HUNG_SECONDS: Final = 20.0
_DIAL_SECONDS: Final = 5.0

Make = Callable[[random.Random, int], Request]


def mixed(rng: random.Random, number: int) -> Request:
    """The ordinary mix: four of five streamed, 4 to 12 tokens, prompts of very different length."""
    prompt = f"{number:x} " + "x" * int(rng.expovariate(1 / 120))
    return Request(number, prompt, rng.randint(4, 12), stream=rng.random() < 0.8)


class _Connection(asyncio.Protocol):
    """One connection to a gateway."""

    def __init__(self, load: Load, gateway: int) -> None:
        self.load = load
        self.gateway = gateway
        self.transport: asyncio.Transport | None = None
        self.request: Request | None = None
        self.used = False
        self._reply = Reply()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def send(self, request: Request) -> None:
        assert self.transport is not None
        self.request = request
        self._reply = Reply()
        request.sent = time.monotonic()
        self.transport.write(self.load.encode(request))

    def data_received(self, data: bytes) -> None:
        request, reply = self.request, self._reply
        if request is None:
            self.load.strays += 1  # bytes that nobody asked for
            self.close()
            return
        try:
            body = reply.feed(data)
        except GarbledError as error:
            request.garbled = True
            request.reason = str(error)
            self._over()
            self.close()
            return
        request.status = reply.status
        if body:
            if not request.first:
                request.first = time.monotonic()
            request.body += body
        if reply.whole:
            self._whole(request, reply)

    def _whole(self, request: Request, reply: Reply) -> None:
        request.whole = True
        self._over()
        self.load.strays += len(reply.rest) > 0
        self.used = True
        if not reply.keep_alive or reply.rest:
            self.close()
        elif self.transport is not None and not self.transport.is_closing():
            self.load.keep(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self.load.forget(self)
        request = self.request
        if request is None:
            return
        if self.used and not request.status and not request.again and not request.left:
            self.request = None
            request.again += 1
            self.load.dispatch(request, fresh=True)
            return
        self._over()

    def close(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    def _over(self) -> None:
        request, self.request = self.request, None
        assert request is not None
        fields = self._reply.fields
        if fields:
            request.request_id = fields.get(b"x-request-id", b"").decode()
            request.reason = request.reason or fields.get(b"x-spillway-reason", b"").decode()
            retry_after = fields.get(b"retry-after")
            request.retry_after = None if retry_after is None else retry_after.decode()
        request.ended = time.monotonic()
        self.load.over(request)


class Load:
    """Sends to `rotation` and keeps every request in `requests`."""

    def __init__(self, ports: list[int], rng: random.Random) -> None:
        self.rotation = list(ports)
        self.requests: list[Request] = []
        self.lags: list[float] = []
        self.strays = 0
        self.on_over: Callable[[Request], None] | None = None
        self._rng = rng
        self._idle: dict[int, list[_Connection]] = {}
        self._open: dict[Request, _Connection | None] = {}
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._number = rng.randrange(1 << 40) << 20

    async def run(self, rate: float, seconds: float, make: Make = mixed) -> list[Request]:
        """Sends `rate` requests a second for so long; those that were sent, under way or not."""
        first = len(self.requests)
        start = due = time.monotonic()
        while True:
            due += self._rng.expovariate(rate)
            if due > start + seconds:
                break
            wait = due - time.monotonic()
            if wait > 0:
                await asyncio.sleep(wait)
            self.lags.append(time.monotonic() - due)
            request = self.new(make)
            request.due = due
            self.dispatch(request)
            if wait <= 0:
                await asyncio.sleep(0)  # behind: replies must still be read
        await asyncio.sleep(max(0.0, start + seconds - time.monotonic()))
        return self.requests[first:]

    def new(self, make: Make) -> Request:
        """The next request, not sent."""
        self._number += 1
        request = make(self._rng, self._number)
        request.due = time.monotonic()
        self.requests.append(request)
        return request

    async def ended(self, seconds: float = HUNG_SECONDS) -> None:
        """Waits until nothing is under way; what is after `seconds` is hung, and is let go."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._open:  # noqa: ASYNC110 - once a row
                    await asyncio.sleep(0.005)
        for request, connection in list(self._open.items()):
            request.settle()
            self._open.pop(request, None)
            if connection is not None:
                connection.request = None
                connection.close()

    def close_idle(self) -> None:
        """Every kept connection is ended."""
        for connections in self._idle.values():
            for connection in tuple(connections):
                connection.close()
        self._idle.clear()

    # --- connections

    def dispatch(self, request: Request, *, fresh: bool = False) -> None:
        """Sends it on a kept connection, or on a fresh one."""
        port = request.gateway = self.rotation[request.number % len(self.rotation)]
        kept = self._idle.get(port)
        if request.leave_after and not request.again:
            self._loop.call_later(request.leave_after, self._leave, request)
        if kept and not fresh:
            connection = kept.pop()
            self._open[request] = connection
            connection.send(request)
            return
        self._open[request] = None
        task = self._loop.create_task(self._dial(request, port))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _dial(self, request: Request, port: int) -> None:
        try:
            async with asyncio.timeout(_DIAL_SECONDS):
                _, connection = await self._loop.create_connection(lambda: _Connection(self, port), "127.0.0.1", port)
        except (OSError, TimeoutError) as error:
            request.reason = f"dial: {error}"
            request.ended = time.monotonic()
            self.over(request)
            return
        if request not in self._open:  # has left meanwhile
            connection.close()
            return
        self._open[request] = connection
        connection.send(request)

    def _leave(self, request: Request) -> None:
        connection = self._open.get(request)
        if request not in self._open:
            return
        request.left = True
        request.ended = time.monotonic()
        if connection is not None:
            connection.request = None
            connection.close()
        self.over(request)

    def keep(self, connection: _Connection) -> None:
        """Its reply is whole: for the next request."""
        if connection.gateway in self.rotation:
            self._idle.setdefault(connection.gateway, []).append(connection)
        else:
            connection.close()

    def forget(self, connection: _Connection) -> None:
        """It has ended."""
        with contextlib.suppress(ValueError):
            self._idle.get(connection.gateway, []).remove(connection)

    def over(self, request: Request) -> None:
        """One request has ended, however it did."""
        self._open.pop(request, None)
        request.settle()
        if self.on_over is not None:
            self.on_over(request)

    def encode(self, request: Request) -> bytes:
        """The bytes of a request."""
        body = json.dumps(
            {
                "model": request.model,
                "stream": request.stream,
                "max_tokens": request.tokens,
                "messages": [{"role": "user", "content": request.prompt}],
            }
        )
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: spillway\r\ncontent-type: application/json\r\n{request.headers}"
        return f"{head}content-length: {len(body)}\r\n\r\n{body}".encode()

    @property
    def under_way(self) -> int:
        """Requests without an end."""
        return len(self._open)


def counts(requests: list[Request]) -> dict[str, int]:
    """How many of each fate."""
    found: dict[str, int] = {}
    for request in requests:
        fate = str(request.fate or Fate.HUNG)
        found[fate] = found.get(fate, 0) + 1
    return dict(sorted(found.items()))


def percentile(values: Iterator[float] | list[float], share: float) -> float:
    """The value that `share` of the values stay within; 0 where there is none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def milliseconds(values: list[float], *shares: float) -> str:
    """`p50 1.2, p99 3.4 ms`."""
    return ", ".join(f"p{share * 100:g} {percentile(values, share) * 1000:.1f}" for share in shares or (0.5, 0.99)) + " ms"
