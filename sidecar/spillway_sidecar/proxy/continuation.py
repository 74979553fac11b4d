"""A stream that goes on at another endpoint when its engine dies, for routes that ask for it: once, and the client sees one stream.

The bytes that go out are kept, up to a bound, and looked at only when the stream has broken off. What the second endpoint sends is
taken apart event by event, so that it has the first one's id and no beginning of its own.
"""

from __future__ import annotations

from typing import Final

from spillway_sidecar.balancing.choose import choose, endpoints
from spillway_sidecar.proxy.call import OVER
from spillway_sidecar.proxy.errors import Outcome, Refusal
from spillway_sidecar.proxy.framing import ChunkCursor, FramingError, event_end
from spillway_sidecar.proxy.heads import ResponseHead
from spillway_sidecar.proxy.held import HeldExchange
from spillway_sidecar.routing.continuation import Heard, continued, hear, rest

MAX_KEPT_BYTES: Final = 256 * 1024
_BROKEN: Final = (Outcome.INTERRUPTED, Outcome.STREAM_IDLE_TIMEOUT)
_NONE: Final = b""


class ContinuedExchange(HeldExchange):
    """`_heard` is set once the stream has broken off, and goes on."""

    __slots__ = ("_first_at", "_heard", "_kept", "_kept_bytes", "_rest")

    _first_at: float
    _heard: Heard | None
    _kept: list[bytes] | None
    _kept_bytes: int
    _rest: bytes

    def keep(self) -> ContinuedExchange:
        """Begins to keep what goes out."""
        self._heard = None
        self._kept = []
        self._kept_bytes = 0
        self._rest = _NONE
        return self

    # --- the first stream

    def relay(self, data: bytes) -> None:
        """Keeps what goes out; of a second stream, gives on what belongs behind that."""
        if self._heard is not None:
            text = self._rest + data
            end = event_end(text)
            self._rest = text[end:]
            self._touched = True
            data = rest(text[:end], self._heard)
            if data:
                super().relay(data)
            return
        if self._kept is not None:
            self._kept.append(data)
            self._kept_bytes += len(data)
            if self._kept_bytes > MAX_KEPT_BYTES:
                self._kept = None
        super().relay(data)

    def _interrupt(self, outcome: Outcome) -> None:
        if self._heard is None and outcome in _BROKEN and self._kept is not None and self._goes_on(outcome):
            return
        super()._interrupt(outcome)

    def _goes_on(self, outcome: Outcome) -> bool:
        """Asks another endpoint for the rest, if the stream, the route and its budget allow; else nothing has changed."""
        site, target = self.router, self.target
        now = site.now = site.clock()
        if (
            target is None
            or self.partial
            or self.unframed
            or not self.http11
            or now >= self.started + self.route.timeouts.request_seconds
        ):
            return False
        heard = hear(self._text())
        body = continued(self.body, self.facts.type, heard) if heard is not None else None
        if heard is None or body is None:
            return False
        elsewhere = (target, *self.tried, *(other for other in endpoints(self.rule) if not other.continues))
        choice = choose(self.rule, self.facts, site, elsewhere, [] if site.decisions is not None else None)
        if choice is None or not self.budget.take():
            return False
        self.blame(target, outcome, self.sent_at)
        if self.backend is not None and self.backend.fallback is not None:
            self.backend.fallback.failed(self, now)
        self._release(now, ok=False)
        self.failures = (*self.failures, outcome.value)
        self.tried = (*self.tried, target)
        self.retries += 1
        self._retrying = True
        self._heard, self._kept, self.body, self._first_at = heard, None, body, self.first_byte_at
        self._length, self._tail = -2, b"\n\n"  # what goes out is text that we chunk, and so far ended with an event
        if self.stats is not None:
            self.stats.retries += 1
        self._go(choice)
        return True

    def _text(self) -> bytes:
        """What has gone out, without its framing."""
        sent = _NONE.join(self._kept or ())
        if self._length != -1:
            return sent
        slices: list[tuple[int, int]] = []
        try:
            ChunkCursor().advance(sent, slices)
        except FramingError:
            return _NONE
        return _NONE.join([sent[a:b] for a, b in slices])

    # --- the second one

    def replied(self, head: ResponseHead) -> bool:
        """The second stream has no head for the client."""
        if self._heard is None:
            return super().replied(head)
        if not self.accept(head):
            return False
        if not head.events:
            self.let_go()
            self._attempt_failed(Outcome.UPSTREAM_ERROR, blame=True, status=head.status)
            return False
        self.unframed = self.reframed = True
        return True

    def _first_byte(self) -> bytes:
        head = super()._first_byte()
        return head if self._heard is None else _NONE

    def streaming(self) -> None:
        """The client has had its first byte long ago."""
        if self._heard is None:
            super().streaming()
            return
        now, self.first_byte_at = self.first_byte_at, self._first_at
        self.deadline = self.started + self.route.timeouts.request_seconds
        self._settle()
        target = self.target
        if self._awaits and target is not None:
            self._awaits = False
            target.arrived(self.cost)
            target.replied_at = now
            if self._turn is not None:
                self._turn.served(self.cost, now)
        if self.backend is not None and self.backend.fallback is not None:
            self.backend.fallback.answered(self, now)

    def refuse(self, refusal: Refusal, extra: bytes = _NONE) -> None:
        """Something has gone out: there is no other answer any more."""
        if self._heard is None or self.state == OVER:
            super().refuse(refusal, extra)
        else:
            self.let_go()
            super()._interrupt(Outcome.INTERRUPTED)
