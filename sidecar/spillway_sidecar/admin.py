"""The admin listener of a proxy: health, readiness, metrics, the snapshot in force, state, and explanations of decisions.

It is a small HTTP/1.1 server of our own on `asyncio.start_server`, one request a connection. `aiohttp.web` would do the
same for 1.9 MB of resident memory (38.2 to 40.1 MB for the imports of a proxy, where the whole process is to idle under 40 MB),
to serve six pages to a kubelet, a Prometheus and an operator's `curl`. Strict, since it faces the pod network: a request head is
at most 8 KiB and complete within the deadline, a reader takes its answer within the deadline or is cut off, connections
are counted. There is no access log; a page that fails answers 500 and is logged.

| path | answer |
| --- | --- |
| `/healthz` | 200 while the event loop runs |
| `/readyz` | 200 or 503, and why |
| `/metrics` | Prometheus text format |
| `/config` | the snapshot in force |
| `/info` | state of the proxy's parts |
| `/explain/{request id}` | the decision record of a request, or 404 |
| `/decisions` | all records that are held, oldest first, one JSON object a line |
| `POST /drain` | begins to drain; from this machine or pod only, since whoever may ask for it may take the proxy out |
| `/drained` | waits until the proxy drains and nothing is under way; changes nothing, so that a kubelet may ask from anywhere |
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

import msgspec
from prometheus_client import CollectorRegistry, generate_latest

_LOG = logging.getLogger(__name__)

MAX_HEAD_BYTES: Final = 8 * 1024
MAX_CONNECTIONS: Final = 64
DEADLINE_SECONDS: Final = 5.0
MAX_WAITING: Final = 4  # hooks of one pod's containers; more would take connections from probes

_REQUEST_LINE = re.compile(rb"([A-Z]{1,16}) (/[!-~]*) HTTP/1\.[01]")
_LOOPBACK = re.compile(r"(::ffff:)?127\..*|::1")
_REASONS: Final = {
    200: "OK", 400: "Bad Request", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed",
    431: "Request Header Fields Too Large", 500: "Internal Server Error", 503: "Service Unavailable",
}  # fmt: skip
_TEXT: Final = "text/plain; charset=utf-8"
_METRICS: Final = "text/plain; version=0.0.4; charset=utf-8"
_JSON: Final = "application/json"
_JSON_LINES: Final = "application/x-ndjson"

_Answer = tuple[int, str, bytes]  # status, content type, body


@dataclass(frozen=True, slots=True)
class AdminPages:
    """What the pages show. `config` and `explain` give plain data (or JSON as bytes), or None where there is nothing."""

    ready: Callable[[], tuple[bool, str]]
    registry: CollectorRegistry
    config: Callable[[], object]
    info: Callable[[], Mapping[str, object]]
    explain: Callable[[str], object] = lambda _: None
    decisions: Callable[[], Iterable[object]] = tuple
    drain: Callable[[], None] | None = None  # begins; None: not from here
    drained: Callable[[], Awaitable[bool]] | None = None  # whether it was done in time

    def answer(self, target: str) -> _Answer:  # noqa: PLR0911 - one return a page
        """The answer to `GET target`. Raises whatever a page raises."""
        match target.partition("?")[0].split("/")[1:]:
            case ["healthz"]:
                return 200, _TEXT, b"ok\n"
            case ["readyz"]:
                ready, reason = self.ready()
                return 200 if ready else 503, _TEXT, f"{reason}\n".encode()
            case ["metrics"]:
                return 200, _METRICS, generate_latest(self.registry)
            case ["config"]:
                return _page(self.config(), "no snapshot is in force")
            case ["info"]:
                return _page(self.info(), "")
            case ["explain", request_id]:
                return _page(self.explain(unquote(request_id)), "no decision is kept under this request id")
            case ["decisions"]:
                return 200, _JSON_LINES, b"".join(msgspec.json.encode(record) + b"\n" for record in self.decisions())
            case _:
                return _error(404, "no such page")


class AdminServer:
    """Listens on `host`:`port` (0: any free port; `port` tells which) from `start()` to `stop()`."""

    def __init__(self, pages: AdminPages, host: str, port: int, *, deadline_seconds: float = DEADLINE_SECONDS) -> None:
        self._pages = pages
        self._host = host
        self._port = port
        self._deadline_seconds = deadline_seconds
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()
        self._served = 0
        self._refused = 0
        self._waiting = 0

    @property
    def port(self) -> int:
        """The port in use once started, else the one asked for."""
        return self._port

    async def start(self) -> None:
        """Opens the listener. Raises `OSError` if the address is taken."""
        self._server = await asyncio.start_server(self._accept, self._host, self._port, limit=MAX_HEAD_BYTES)
        self._port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Closes the listener and cuts what is open."""
        if self._server is not None:
            self._server.close()
            for task in self._open:
                task.cancel()
            await asyncio.gather(*self._open, return_exceptions=True)
            await self._server.wait_closed()
            self._server = None

    def info(self) -> dict[str, object]:
        """Counts of connections: open, served, refused for being too many."""
        return {"port": self._port, "open": len(self._open), "served": self._served, "refused": self._refused}

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._open) >= MAX_CONNECTIONS:
            self._refused += 1
            writer.transport.abort()
            return
        task = asyncio.create_task(self._serve(reader, writer))
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(self._deadline_seconds):
                request_line = await _head(reader)
            status, content_type, body = await self._special(request_line, writer) or self._answer(request_line)
            async with asyncio.timeout(self._deadline_seconds):
                writer.write(_response(status, content_type, body))
                self._served += 1
                writer.close()
                await writer.wait_closed()
        except (OSError, EOFError, TimeoutError):
            pass  # the client left, or took too long
        finally:
            writer.transport.abort()

    async def _special(self, request_line: bytes | None, writer: asyncio.StreamWriter) -> _Answer | None:
        """The answers that do something or wait; None for the pages."""
        pages = self._pages
        request = _REQUEST_LINE.fullmatch(request_line or b"")
        match request.groups() if request is not None else ():
            case (b"POST", b"/drain") if pages.drain is not None:
                peer = writer.get_extra_info("peername")
                if not (peer and _LOOPBACK.fullmatch(str(peer[0]))):
                    return _error(403, "only from this machine or pod")
                pages.drain()
                return 200, _TEXT, b"draining\n"
            case (b"GET", b"/drained") if pages.drained is not None:
                if self._waiting >= MAX_WAITING:
                    return _error(503, "enough are waiting")
                self._waiting += 1
                try:
                    done = await pages.drained()
                finally:
                    self._waiting -= 1
                return (200, _TEXT, b"drained\n") if done else _error(503, "not drained in time")
        return None

    def _answer(self, request_line: bytes | None) -> _Answer:
        if request_line is None:
            return _error(431, "the request head is too long")
        request = _REQUEST_LINE.fullmatch(request_line)
        if request is None:
            return _error(400, "not an HTTP/1 request")
        if request[1] != b"GET":
            return _error(405, "only GET is answered here")
        target = request[2].decode("ascii")
        try:
            return self._pages.answer(target)
        except Exception:  # noqa: BLE001 - a page reaches into every part; whatever fails there must not end the listener
            _LOG.exception("admin page failed path=%s", target.partition("?")[0][:128])
            return _error(500, "the page failed; the log says why")


async def _head(reader: asyncio.StreamReader) -> bytes | None:
    """The request line, once the whole head is there; None if that is too long. Raises `EOFError` if the client left."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError:
        return None
    return head.partition(b"\r\n")[0]


def _response(status: int, content_type: str, body: bytes) -> bytes:
    head = (
        f"HTTP/1.1 {status} {_REASONS[status]}\r\ncontent-type: {content_type}\r\ncontent-length: {len(body)}\r\n"
        "cache-control: no-store\r\nx-content-type-options: nosniff\r\nconnection: close\r\n\r\n"
    )
    return head.encode("ascii") + body


def _page(value: object, absent: str) -> _Answer:
    if value is None:
        return _error(404, absent)
    return 200, _JSON, value if isinstance(value, bytes) else msgspec.json.encode(value)


def _error(status: int, message: str) -> _Answer:
    return status, _JSON, msgspec.json.encode({"error": message})
