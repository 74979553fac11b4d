"""An engine of raw bytes: records all that it is sent, answers as a script says, and knows who is still connected."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

Script = Callable[["Call"], Awaitable[None]]


def reply(body: bytes = b'{"ok":true}', *, status: int = 200, kind: str = "application/json", head: bytes = b"") -> bytes:
    """A reply with Content-Length."""
    return b"HTTP/1.1 %d X\r\ncontent-type: %b\r\ncontent-length: %d\r\n%b\r\n%b" % (status, kind.encode(), len(body), head, body)


def chunk(data: bytes) -> bytes:
    """One chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(text: str) -> bytes:
    """One SSE event as a chat stream has it."""
    return b'data: {"choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n' % text.encode()


SSE_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
DONE = b"data: [DONE]\n\n"
LAST = b"0\r\n\r\n"


def stream(*texts: str, done: bool = True) -> bytes:
    """A whole SSE reply, one event a chunk."""
    return SSE_HEAD + b"".join(chunk(event(text)) for text in texts) + (chunk(DONE) if done else b"") + LAST


def answers(data: bytes, *, close: bool = False) -> Script:
    """A script that writes `data` to every request."""

    async def script(call: Call) -> None:
        await call.write(data)
        if close:
            call.close()

    return script


async def silent(call: Call) -> None:
    """A script that takes the request and says nothing."""


async def resets(call: Call) -> None:
    """A script that resets the connection."""
    call.reset()


@dataclass
class Call:
    """One request at the engine."""

    line: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes
    connection: Connection
    number: int  # of the requests on its connection, from 0

    def header(self, name: bytes) -> bytes | None:
        """The one value of a header."""
        values = [value for key, value in self.headers if key == name]
        assert len(values) <= 1, f"{name!r} was sent {len(values)} times"
        return values[0] if values else None

    async def write(self, data: bytes) -> None:
        """Writes and waits until the kernel has taken it."""
        self.connection.writer.write(data)
        await self.connection.writer.drain()

    def close(self) -> None:
        """Ends the connection orderly."""
        self.connection.writer.close()

    def reset(self) -> None:
        """Ends it with a reset."""
        self.connection.reset()

    async def left(self) -> None:
        """Returns when the other side has closed."""
        await self.connection.closed.wait()


class Connection:
    """One connection accepted."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.bytes = b""
        self.closed = asyncio.Event()

    def reset(self) -> None:
        """Closes so that the kernel sends a reset."""
        import socket
        import struct

        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


@dataclass
class RawEngine:
    """`script` answers each request; `calls` and `connections` are everything that came."""

    script: Script
    calls: list[Call] = field(default_factory=list)
    connections: list[Connection] = field(default_factory=list)
    port: int = 0
    open: int = 0
    _server: asyncio.Server | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def start(self) -> RawEngine:
        """Listens on a free port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, limit=1 << 25, backlog=2048)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def stop(self) -> None:
        """Closes the listener and every connection; who dials now is refused."""
        assert self._server is not None
        self._server.close()
        for connection in self.connections:
            connection.writer.transport.abort()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def received(self) -> bytes:
        """Every byte of every connection."""
        return b"".join(connection.bytes for connection in self.connections)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        connection = Connection(reader, writer)
        self.connections.append(connection)
        self.open += 1
        script: asyncio.Task[None] | None = None
        try:
            buffer = b""
            number = 0
            while True:
                data = await reader.read(1 << 16)
                if not data:
                    break
                connection.bytes += data
                buffer += data
                while (parsed := _parse(buffer, connection, number)) is not None:
                    call, buffer = parsed
                    number += 1
                    self.calls.append(call)
                    script = asyncio.ensure_future(self.script(call))
                    self._tasks.add(script)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self.open -= 1
            connection.closed.set()
            self._tasks.discard(task)
            if script is not None:
                script.cancel()
                await asyncio.gather(script, return_exceptions=True)
            writer.close()


def _parse(buffer: bytes, connection: Connection, number: int) -> tuple[Call, bytes] | None:
    """The first request in the buffer. Strict: a request of the proxy's that is not plain is a failure of the test."""
    head, separator, rest = buffer.partition(b"\r\n\r\n")
    if not separator:
        return None
    line, *lines = head.split(b"\r\n")
    headers = []
    for text in lines:
        name, colon, value = text.partition(b": ")
        assert colon, text
        assert name == name.lower(), name
        headers.append((name, value))
    lengths = [value for name, value in headers if name == b"content-length"]
    assert len(lengths) == 1, lengths
    length = int(lengths[0])
    if len(rest) < length:
        return None
    return Call(line, headers, rest[:length], connection, number), rest[length:]
