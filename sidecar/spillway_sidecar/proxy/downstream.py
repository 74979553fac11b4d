"""Reads requests from a client's connection and hands each, whole, to the site behind the listener.

A request is read to its end before it is routed, since its body names the model. Requests on one connection are answered in
order: what a client pipelines waits, unread beyond a bound, until the reply before it is out and has been taken in. Nothing
here knows where requests go; a `Listener` does. Slow heads and bodies are found by the sweep, which looks at `deadline`.

A connection that ends while its client may still be sending is closed in one direction first and read on for a moment:
closed at once, the kernel would answer the unread bytes with a reset, and the client might never see why it was refused.
"""

from __future__ import annotations

import array
import asyncio
import fcntl
import socket
import struct
import termios
from typing import TYPE_CHECKING, Any, Final

from spillway_sidecar.proxy.compat import parse_mended
from spillway_sidecar.proxy.errors import Outcome, Refusal, error_response, malformed
from spillway_sidecar.proxy.framing import ChunkedBody, FramingError
from spillway_sidecar.proxy.head import body_too_large, parse_request
from spillway_sidecar.proxy.heads import RequestHead
from spillway_sidecar.proxy.repeated import RepeatedRequest, remembered_request

if TYPE_CHECKING:
    from spillway_sidecar.proxy.exchange import Exchange
    from spillway_sidecar.proxy.listener import Listener

WRITE_HIGH_BYTES = 64 * 1024
PIPELINE_BYTES = 64 * 1024
LINGER_SECONDS = 2.0  # for the client to stop sending
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_NONE: Final = b""
_RESET = struct.pack("ii", 1, 0)


def _check_expectation(head: RequestHead) -> None:
    if head.http11 and head.fields[b"expect"].lower() != b"100-continue":
        raise Refusal(417, Outcome.BAD_REQUEST, "This expectation is not supported.", close=True)


class Downstream:
    """One client connection."""

    __slots__ = (
        "_blocked",
        "_body_since",
        "_buffer",
        "_chunked",
        "_closing",
        "_head",
        "_held",
        "_known",
        "_pieces",
        "_read",
        "deadline",
        "exchange",
        "site",
        "transport",
    )

    def __init__(self, site: Listener) -> None:
        self.site = site
        self.transport: asyncio.Transport = None  # type: ignore[assignment]
        self.exchange: Exchange | None = None
        self.deadline = 0.0  # 0: the exchange has its own
        self._buffer = _NONE
        self._head: RequestHead | None = None
        self._known: RepeatedRequest | None = None
        self._pieces: list[bytes] | None = None
        self._chunked: ChunkedBody | None = None
        self._read = 0
        self._held = 0  # bytes of a body half read, as the listener counts them
        self._body_since = 0.0
        self._closing = False
        self._blocked = False  # the client does not take in what was written

    @property
    def busy(self) -> bool:
        """Whether a request is under way or half read."""
        return self.exchange is not None or (not self._closing and (self._head is not None or bool(self._buffer)))

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self.transport.set_write_buffer_limits(high=WRITE_HIGH_BYTES)
        site = self.site
        site.connections.add(self)
        self.deadline = site.clock() + site.head_seconds
        if len(site.connections) > site.max_connections or site.closed:
            self._turn_away()

    def _turn_away(self) -> None:
        """One connection too many."""
        if self.site.too_many_to_tell():
            self._end()
            self.transport.abort()
        else:
            self.refuse(self.site.turned_away())

    def connection_lost(self, exc: Exception | None) -> None:
        self.site.connections.discard(self)
        self._leave()

    def eof_received(self) -> bool:
        self._leave()  # a client that half-closes has left: close, and cancel what it asked for
        self._end()
        return False

    def _leave(self) -> None:
        self._closing = True
        exchange = self.exchange
        if exchange is not None:
            self.exchange = None
            exchange.client_gone()
        self._buffer = _NONE
        self._let_body_go()

    def _let_body_go(self) -> None:
        """Nothing is half read any more."""
        self._head = self._pieces = self._chunked = None
        if self._held:
            self.site.unread_bytes -= self._held
            self._held = 0

    def pause_writing(self) -> None:
        self._blocked = True
        if self.exchange is not None:
            self.exchange.pause()

    def resume_writing(self) -> None:
        self._blocked = False
        if self.exchange is not None:
            self.exchange.resume()
        else:
            self._next()

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        if self.exchange is not None or (self._blocked and self._head is None):
            self._buffer += data
            if len(self._buffer) > PIPELINE_BYTES:
                self.transport.pause_reading()
            return
        if self._head is not None:
            self._body(data)
            return
        if self._buffer:
            data = self._buffer + data
            self._buffer = _NONE
            self._start(data, first=False)
        else:
            self._start(data, first=True)

    # --- reading one request

    def _start(self, data: bytes, *, first: bool) -> None:
        site = self.site
        try:
            limit = site.max_body_bytes
            head = self._known.again(data, limit) if self._known is not None else None
            if head is None:
                head = self._parse(data, limit)
            if head is None:
                self._buffer = data
                if first:
                    self.deadline = site.clock() + site.head_seconds
                return
            if b"expect" in head.fields:
                _check_expectation(head)
            start = head.length
            size = len(data)
            end = start + head.content_length
            if size < end or head.content_length < 0:
                site.precheck(head)
                self._await(head, data[start:])
                return
        except Refusal as refusal:
            self.refuse(refusal)
            return
        if size > end:
            self._buffer = data[end:]
        self._dispatch(head, data[start:end])

    def _parse(self, data: bytes, max_body_bytes: int) -> RequestHead | None:
        compat = self.site.compat
        if compat:
            return parse_mended(data, compat, max_body_bytes=max_body_bytes)
        head = parse_request(data, max_body_bytes=max_body_bytes)
        if head is not None:
            self._known = remembered_request(data, head)
        return head

    def _await(self, head: RequestHead, data: bytes) -> None:
        """The head has come, its body not yet, or not all of it: `data` is its start."""
        site = self.site
        self._body_since = site.clock()
        self.deadline = self._body_since + site.body_seconds
        self._head = head
        self._read = 0
        if head.content_length < 0:
            self._chunked = ChunkedBody(site.max_body_bytes)
        else:
            self._pieces = []
        if data:
            self._body(data)
        elif head.http11 and b"expect" in head.fields:
            self.transport.write(CONTINUE)

    def _body(self, data: bytes) -> None:
        head = self._head
        assert head is not None  # noqa: S101
        self._held += len(data)
        full = self.site.hold(len(data))
        if full is not None:
            self.refuse(full)
            return
        if self._chunked is not None:
            try:
                rest = self._chunked.feed(data)
            except FramingError:
                self.refuse(malformed("The chunked body is malformed."))
                return
            except OverflowError:
                self.refuse(body_too_large(self.site.max_body_bytes))
                return
            self._read = self._chunked.size
            if rest is None:
                self._allow_time()
                return
            body = self._chunked.body()
        else:
            pieces = self._pieces
            assert pieces is not None  # noqa: S101
            need = head.content_length - self._read
            if len(data) < need:
                pieces.append(data)
                self._read += len(data)
                self._allow_time()
                return
            pieces.append(data[:need])
            rest = data[need:]
            body = _NONE.join(pieces)
        self._let_body_go()
        self._buffer = rest
        try:
            self._dispatch(head, body)
        except Refusal as refusal:
            self.refuse(refusal)

    def _allow_time(self) -> None:
        """A body gets its first seconds, then as long as it comes at the least rate."""
        site = self.site
        self.deadline = self._body_since + site.body_seconds + self._read / site.body_bytes_per_second

    def _dispatch(self, head: RequestHead, body: bytes) -> None:
        self.deadline = 0.0
        try:
            self.site.handle(self, head, body)
        except Refusal as refusal:
            self.refuse(refusal, keep_alive=head.keep_alive)
        except Exception as error:  # noqa: BLE001 - a defect of ours: it is logged with its place, and the client is told
            self._defect(error)

    def _defect(self, error: Exception) -> None:
        """Something of ours has failed over a request: what it holds is given back, and its client gets an answer."""
        told = asyncio.get_running_loop().call_exception_handler
        told({"message": "a request met a defect", "exception": error, "transport": self.transport})
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            try:
                exchange.abandon()
            except Exception as further:  # noqa: BLE001 - the client is told all the same
                told({"message": "a request could not be given up", "exception": further, "transport": self.transport})
        self.refuse(Refusal(500, Outcome.INTERNAL, "This proxy has failed over the request.", close=True))

    # --- answering

    def refuse(self, refusal: Refusal, *, request_id: bytes = b"", keep_alive: bool = False, extra: bytes = b"") -> None:
        """Answers with an error; keeps the connection only where both the request's framing and its head allow it."""
        self.site.refused(refusal)
        self.answer(refusal, request_id=request_id, keep_alive=keep_alive, extra=extra)

    def answer(self, refusal: Refusal, *, request_id: bytes, keep_alive: bool, extra: bytes) -> None:
        """`refuse` for a request that has been counted."""
        keep = keep_alive and not refusal.close and not self.site.draining
        if self._closing:
            return
        self.transport.write(error_response(refusal, request_id, close=not keep, extra=extra))
        if keep:
            self.finished(True)
            return
        self._end()
        if self.transport.can_write_eof():
            self.transport.resume_reading()
            self.transport.write_eof()
        else:
            self.transport.close()

    def finished(self, keep_alive: bool) -> None:
        """The reply is out: go on with the next request, or close."""
        self.exchange = None
        if self._closing:
            return
        if not keep_alive:
            self.close()
            return
        self.deadline = self.site.clock() + self.site.idle_seconds
        if self._buffer and not self._blocked:
            asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        if self._closing or self._blocked or self.exchange is not None or self._head is not None or not self._buffer:
            return
        self.transport.resume_reading()
        data, self._buffer = self._buffer, _NONE
        self._start(data, first=True)

    def has_unread(self) -> bool:
        """Whether the kernel holds bytes of the client's that have not been read: closing now would lose a request."""
        unread = array.array("i", [0])
        try:
            fcntl.ioctl(self.transport.get_extra_info("socket").fileno(), termios.FIONREAD, unread)
        except OSError:
            return False
        return unread[0] > 0

    def close(self) -> None:
        """Closes after what was written has gone out."""
        self._end()
        self.transport.close()

    def cut(self, *, reset: bool = False) -> None:
        """Ends the connection so that the client sees its reply is not whole; by a reset where its end is the reply's end."""
        self._end()
        if reset:
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self.transport.abort()
        else:
            self.transport.close()

    def _end(self) -> None:
        """Nothing more is read; what was written goes out as long as the client takes it in."""
        self._closing = True
        self.exchange = None
        self._buffer = _NONE
        self._let_body_go()
        self._read = self.transport.get_write_buffer_size()
        self.deadline = self.site.clock() + (self.site.body_seconds if self._read else LINGER_SECONDS)

    # --- the sweep

    def expire(self, now: float) -> None:
        """Called by the sweep when `deadline` has passed."""
        self.deadline = 0.0
        if self._closing:
            left = self.transport.get_write_buffer_size()
            if left < self._read:
                self._read = left
                self.deadline = now + self.site.body_seconds
            else:
                self.transport.abort()
        elif self._head is not None or self._buffer:
            what = "body" if self._head is not None else "head"
            self.refuse(
                Refusal(
                    408, Outcome.SLOW_CLIENT, f"The request's {what} did not arrive in time.", code="request_timeout", close=True
                )
            )
        elif self.exchange is None:
            self.close()


def accept(site: Listener) -> Any:
    """A new client's `Downstream`, which is an `asyncio.Protocol` in all but name: a compiled class has no base that is not."""
    return Downstream(site)
