"""However a request is cut into segments, it is read the same: every request of the corpus, at every point, without sockets."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest
from tests.fakes.bad_requests import BAD, BODY, MAX_BODY_BYTES, UNWANTED
from tests.fakes.proxy_bench import post

from spillway_sidecar.proxy.downstream import Downstream
from spillway_sidecar.proxy.heads import RequestHead
from spillway_sidecar.proxy.listener import ClientLimits
from spillway_sidecar.proxy.route import RouteSite

GOOD = {
    "length": post(),
    "chunked": post().replace(b"Content-Length: 27\r\n\r\n" + BODY, b"Transfer-Encoding: chunked\r\n\r\n1;x\r\n{\r\n1A\r\n" + BODY[1:] + b"\r\n0\r\n\r\n"),
    "two": post() + post(b'{"model":"n"}'),
    "chunked and another": post().replace(b"Content-Length: 27\r\n\r\n" + BODY, b"Transfer-Encoding: chunked\r\n\r\n1b\r\n" + BODY + b"\r\n00\r\n\r\n") + post(),
    "list": b"GET /v1/models HTTP/1.1\r\nHost: proxy\r\n\r\n",
}  # fmt: skip


class Wire(asyncio.Transport):
    """A transport that remembers what was written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.ended = False

    def write(self, data: Any) -> None:
        self.written += bytes(data)

    def write_eof(self) -> None:
        self.ended = True

    def can_write_eof(self) -> bool:
        return True

    def close(self) -> None:
        self.ended = True

    abort = close

    def is_closing(self) -> bool:
        return self.ended

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Nothing is buffered."""

    def pause_reading(self) -> None:
        """Nothing is read."""

    def resume_reading(self) -> None:
        """Nothing is read."""


class Site(RouteSite):
    """Takes each request that a route listener would route, and answers at once."""

    def __init__(self) -> None:
        super().__init__(clock=lambda: 0.0, id_prefix="t-", limits=ClientLimits(max_body_bytes=MAX_BODY_BYTES))
        self.taken: list[tuple[bytes, bytes]] = []

    def handle(self, client: Downstream, head: RequestHead, body: bytes) -> None:
        self.precheck(head)
        self.taken.append((head.target, body))
        client.transport.write(b"OK")
        client.finished(head.keep_alive)


async def _read(pieces: list[bytes]) -> tuple[list[tuple[bytes, bytes]], list[bytes]]:
    """What was taken, and the status of each answer."""
    site, wire = Site(), Wire()
    client = Downstream(site)
    client.connection_made(wire)
    for piece in pieces:
        client.data_received(piece)
        while client._buffer and not wire.ended and client.exchange is None and b"\r\n\r\n" in client._buffer:
            await asyncio.sleep(0)  # the next of those sent at once
            if client._head is None and not client._buffer:
                break
    for _ in range(3):
        await asyncio.sleep(0)
    return site.taken, re.findall(rb"HTTP/1\.1 [0-9]+|OK", wire.written)


CASES = {**{name: case[0] for name, case in (BAD | UNWANTED).items()}, **GOOD}


@pytest.mark.parametrize("name", [name for name, request in CASES.items() if len(request) < 1000])
async def test_a_request_cut_anywhere_is_read_as_if_whole(name: str):
    request = CASES[name]
    whole = await _read([request])
    assert whole[1], "neither taken nor refused"
    for point in range(1, len(request)):
        assert await _read([request[:point], request[point:]]) == whole, request[:point]
    assert await _read([request[i : i + 1] for i in range(len(request))]) == whole


@pytest.mark.parametrize("name", [name for name, request in CASES.items() if len(request) >= 1000])
async def test_a_long_request_cut_at_some_points_is_read_as_if_whole(name: str):
    request = CASES[name]
    whole = await _read([request])
    for size in (97, 1460, 8191, 16384):
        assert await _read([request[i : i + size] for i in range(0, len(request), size)]) == whole
