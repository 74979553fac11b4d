"""The engine behind a socket.

`EngineServer` owns one `Engine`, its faults and one timer, armed for the end of the step under way; a tick hands new tokens
to their exchanges, which write them out. A connection carries one request at a time and drives no task: it is a protocol
whose loss cancels what it asked for, at once, waiting or running, streamed or not.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Callable
from itertools import count
from typing import cast

import msgspec

from spillway.sim_engine import http1, openai
from spillway.sim_engine.exposition import TTFT_BUCKETS_SECONDS, Histogram, load_header, metrics_text
from spillway.sim_engine.faults import Faults, Strike
from spillway.sim_engine.model import Engine, Progress, TooLargeError

JSON = "application/json"
MAX_UNSENT_BYTES = 16 * 1024 * 1024  # a client this far behind has stopped reading
IDLE_SECONDS = 75.0  # a connection without a request is closed after so long
_SWEEP_SECONDS = 5.0
_GENERATE = frozenset({"/v1/chat/completions", "/v1/completions", "/v1/embeddings"})
_PREFIXES = {"chat": "chatcmpl", "completion": "cmpl", "embedding": "embd"}


class EngineServer:
    """One simulated engine. `wall` gives seconds since the epoch for `created` stamps; all else runs on the loop's clock."""

    def __init__(
        self, engine: Engine, faults: Faults, models: list[str], wall: Callable[[], float], *, strict_model: bool = False
    ) -> None:
        self.engine = engine
        self.faults = faults
        self.models = models
        self.strict_model = strict_model
        self.ttft = Histogram(TTFT_BUCKETS_SECONDS)
        self.connections: set[Connection] = set()
        self.created = int(wall())
        self._wall = wall
        self._ids = count(1)
        self._exchanges: dict[int, Exchange] = {}
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = 0.0
        self._sweeper: asyncio.TimerHandle | None = None
        self._server: asyncio.Server | None = None
        engine.slowdown = faults.slowdown

    async def start(self, host: str, port: int) -> int:
        """Listen; the port in use (another one if `port` is 0)."""
        self._server = await self._loop.create_server(lambda: Connection(self), host, port, backlog=1024)
        self._sweep()
        bound: int = self._server.sockets[0].getsockname()[1]
        return bound

    async def stop(self, grace_seconds: float) -> None:
        """Take no more connections, let running replies end for so long, and close."""
        if self._server is not None:
            self._server.close()
        deadline = self._loop.time() + grace_seconds
        while self._exchanges and self._loop.time() < deadline:  # noqa: ASYNC110 - once in a process's life
            await asyncio.sleep(0.02)
        for timer in (self._timer, self._sweeper):
            if timer is not None:
                timer.cancel()
        for connection in list(self.connections):
            connection.close()

    def info(self) -> dict[str, object]:
        """State in figures."""
        return {
            "connections": len(self.connections),
            "exchanges": len(self._exchanges),
            "engine": self.engine.info(),
            **self.faults.info(),
        }

    def begin(self, connection: Connection, job: openai.Job, wanted_load: str | None, strike: Strike) -> Exchange:
        """Hand a job to the engine. Raises `openai.RequestError` if it can never run."""
        number = next(self._ids)
        now = self._loop.time()
        try:
            self.engine.submit(number, job.prompt_tokens, job.output_tokens, now)
        except TooLargeError as error:
            raise openai.RequestError(
                400, f"This model's maximum context length is exceeded: {error}", "context_length_exceeded"
            ) from error
        exchange = Exchange(self, connection, job, f"{_PREFIXES[job.kind]}-{number:08x}", number, int(self._wall()), now, strike)
        self._exchanges[number] = exchange
        exchange.open(load_header(self.engine, wanted_load))
        self.arm()
        return exchange

    def cancel(self, exchange: Exchange) -> None:
        """Free what an exchange holds."""
        if self._exchanges.pop(exchange.number, None) is not None:
            self.engine.cancel(exchange.number, self._loop.time())
            self.arm()

    def change_faults(self, body: bytes | None) -> None:
        """Set faults as JSON says (None: clear them all). Raises `msgspec.DecodeError`."""
        if body is None:
            self.faults.clear()
        else:
            self.faults.change(body)
        self.engine.slowdown = self.faults.slowdown

    def arm(self) -> None:
        """Set the timer to the end of the engine's step."""
        due = self.engine.next_step_at()
        if self._timer is not None:
            if self._timer_due == due:
                return
            self._timer.cancel()
            self._timer = None
        if due is not None:
            # Kept here and not asked of the handle: uvloop's handle of a time that has come has no `when`.
            self._timer_due = due
            self._timer = self._loop.call_at(due, self._tick)

    def _tick(self) -> None:
        self._timer = None
        for progress in self.engine.advance(self._loop.time()):
            exchange = self._exchanges.get(progress.request_id)
            if exchange is None:
                continue
            if progress.first:
                self.ttft.observe(progress.at_seconds - exchange.started_at)
            if progress.finished:
                del self._exchanges[progress.request_id]
            exchange.progress(progress)
        self.arm()

    def _sweep(self) -> None:
        now = self._loop.time()
        for connection in [c for c in self.connections if c.idle_since is not None and now - c.idle_since > IDLE_SECONDS]:
            connection.close()
        self._sweeper = self._loop.call_later(_SWEEP_SECONDS, self._sweep)


class Exchange:
    """One request at the engine and its reply."""

    def __init__(
        self,
        server: EngineServer,
        connection: Connection,
        job: openai.Job,
        request_id: str,
        number: int,
        created: int,
        started_at: float,
        strike: Strike,
    ) -> None:
        self.number = number
        self.started_at = started_at
        self._server, self._connection, self._job = server, connection, job
        self._request_id, self._created = request_id, created
        self._stream = openai.Stream(job, request_id, created) if job.stream else None
        self._chunks_left = strike.cut_after_chunks
        self._load: str | None = None

    def open(self, load: str | None) -> None:
        """Before the engine has begun: a stream's head goes out."""
        self._load = load
        if self._stream is not None:
            self._connection.send_head(200, "text/event-stream; charset=utf-8", None, load)
            if self._chunks_left == 0:
                self._cut()

    def progress(self, progress: Progress) -> None:
        """New tokens, or the end."""
        if self._stream is None:
            if progress.finished:
                self._reply_whole()
            return
        events = self._stream.start() if progress.first else []
        events += self._stream.tokens(progress.tokens)
        if progress.finished:
            events += self._stream.end()
        if self._chunks_left is not None:
            events = events[: self._chunks_left]
            self._chunks_left -= len(events)
        data = b"".join([http1.chunk(event) for event in events])
        if self._chunks_left == 0:
            self._connection.send(data)
            self._cut()
        elif progress.finished:
            self._connection.finish(data + http1.chunk(b""))
        else:
            self._connection.send(data)

    def _reply_whole(self) -> None:
        body = openai.unary(self._job, self._request_id, self._created)
        self._connection.send_head(200, JSON, len(body), self._load)
        if self._chunks_left is None:
            self._connection.finish(body)
        else:
            self._connection.send(body[: len(body) // 2])
            self._cut()

    def _cut(self) -> None:
        self._server.cancel(self)
        self._connection.close()


class Connection(asyncio.Protocol):
    """One client's connection: requests in turn, one reply at a time."""

    def __init__(self, server: EngineServer) -> None:
        self._server = server
        self._reader = http1.RequestReader()
        self._transport: asyncio.Transport | None = None
        self._busy = False
        self._keep_alive = True
        self._exchange: Exchange | None = None
        self._delayed: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self.idle_since: float | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Asyncio's."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by type
        self.idle_since = self._loop.time()
        self._server.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has left: what it asked for ends here."""
        self._transport = None
        self._server.connections.discard(self)
        if self._delayed is not None:
            self._delayed.cancel()
        if self._exchange is not None:
            self._server.cancel(self._exchange)
            self._exchange = None

    def data_received(self, data: bytes) -> None:
        """Asyncio's."""
        self._reader.feed(data)
        if not self._busy:
            self._take_next()

    def close(self) -> None:
        """End the connection after what is written."""
        if self._transport is not None:
            self._transport.close()

    def send_head(self, status: int, content_type: str, length: int | None, load: str | None = None) -> None:
        """Write a response's head."""
        extra = (("endpoint-load-metrics", load),) if load else ()
        self.send(http1.head(status, content_type, length=length, keep_alive=self._keep_alive, extra=extra))

    def send(self, data: bytes) -> None:
        """Write some of a response, unless the client has left or stopped reading."""
        if self._transport is None:
            return
        self._transport.write(data)
        if self._transport.get_write_buffer_size() > MAX_UNSENT_BYTES:
            self._transport.abort()

    def finish(self, data: bytes) -> None:
        """Write the end of a response and go on to the next request."""
        self.send(data)
        self._exchange, self._busy = None, False
        self.idle_since = self._loop.time()
        if not self._keep_alive:
            self.close()
        elif self._reader.midway:
            self._loop.call_soon(self._take_next)

    def _take_next(self) -> None:
        if self._busy or self._transport is None or self._transport.is_closing():
            return
        try:
            request = self._reader.next()
        except http1.BadRequestError as error:
            self._keep_alive = False
            self._answer(error.status, openai.error_body(error.status, str(error)))
            return
        if request is None:
            if self._reader.wants_continue:
                self._reader.wants_continue = False
                self.send(http1.CONTINUE)
            return
        self._busy, self.idle_since, self._keep_alive = True, None, request.keep_alive
        if request.path == "/fault":
            self._fault(request)
            return
        strike = self._server.faults.decide(request=request.path in _GENERATE)
        if strike.reset:
            self._reset()
        elif strike.hang:
            pass
        elif strike.delay_seconds:
            self._delayed = self._loop.call_later(strike.delay_seconds, self._handle, request, strike)
        else:
            self._handle(request, strike)

    def _handle(self, request: http1.Request, strike: Strike) -> None:
        self._delayed = None
        if strike.error:
            self._answer(500, openai.error_body(500, "a fault that was asked for"))
        elif request.path in _GENERATE:
            self._generate(request, strike)
        else:
            self._show(request)

    def _generate(self, request: http1.Request, strike: Strike) -> None:
        server = self._server
        if request.method != "POST":
            self._answer(405, openai.error_body(405, "this path takes POST"))
            return
        try:
            job = openai.parse(request.path, request.body)
            if server.strict_model and job.model not in server.models:
                raise openai.RequestError(404, f"The model `{job.model}` does not exist.", "model_not_found", "model")  # noqa: TRY301
            self._exchange = server.begin(self, job, request.headers.get("endpoint-load-metrics-format"), strike)
        except openai.RequestError as error:
            self._answer(error.status, openai.error_body(error.status, str(error), error.code, error.param))

    def _show(self, request: http1.Request) -> None:
        server = self._server
        match request.path if request.method in {"GET", "HEAD"} else "":
            case "/health":
                self._answer(200, b"")
            case "/metrics":
                self._answer(
                    200, metrics_text(server.engine, server.models[0], server.ttft), "text/plain; version=0.0.4; charset=utf-8"
                )
            case "/v1/models":
                self._answer(200, openai.models(server.models, server.created))
            case "/info":
                self._answer(200, msgspec.json.encode(server.info()))
            case _:
                self._answer(404, openai.error_body(404, f"nothing at {request.method} {request.path}"))

    def _fault(self, request: http1.Request) -> None:
        try:
            match request.method:
                case "POST" | "PUT" | "PATCH":
                    self._server.change_faults(request.body)
                case "DELETE":
                    self._server.change_faults(None)
        except msgspec.DecodeError as error:
            self._answer(400, openai.error_body(400, str(error)))
            return
        self._answer(200, msgspec.json.encode(self._server.faults.info()))

    def _answer(self, status: int, body: bytes, content_type: str = JSON) -> None:
        self.send_head(status, content_type, len(body))
        self.finish(body)

    def _reset(self) -> None:
        """Close with RST: linger of no time, set on the socket whatever loop holds it."""
        if self._transport is None:
            return
        given = self._transport.get_extra_info("socket")
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(given.fileno())) as duplicate:
            duplicate.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()
