"""A proxy without sockets: a client's connection before a route, and the connection to its engine, as transports that remember.

`Line.carry` takes one request through, with the engine's bytes in the pieces that a test gives, and returns what the client got,
read by a parser as strict as a client may be. Nothing waits, so that every cut of a message can be tried.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.proxy_bench import STREAM_BODY, config, post

from spillway_sidecar.proxy.downstream import Downstream
from spillway_sidecar.proxy.listener import ClientLimits
from spillway_sidecar.proxy.route import RouteSite
from spillway_sidecar.proxy.swap import Swapper
from spillway_sidecar.proxy.upstream import Target, Upstream


class Wire(asyncio.Transport):
    """A transport that remembers what was written. `reset`: it was ended by a reset."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.ended = False
        self.reset = False

    def write(self, data: Any) -> None:
        assert not self.ended, "written after the end"
        self.written += bytes(data)

    def write_eof(self) -> None:
        self.ended = True

    def can_write_eof(self) -> bool:
        return True

    def close(self) -> None:
        self.ended = True

    def abort(self) -> None:
        self.ended = self.reset = True

    def is_closing(self) -> bool:
        return self.ended

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self  # its own socket

    def setsockopt(self, *_: object) -> None:
        """A reset is on its way."""

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Nothing is buffered."""

    def pause_reading(self) -> None:
        """Nothing is read."""

    def resume_reading(self) -> None:
        """Nothing is read."""


@dataclass
class Got:
    """What a client got: `whole` where it ended as its framing says, `told` where a stream's last event is our error."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes
    whole: bool
    told: bool
    engine_kept: bool
    requests: bytes = field(repr=False, default=b"")


_TOLD = re.compile(rb'data: \{"error":\{[^\n]*"code":"stream_interrupted"[^\n]*\}\}\n\n\Z')
_HEAD = re.compile(
    rb"HTTP/1\.1 ([1-5][0-9][0-9]) [\x20-\x7e]*\r\n((?:[\w!#$%&'*+.^`|~-]+:[\x20-\x7e\t\x80-\xff]*\r\n)*)\r\n", re.ASCII
)


def read(wire: Wire, version: bytes = b"1.1") -> Got:
    """The one reply that was written, by the letter. Raises AssertionError for what no client should see."""
    data = wire.written
    head = _HEAD.match(data)
    assert head is not None, data[:300]
    status = int(head[1])
    lines = head[2].split(b"\r\n")[:-1]
    headers = [(name.lower(), value.strip()) for name, _, value in (line.partition(b":") for line in lines)]
    framing = [(name, value) for name, value in headers if name in {b"content-length", b"transfer-encoding"}]
    assert len(framing) <= 1, framing
    rest = data[head.end() :]
    if status in {204, 304}:
        assert not rest
        body, whole = b"", True
    elif not framing:
        body, whole = rest, wire.ended and not wire.reset
    elif framing[0][0] == b"content-length":
        size = int(framing[0][1])
        assert len(rest) <= size, "more than was announced"
        body, whole = rest, len(rest) == size
    else:
        assert framing[0][1].lower() == b"chunked"
        assert version == b"1.1", "chunks for a client that does not know them"
        body, whole = unchunked(rest)
    told = _TOLD.search(body)
    return Got(status, headers, body[: told.start()] if told else body, whole, told is not None, False)


def unchunked(data: bytes) -> tuple[bytes, bool]:
    """The payload of chunks, and whether they have their end. Nothing may stand behind that."""
    body = b""
    while True:
        line, end, data = data.partition(b"\r\n")
        if not end:
            assert re.fullmatch(rb"(?:[0-9A-Fa-f]{1,8}(?:;[\x20-\x7e\t]*)?\r?)?", line), line
            return body, False
        size = int(line.partition(b";")[0], 16)
        body += data[:size]
        if len(data) < size + 2:
            assert data[size:] in {b"", b"\r"}
            return body, False
        assert data[size : size + 2] == b"\r\n"
        data = data[size + 2 :]
        if size == 0:
            assert not data, data[:100]
            return body, True


class Line:
    """One route with one endpoint, used for one request after the other. To be made and used in a running loop."""

    def __init__(self, **options: Any) -> None:
        self.site = RouteSite(clock=lambda: 0.0, id_prefix="t-", limits=ClientLimits(max_body_bytes=65536), rng=random.Random(7))
        swapper = Swapper(self.site, lambda *_: None, lambda: None)
        swapper.swap("1", config(1, attempts=1, **options))
        self.target: Target = self.site.clusters["default/a"].targets[0]

    def carry(
        self, pieces: Iterable[bytes], *, ends: str = "", request: bytes | None = None, version: bytes = b"1.1"
    ) -> Got | None:
        """The engine answers with the pieces, and then `ends` orderly ("close"), by a "reset" or not at all. None: the client waits."""
        target = self.target
        target.failures, target.penalty, target.down_until, target.ejected = 0, 1.0, 0.0, None
        target.mark()
        engine, wire = Upstream(target), Wire()
        upstream_wire = Wire()
        engine.connection_made(upstream_wire)
        target.idle.append(engine)
        client = Downstream(self.site)
        client.connection_made(wire)
        client.data_received(post(STREAM_BODY, version=version) if request is None else request)
        for piece in pieces:
            if not upstream_wire.ended:
                engine.data_received(piece)
        if ends and not upstream_wire.ended:
            if ends == "close":
                engine.eof_received()
            engine.connection_lost(ConnectionResetError() if ends == "reset" else None)
        kept = engine in target.idle
        waits = client.exchange is not None
        got = read(wire, version) if wire.written else None
        if got is not None:
            got.engine_kept = kept
            got.requests = upstream_wire.written
        client.connection_lost(None)
        target.idle.clear()
        self.check()
        if waits:
            return None
        assert got is not None, "neither an answer nor a wait"
        return got

    def check(self) -> None:
        """Nothing is held any more."""
        info: Any = self.site.info()
        assert info["in_flight"] == 0
        assert self.target.in_flight == 0
        assert self.target.in_flight_tokens == 0
        assert all(b["in_flight"] == 0 and b["retrying"] == 0 for b in info["retry_budgets"].values())
        assert not self.site.connections
        assert self.site.unread_bytes == 0
