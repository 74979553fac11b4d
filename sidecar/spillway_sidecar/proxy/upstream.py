"""Connections to endpoints: the protocol that reads replies, and each endpoint's stack of idle connections.

The newest idle connection is taken first, so that those that are not needed grow old and are closed. A connection that
broke before it answered a byte, and had been used before, is nobody's failure: the request goes again on a fresh one.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import TYPE_CHECKING, Any, Final

from spillway_sidecar.proxy.dial import AddressRefusedError, dial_outside
from spillway_sidecar.proxy.errors import Outcome
from spillway_sidecar.proxy.framing import (
    CHUNKED_EVENT_ENDS,
    EVENT_ENDS,
    ChunkCursor,
    FramingError,
    as_chunk,
    event_end,
    whole_chunks,
)
from spillway_sidecar.proxy.head import parse_response
from spillway_sidecar.proxy.heads import ResponseHead
from spillway_sidecar.proxy.repeated import RepeatedReply, remembered_reply
from spillway_sidecar.scheduling.speed import ClusterSpeed
from spillway_sidecar.scheduling.state import EndpointState
from spillway_wire.names import RequestType

if TYPE_CHECKING:
    from spillway_sidecar.proxy.call import Call

IDLE_SECONDS: Final = 60.0
MAX_IDLE: Final = 1024
MAX_INTERIM: Final = 8
MAX_HELD_BYTES: Final = 65_536

# _BETWEEN: a chunked reply of which nothing is held or half read; _CHUNKED: one that the cursor follows.
CERTIFICATE_REFUSED: Final = "CertificateRefused"
TLS_FAILED: Final = "TLSFailed"
KEY_REFUSED: Final = "KeyRefused"
ADDRESS_REFUSED: Final = "AddressRefused"

_IDLE, _HEAD, _LENGTH, _BETWEEN, _CHUNKED, _UNTIL_CLOSE, _DEAD = range(7)
_NONE: Final = b""


class Target(EndpointState):
    """An endpoint with its address, its request heads made ready, and its idle connections."""

    __slots__ = ("allowed_networks", "continues", "external", "heads", "host", "idle", "port", "server_name", "tls")

    def __init__(self, id_: str, host: str, port: int, inbound: bool, speed: ClusterSpeed) -> None:
        super().__init__(id_, inbound, speed)
        self.host = host
        self.port = port
        self.continues = False  # its server can be told to go on with an answer that has begun
        self.external = False
        self.allowed_networks: tuple[str, ...] = ()  # where an external one's addresses may be beside the public internet
        self.tls: ssl.SSLContext | None = None
        self.server_name: str | None = None
        self.heads: dict[RequestType, bytes] = {}
        self.idle: list[Upstream] = []

    async def dial(self) -> Upstream:
        """A fresh connection. Raises OSError; `ssl.SSLError` among them where TLS is what fails."""
        try:
            if self.external:
                outside: Upstream = await dial_outside(
                    self._protocol,
                    self.host,
                    self.port,
                    tls=self.tls,
                    server_name=self.server_name,
                    allowed=self.allowed_networks,
                )
                return outside
            made: tuple[object, Upstream] = await asyncio.get_running_loop().create_connection(self._protocol, self.host, self.port)
        except ssl.SSLCertVerificationError as error:
            self.trouble = (
                CERTIFICATE_REFUSED,
                f"the certificate of {self.host}:{self.port} is not trusted: {error.verify_message}",
            )
            raise
        except ssl.SSLError as error:
            self.trouble = (TLS_FAILED, f"no TLS with {self.host}:{self.port}: {error.reason}")
            raise
        except AddressRefusedError as error:
            self.trouble = (ADDRESS_REFUSED, str(error))
            raise
        return made[1]

    def _protocol(self) -> Any:
        """An `Upstream`, which is an `asyncio.Protocol` in all but name: a compiled class has no base that is not."""
        return Upstream(self)

    def close_idle(self, older_than: float | None = None) -> None:
        """Closes idle connections: all, or those idle since before `older_than`."""
        while self.idle and (older_than is None or self.idle[0].idle_since < older_than):
            self.idle.pop(0).abort()

    def info(self) -> dict[str, object]:
        """The picture, with the address and connections."""
        return {**super().info(), "address": f"{self.host}:{self.port}", "idle_connections": len(self.idle)}


class Upstream:
    """One connection to an endpoint; carries one exchange at a time."""

    __slots__ = (
        "_buffer",
        "_cursor",
        "_held",
        "_interim",
        "_keep",
        "_known",
        "_left",
        "_state",
        "answered",
        "exchange",
        "idle_since",
        "target",
        "transport",
        "used",
    )

    def __init__(self, target: Target) -> None:
        self.target = target
        self.transport: asyncio.Transport = None  # type: ignore[assignment]
        self.exchange: Call | None = None
        self.used = False  # carried a request before this one
        self.answered = False  # a byte has come for this one
        self.idle_since = 0.0
        self._state = _IDLE
        self._buffer = _NONE
        self._left = 0
        self._cursor: ChunkCursor | None = None
        self._held = _NONE
        self._keep = True
        self._known: RepeatedReply | None = None
        self._interim = 0

    def send(self, exchange: Call, data: bytes) -> None:
        """Sends a request; its reply goes to `exchange`."""
        self.exchange = exchange
        self.answered = False
        self._state = _HEAD
        self._interim = 0
        self.transport.write(data)

    def spare(self, exchange: Call) -> None:
        """The reply whose head has come is not wanted, and has no body: the connection may carry another request."""
        self._release(exchange)

    def abort(self) -> None:
        """Ends the connection at once: the engine on the other side stops working for it."""
        self._state = _DEAD
        self.exchange = None
        self._buffer = self._held = _NONE
        if self.transport is not None:
            self.transport.abort()

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def connection_lost(self, exc: Exception | None) -> None:
        state, self._state = self._state, _DEAD
        if state == _IDLE:
            with contextlib.suppress(ValueError):
                self.target.idle.remove(self)
            return
        exchange = self.exchange
        if exchange is None:
            return
        if state == _UNTIL_CLOSE and exc is None:
            self.exchange = None
            exchange.completed(_NONE)
            return
        self.exchange = None
        exchange.lost(self, Outcome.RESET)

    def eof_received(self) -> bool:
        return False

    def data_received(self, data: bytes) -> None:
        state = self._state
        exchange = self.exchange
        if exchange is None:
            if state != _DEAD:
                self._forget()  # nobody asked: bytes on an idle connection are not ours to read
            return
        if state == _HEAD:
            self.answered = True
            self._head(exchange, self._buffer + data if self._buffer else data)
        elif state == _BETWEEN and whole_chunks(data) and (data.endswith(CHUNKED_EVENT_ENDS) or not exchange.events):
            exchange.relay(data)  # what a stream of events is nearly always made of
        elif data:
            self._body(exchange, data)

    # --- reading one reply

    def _head(self, exchange: Call, data: bytes) -> None:
        head = self._known.again(data) if self._known is not None else None
        if head is None:
            try:
                head = parse_response(data)
            except ValueError:
                self._broken(exchange)
                return
            if head is None:
                self._buffer = data
                return
            self._known = remembered_reply(data, head)
        self._buffer = _NONE
        if head.status < 200:
            self._interim_head(exchange, head, data)
            return
        self._keep = head.keep_alive
        if not exchange.replied(head):
            return  # the exchange has let go of this connection
        body = data[head.length :]
        length = head.content_length
        if length > 0:
            self._state = _LENGTH
            self._left = length
            if body:
                self._length(exchange, body)
        elif length == 0:
            self._finish(exchange, body)
        else:
            if length == -1:
                self._state = _CHUNKED
                self._cursor = ChunkCursor()
            else:
                self._state = _UNTIL_CLOSE
            if body:
                self._body(exchange, body)

    def _interim_head(self, exchange: Call, head: ResponseHead, data: bytes) -> None:
        self._interim += 1
        if head.status == 101 or self._interim > MAX_INTERIM:
            self._broken(exchange)
            return
        exchange.interim(head)
        rest = data[head.length :]
        if rest and self.exchange is exchange:
            self._head(exchange, rest)

    def _body(self, exchange: Call, data: bytes) -> None:
        """Bytes behind the head, which has said how they are framed."""
        state = self._state
        if state == _LENGTH:
            self._length(exchange, data)
        elif state == _UNTIL_CLOSE:
            exchange.relay(data)
        elif exchange.unframed:
            self._unframed(exchange, data)
        else:
            self._chunked(exchange, data)

    def _length(self, exchange: Call, data: bytes) -> None:
        size = len(data)
        left = self._left
        if size < left:
            self._left = left - size
            exchange.relay(data)
            return
        if size > left:
            self._keep = False  # more than it declared: not to be used again
            data = data[:left]
        self._release(exchange)
        exchange.completed(data)

    def _chunked(self, exchange: Call, data: bytes) -> None:
        cursor = self._cursor
        assert cursor is not None  # noqa: S101
        slices: list[tuple[int, int]] | None = [] if exchange.events else None
        between = cursor.whole and not self._held
        try:
            end = cursor.advance(data, slices)
        except FramingError:
            self._broken(exchange)
            return
        if cursor.done and end < len(data):
            self._keep = False
            data = data[:end]
        text = _NONE if slices is None else _NONE.join([data[a:b] for a, b in slices])
        if slices is not None and not (between and text.endswith(EVENT_ENDS) and (cursor.done or cursor.boundary == len(data))):
            self._events(exchange, cursor, text)
        elif cursor.done:
            self._release(exchange)
            exchange.completed(data, cursor.boundary)
        else:
            exchange.partial = not cursor.whole
            self._state = _BETWEEN if cursor.whole else _CHUNKED
            exchange.relay(data)

    def _events(self, exchange: Call, cursor: ChunkCursor, text: bytes) -> None:
        """Part of a stream whose chunks do not end where events do: chunked anew, event by event.

        So events go out whole, and an engine that dies leaves no half of one behind. One that is very large passes in parts.
        """
        if self._held:
            text = self._held + text
        end = event_end(text)
        if cursor.done:
            self._held = _NONE
            self._release(exchange)
            chunks = as_chunk(text[:end]) + as_chunk(text[end:])
            exchange.completed(chunks + b"0\r\n\r\n", len(chunks))
            return
        if not end and len(text) > MAX_HELD_BYTES:
            end = len(text)
        self._held = text[end:]
        self._state = _BETWEEN if cursor.whole and not self._held else _CHUNKED
        if end:
            exchange.relay(as_chunk(text[:end]))

    def _unframed(self, exchange: Call, data: bytes) -> None:
        """A chunked reply for a client that does not know chunks."""
        cursor = self._cursor
        assert cursor is not None  # noqa: S101
        slices: list[tuple[int, int]] = []
        try:
            end = cursor.advance(data, slices)
        except FramingError:
            self._broken(exchange)
            return
        rest = len(data) - end
        data = _NONE.join([data[a:b] for a, b in slices])
        if cursor.done:
            if rest:
                self._keep = False
            self._release(exchange)
            exchange.completed(data)
        elif data:
            exchange.relay(data)

    def _finish(self, exchange: Call, extra: bytes) -> None:
        if extra:
            self._keep = False
        self._release(exchange)
        exchange.completed(_NONE)

    def _release(self, exchange: Call) -> None:
        """The reply is whole: keep the connection for the next request, if both sides allow it."""
        self.exchange = None
        self._cursor = None
        target = self.target
        if self._keep and len(target.idle) < MAX_IDLE and not target.draining:
            self._state = _IDLE
            self.used = True
            self.idle_since = exchange.site.now
            target.idle.append(self)
        else:
            self._state = _DEAD
            self.transport.close()

    def _broken(self, exchange: Call) -> None:
        self.abort()
        exchange.lost(self, Outcome.PROTOCOL)

    def _forget(self) -> None:
        if self in self.target.idle:
            self.target.idle.remove(self)
        self.abort()
