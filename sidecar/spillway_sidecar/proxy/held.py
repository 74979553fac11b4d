"""A stream that is held for a first replica: its client hears comments meanwhile, so that neither it nor what is between us gives up.

The first of them takes the reply's head with it. From then on the reply is a stream of events that we frame, whatever comes: the
replica's own events, or one that tells of a failure, with no `[DONE]`.
"""

from __future__ import annotations

from typing import Final

from spillway_sidecar.proxy.attempt import RouteExchange
from spillway_sidecar.proxy.call import OVER, STREAMING
from spillway_sidecar.proxy.errors import Outcome, Refusal, error_event, upstream_error_event
from spillway_sidecar.proxy.framing import as_chunk
from spillway_sidecar.proxy.heads import Fields, ResponseHead
from spillway_sidecar.proxy.upstream import Target
from spillway_sidecar.routing.classify import Facts
from spillway_sidecar.routing.table import CompiledRoute, CompiledRule
from spillway_sidecar.scheduling.pool import Pool

HEARTBEAT_SECONDS: Final = 5.0
COMMENT: Final = b": waiting\n\n"
MAX_ERROR_BYTES: Final = 64 * 1024
_BEAT: Final = as_chunk(COMMENT)
_HEAD: Final = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\ntransfer-encoding: chunked\r\nx-request-id: %b\r\n%b\r\n"
_HEAD_IS_OUT: Final = b"-"
_NONE: Final = b""


class HeldExchange(RouteExchange):
    """A stream at a backend that scales. `_begun`: its head has gone out. `_error`: what an engine says of an error, so far."""

    __slots__ = ("_beat_at", "_begun", "_error")

    _beat_at: float
    _begun: bool
    _error: bytes | None

    def begin(
        self,
        facts: Facts,
        body: bytes,
        route: CompiledRoute[Pool[Target]],
        rule: CompiledRule[Pool[Target]],
        fields: Fields,
    ) -> None:
        """As any request."""
        self._begun = False
        self._beat_at = self.started + HEARTBEAT_SECONDS
        self._error = None
        super().begin(facts, body, route, rule, fields)

    def wait(self, now: float) -> None:
        """Tells the client that it is still waited for."""
        ticket = self.ticket
        if ticket is None or not ticket.waits:
            super().wait(now)
        elif self.held and now >= self._beat_at and self.http11:
            self._beat_at = now + HEARTBEAT_SECONDS
            data = _BEAT
            if not self._begun:
                self._begun = True
                self.keep_alive = self.keep_alive and not self.site.draining
                self.status = 200
                data = _HEAD % (self.request_id, _NONE if self.keep_alive else b"connection: close\r\n") + _BEAT
            if not self.client.transport.get_write_buffer_size():
                self.client.transport.write(data)

    # --- the reply

    def replied(self, head: ResponseHead) -> bool:
        """Once ours is out, the reply's head has no place. What is no stream is not for this client."""
        if not self._begun:
            return super().replied(head)
        if not self.accept(head):
            return False
        self.status = head.status
        self.unframed = self.reframed = True
        self._length, self._tail = -2, b"\n\n"  # what goes out is text that we chunk, and so far ended with an event
        if head.status >= 400:
            self._error = _NONE
            return True
        if head.fields.get(b"content-type", _NONE)[:17].lower() != b"text/event-stream":
            self.let_go()
            self._attempt_failed(Outcome.UPSTREAM_ERROR, blame=True, status=head.status)
            return False
        self.events = True
        self._head_out = _HEAD_IS_OUT
        return True

    def _first_byte(self) -> bytes:
        head = super()._first_byte()
        return _NONE if self._begun else head

    def relay(self, data: bytes) -> None:
        """Keeps what an engine says of an error until it is whole."""
        if self._error is None:
            super().relay(data)
        elif len(self._error) < MAX_ERROR_BYTES:
            self._error += data

    def completed(self, data: bytes, boundary: int | None = None) -> None:
        """An error is told as an event."""
        if self._error is None:
            super().completed(data, boundary)
            return
        self.upstream = None
        self._end(upstream_error_event(self._error + data), Outcome.UPSTREAM_ERROR)

    def refuse(self, refusal: Refusal, extra: bytes = _NONE) -> None:
        """A status cannot be told any more: an event says what is the matter."""
        if not self._begun or self.state in {STREAMING, OVER}:
            super().refuse(refusal, extra)
            return
        self.let_go()
        self._end(error_event(refusal), refusal.outcome)

    def _end(self, event: bytes, outcome: Outcome) -> None:
        self._over(outcome)
        self.client.transport.write(as_chunk(event) + b"0\r\n\r\n")
        self.client.finished(self.keep_alive and not self.site.draining)
