"""The life of one request between a client and an endpoint.

    choosing -> connecting -> waiting -> streaming -> over

The base class relays: it answers `Upstream`'s events, keeps the client's back-pressure, counts events and keeps a short
tail to read `usage` and the stream's end from, and tells complete from interrupted. Where the request goes and what is
counted is for the subclasses (`RouteExchange`, `InboundExchange`), which implement `begin`, `failed` and `account`.

The head of a reply is held until the first byte of its body: until then nothing has gone out, and the request may still go
elsewhere. `over` is reached exactly once, on whatever way out; it releases all that the exchange holds.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from spillway_sidecar.proxy.call import OVER, STREAMING, WAITING, Call
from spillway_sidecar.proxy.errors import Outcome, Refusal, interrupted_event
from spillway_sidecar.proxy.framing import EVENT_ENDS, whole_events
from spillway_sidecar.proxy.heads import DROPPED, Fields, RequestHead, ResponseHead
from spillway_sidecar.proxy.tail import TAIL_BYTES, usage, whole_stream

if TYPE_CHECKING:
    from spillway_sidecar.proxy.downstream import Downstream
    from spillway_sidecar.proxy.listener import Listener
    from spillway_sidecar.proxy.upstream import Upstream

_NONE: Final = b""
_CRLF: Final = b"\r\n"

_DROPPED_LINES: Final = re.compile(rb"(?im)^(?:" + rb"|".join(re.escape(name) for name in sorted(DROPPED)) + rb"):[^\r]*\r\n")
_FRAMING_LINES: Final = re.compile(rb"(?im)^(?:content-length|transfer-encoding):[^\r]*\r\n")
_STATUS_LINES: Final = {status.value: b"HTTP/1.1 %d %s\r\n" % (status.value, status.phrase.encode()) for status in HTTPStatus}
_TOLD: Final = b'"code":"stream_interrupted"'

# What a client's request passes on, besides `accept` and `user-agent` and what we write ourselves.
PASSED: Final = (b"traceparent", b"tracestate")

_OK: Final = Outcome.OK


class Exchange(Call):
    """One request. `deadline` is when the sweep calls `expire`; 0 is never."""

    __slots__ = (
        "_head_out", "_idle_since", "_length", "_tail", "_touched", "client", "deadline", "first_byte_at", "http11", "keep_alive", "output_events",
        "passed", "reframed", "request_id", "started", "status",
    )  # fmt: skip

    def __init__(self, site: Listener, client: Downstream, request: RequestHead, request_id: bytes, now: float) -> None:
        super().__init__(site)
        self.client = client
        self.http11 = request.http11
        self.keep_alive = request.keep_alive
        if request.passed is None:
            request.passed = _passed(request.fields)
        self.passed = request.passed
        self.request_id = request_id
        self.started = now
        self.deadline = 0.0
        self.status = 0
        self.first_byte_at = 0.0
        self.reframed = False  # the engine ends its reply by closing: chunked framing is put on
        self.output_events = 0
        self._tail = _NONE
        self._touched = False
        self._idle_since = 0.0
        self._head_out = _NONE
        self._length = 0  # of the reply, as its head says: bytes, -1 chunked, -2 until the connection closes
        client.exchange = self

    # --- for subclasses

    def accept(self, head: ResponseHead) -> bool:
        """Whether this reply is to be given to the client; False: the subclass went elsewhere and let the connection go."""
        raise NotImplementedError

    def account(self, outcome: Outcome) -> None:
        """Counts the request out and releases what it holds. Called once."""
        raise NotImplementedError

    def reply_fields(self, status: int) -> bytes:
        """Further header lines of the reply, each with its CRLF."""
        raise NotImplementedError

    # --- upstream's events

    def replied(self, head: ResponseHead) -> bool:
        """The final head has come. False: the connection is not read for this exchange any more."""
        if not self.accept(head):
            return False
        blob = head.raw_fields
        if not head.plain:
            blob = _without_nominated(_DROPPED_LINES.sub(_NONE, blob), head.fields.get(b"connection", _NONE))
        self.events = head.events
        if self.site.draining:
            self.keep_alive = False
        closing = _NONE if self.keep_alive else b"connection: close\r\n"
        status = self.status = head.status
        length = self._length = head.content_length
        if length <= 0:
            if status in {204, 304}:
                blob = _FRAMING_LINES.sub(_NONE, blob)
            if length == -2:
                self.reframed = self.http11
                closing = closing + b"transfer-encoding: chunked\r\n" if self.http11 else b"connection: close\r\n"
            elif length == -1 and not self.http11:
                self.unframed = True
                blob = _FRAMING_LINES.sub(_NONE, blob)
                closing = b"connection: close\r\n"
        line = _STATUS_LINES.get(status) or b"HTTP/1.1 %d Status\r\n" % status
        self._head_out = b"".join((line, blob, closing))
        return True

    def relay(self, data: bytes) -> None:
        """Passes bytes of the reply's body on as they came."""
        self._touched = True
        if self.events:
            self.output_events += data.count(b"data:")
        if len(data) >= TAIL_BYTES:
            self._tail = data[-TAIL_BYTES:]
        else:
            tail = self._tail + data
            self._tail = tail if len(tail) <= 2 * TAIL_BYTES else tail[-TAIL_BYTES:]
        if self.reframed:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        if self.state == WAITING:
            data = self._first_byte() + data
        self.client.transport.write(data)

    def _first_byte(self) -> bytes:
        """The held head, which goes out with the first byte of the body, with what is to be said at this moment."""
        self.first_byte_at = self._idle_since = self.site.clock()
        self.state = STREAMING
        self.deadline = 0.0
        head, self._head_out = self._head_out, _NONE
        self.streaming()
        return head + self.reply_fields(self.status) + _CRLF

    def streaming(self) -> None:
        """The first byte is about to go out."""

    def completed(self, data: bytes, boundary: int | None = None) -> None:
        """The reply has ended as its framing says. `data` is its rest; `boundary` the offset of the last chunk in it."""
        self.upstream = None  # before anything is written: the connection may be idle by now, and not ours to pause
        if self.events and not self._whole_stream(data):
            rest = data[:boundary]
            if self._length == -1 and self.http11:
                rest = whole_events(rest)
            elif self._length > 0:
                rest = rest[:-1]  # with all that was announced it would look whole
            if self._head_out and not rest:
                self.failed(Outcome.RESET, reused=False)
                return
            if rest:
                self.relay(rest)
            self._interrupt(Outcome.INTERRUPTED)
            return
        if self.state == WAITING and data and not self.reframed:
            self._at_once(data)
        elif data:
            self.relay(data)
        elif self._head_out:
            self._head_only()
        if self.reframed:
            self.client.transport.write(b"0\r\n\r\n")
        self._over(_OK if self.status < 400 else Outcome.UPSTREAM_ERROR)
        self.client.finished(self.keep_alive and self.http11)

    def _at_once(self, data: bytes) -> None:
        """The whole body in one piece: its end needs not be kept apart."""
        self._tail = data
        if self.events:
            self.output_events = data.count(b"data:")
        self.client.transport.write(self._first_byte() + data)

    def _head_only(self) -> None:
        self.first_byte_at = self.site.clock()
        head, self._head_out = self._head_out, _NONE
        self.state = STREAMING
        self.client.transport.write(head + self.reply_fields(self.status) + _CRLF)

    def _whole_stream(self, data: bytes) -> bool:
        """A stream is whole only with its end; an error's body needs none."""
        if self.status >= 400:
            return True
        return whole_stream(self._tail + data[-TAIL_BYTES:], chunked=self._length == -1 and not self.unframed)

    def lost(self, upstream: Upstream, outcome: Outcome) -> None:
        """The connection broke, or what came on it was no HTTP."""
        if self.state == OVER or upstream is not self.upstream:
            return
        self.upstream = None
        if self.state == STREAMING:
            self._interrupt(Outcome.INTERRUPTED)
        else:
            self.failed(outcome, reused=upstream.used and not upstream.answered)

    def _interrupt(self, outcome: Outcome) -> None:
        """Ends a reply that broke off after its first byte, so that the client can tell: by an event where one fits, else by a cut."""
        self._over(outcome)
        sent = self._tail
        if self._length == -1 and self.http11:
            sent = _NONE if self.partial else sent[:-2]  # the payload of the last chunk
        if self.events and self._length < 0 and sent.endswith(EVENT_ENDS):
            told = _TOLD in sent  # by a proxy behind us
            event = _NONE if told else interrupted_event(outcome)
            if self.http11:
                self.client.transport.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(event), event) if event else b"0\r\n\r\n")
                self.client.finished(self.keep_alive)
                return
            if event:
                self.client.transport.write(event)
            self.client.cut()
            return
        self.client.cut(reset=self._length < 0 and not self.http11)

    # --- the client's events

    def pause(self) -> None:
        """The client does not take more for the moment."""
        if self.upstream is not None:
            self.upstream.transport.pause_reading()

    def resume(self) -> None:
        """It does again."""
        if self.upstream is not None:
            self.upstream.transport.resume_reading()

    def client_gone(self) -> None:
        """The client has left: everything done for it stops now."""
        if self.state == OVER:
            return
        self.let_go()
        self._over(Outcome.CLIENT_GONE)

    # --- ends

    def refuse(self, refusal: Refusal, extra: bytes = _NONE) -> None:
        """Answers with an error of ours; nothing has gone out before."""
        if self.state == OVER:
            return
        self.let_go()
        self._over(refusal.outcome)
        self.client.answer(refusal, request_id=self.request_id, keep_alive=self.keep_alive, extra=extra)

    def abandon(self) -> None:
        """Something of ours has failed: gives back what it holds. The client is told by who calls."""
        if self.state != OVER:
            self.let_go()
            self._over(Outcome.INTERNAL)

    def _over(self, outcome: Outcome) -> None:
        self.state = OVER
        self.deadline = 0.0
        self._head_out = _NONE
        self.account(outcome)

    def cut_off(self, outcome: Outcome, message: str) -> None:
        """There is no more time for it: a stream ends as an interrupted one does, a request without an answer gets one."""
        if self.state == STREAMING:
            self.let_go()
            self._interrupt(outcome)
        else:
            self.refuse(Refusal(503, outcome, message, retry_after=1))

    # --- the sweep

    def sweep(self, now: float) -> None:
        """Looks for a stream that has gone silent; leaves one that has not begun to `wait`."""
        if self.state != STREAMING:
            if self.state != OVER:
                self.wait(now)
            return
        if self._touched:
            self._touched = False
            self._idle_since = self.target.replied_at = now  # type: ignore[union-attr]
        elif now - self._idle_since > self.idle_limit() and not self.client.transport.get_write_buffer_size():
            self.let_go()
            self._interrupt(Outcome.STREAM_IDLE_TIMEOUT)

    def wait(self, now: float) -> None:
        """Nothing of the reply's body has come yet."""

    def idle_limit(self) -> float:
        """Seconds a stream may be silent."""
        raise NotImplementedError

    def expire(self, now: float) -> None:
        """`deadline` has passed."""
        raise NotImplementedError

    # --- what the reply said

    def usage(self) -> tuple[int | None, int | None]:
        """Prompt and completion tokens as the engine counted them, where the reply's end tells."""
        return usage(self._tail)


def _without_nominated(blob: bytes, connection: bytes) -> bytes:
    """The head's lines without those that its Connection header names as hop by hop; its framing is not to be named."""
    for name in connection.lower().split(b","):
        name = name.strip()  # noqa: PLW2901
        if name and name not in {b"close", b"keep-alive", b"content-length", b"transfer-encoding"}:
            blob = re.sub(rb"(?im)^" + re.escape(name) + rb":[^\r]*\r\n", _NONE, blob)
    return blob


def _passed(fields: Fields) -> bytes:
    """The lines of a client's head that go on upstream."""
    get = fields.get
    accept, agent = get(b"accept"), get(b"user-agent")
    lines = _NONE if accept is None else b"accept: %b\r\n" % accept
    if agent is not None:
        lines += b"user-agent: %b\r\n" % agent
    for name in PASSED:
        if name in fields:
            lines += b"%b: %b\r\n" % (name, fields[name])
    return lines
