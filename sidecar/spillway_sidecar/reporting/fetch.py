"""One bounded HTTP/1.1 GET, for an engine's health and metrics pages and a DCGM exporter's.

The server is untrusted: the answer is read strictly and whole within one deadline and one limit, nothing is followed,
decompressed or remembered. Each request has a connection of its own, because a check that a fresh connection is accepted is
worth more than the connection saved, and because engines close idle ones (llama.cpp after 5 s) so that a reused one may
fail without meaning anything. It is written on `asyncio` streams: `import aiohttp` adds 9 MB of resident memory to a proxy's
30, and a part that only asks two pages on loopback should not be what brings it in.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

MAX_HEAD_BYTES: Final = 16 * 1024
MAX_INTERIM: Final = 4

_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: .*)?")
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(.*?)[ \t]*")
_LENGTH = re.compile(rb"[0-9]{1,12}")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;.{0,256})?\r\n")


@dataclass(frozen=True, slots=True)
class Fetched:
    """A complete answer."""

    status: int
    body: bytes


class FetchError(Exception):
    """No complete, well-formed answer within the limits; the message says which."""


class LateError(FetchError):
    """The answer had not come, or not whole, when its time was over."""


async def fetch(url: str, *, deadline_seconds: float, max_bytes: int) -> Fetched:
    """GETs an `http://` URL. Raises `FetchError`, and nothing else, if no whole answer of at most `max_bytes` comes in time."""
    try:
        host, port, request = _request(url)
        async with asyncio.timeout(deadline_seconds):
            reader, writer = await asyncio.open_connection(host, port, limit=MAX_HEAD_BYTES)
            try:
                writer.write(request)
                return await _answer(reader, max_bytes)
            finally:
                writer.transport.abort()
    except TimeoutError:
        raise LateError(f"no whole answer within {deadline_seconds:g} s") from None
    except (EOFError, asyncio.LimitOverrunError):
        raise FetchError("the answer was cut short or its head is too long") from None
    except (OSError, ValueError) as error:
        raise FetchError(f"{type(error).__name__}: {error}") from None


def _request(url: str) -> tuple[str, int, bytes]:
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        raise FetchError("not an http URL")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    head = f"GET {target} HTTP/1.1\r\nhost: {parts.netloc}\r\naccept-encoding: identity\r\nconnection: close\r\n\r\n"
    return parts.hostname, parts.port or 80, head.encode("ascii")


async def _answer(reader: asyncio.StreamReader, max_bytes: int) -> Fetched:
    for _ in range(MAX_INTERIM):
        status_line, *lines = (await reader.readuntil(b"\r\n\r\n"))[:-4].split(b"\r\n")
        status = _STATUS.fullmatch(status_line)
        if status is None:
            raise FetchError("the answer is not HTTP/1")
        if not status[1].startswith(b"1"):
            code = int(status[1])
            return Fetched(code, b"" if code in {204, 304} else await _body(reader, _headers(lines), max_bytes))
    raise FetchError("too many interim answers")


def _headers(lines: list[bytes]) -> dict[bytes, bytes]:
    """The headers that say how the body is framed. A header that is given twice or malformed is refused."""
    framing: dict[bytes, bytes] = {}
    for line in lines:
        header = _HEADER.fullmatch(line)
        if header is None:
            raise FetchError("a header is malformed")
        name = header[1].lower()
        if name in {b"content-length", b"transfer-encoding", b"content-encoding"}:
            if name in framing:
                raise FetchError("a framing header is given twice")
            framing[name] = header[2]
    return framing


async def _body(reader: asyncio.StreamReader, framing: dict[bytes, bytes], max_bytes: int) -> bytes:
    if framing.get(b"content-encoding", b"identity").lower() != b"identity":
        raise FetchError("the answer is compressed")
    length = framing.get(b"content-length")
    coding = framing.get(b"transfer-encoding")
    if coding is not None:
        if length is not None or coding.lower() != b"chunked":
            raise FetchError("the body's framing is contradictory or unknown")
        return await _chunked(reader, max_bytes)
    if length is None:
        return await _until_closed(reader, max_bytes)
    if not _LENGTH.fullmatch(length):
        raise FetchError("the body's length is malformed")
    if int(length) > max_bytes:
        raise FetchError(f"the body is longer than {max_bytes} bytes")
    return await reader.readexactly(int(length))


async def _chunked(reader: asyncio.StreamReader, max_bytes: int) -> bytes:
    body = bytearray()
    while True:
        chunk = _CHUNK.fullmatch(await reader.readuntil(b"\r\n"))
        if chunk is None:
            raise FetchError("a chunk is malformed")
        size = int(chunk[1], 16)
        if size == 0:
            return bytes(body)
        if len(body) + size > max_bytes:
            raise FetchError(f"the body is longer than {max_bytes} bytes")
        body += await reader.readexactly(size)
        if await reader.readexactly(2) != b"\r\n":
            raise FetchError("a chunk is malformed")


async def _until_closed(reader: asyncio.StreamReader, max_bytes: int) -> bytes:
    """A body that only the close ends may be cut anywhere; what follows its last newline could be half a number."""
    body = bytearray()
    while part := await reader.read(MAX_HEAD_BYTES):
        body += part
        if len(body) > max_bytes:
            raise FetchError(f"the body is longer than {max_bytes} bytes")
    return bytes(body[: body.rfind(b"\n") + 1])
