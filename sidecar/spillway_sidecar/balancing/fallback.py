"""Leaving a priority that has become worse than the rule allows, and coming back to it.

    in use  --worse than the bound-->  left  --probes succeed-->  returning  --share grows to all-->  in use
                                        ^                            |
                                        +------worse again-----------+

The evidence is this router's own: attempts that it made at this priority in the last seconds, with a minimum of them so that one
failure is no rate. A request that has waited past the latency bound counts as slow there and then, before it is answered: an
engine that says nothing is met within the bound and not within the client's patience. So the switch comes with the sample that
makes the evidence: the next request goes elsewhere.

While a priority is left, one request at a time is let through as a probe each `PROBE_SECONDS`; a probe that fails doubles the pause. After
`PROBES_TO_RETURN` good ones in a row the share grows over `RETURN_SECONDS`, on evidence of its own: what went bad under load is met
again at a part of the load.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Final

from spillway_sidecar.balancing.diversion import Diversion
from spillway_sidecar.balancing.evidence import Evidence
from spillway_wire.names import DiversionCause

MIN_SAMPLES: Final = 10
MIN_BAD: Final = 3  # below that it may be chance, whatever the share
SLOW_SHARE: Final = 0.05  # of the 95th percentile
PROBE_SECONDS: Final = 0.5
PROBE_MAX_SECONDS: Final = 8.0
PROBES_TO_RETURN: Final = 5
RETURN_SECONDS: Final = 5.0
RETURN_FIRST_SHARE: Final = 0.1


class Fallback:
    """The state of one priority of one rule at one router. `because` is set while it is left, wholly or in part."""

    __slots__ = (
        "_evidence", "_good_probes", "_pause_seconds", "_probe_at", "_since", "_waiting", "because", "error_ratio", "latency_seconds", "left_total",
        "returning",
    )  # fmt: skip

    def __init__(self, error_ratio: float | None, latency_seconds: float | None) -> None:
        self.error_ratio = error_ratio
        self.latency_seconds = latency_seconds
        self.because: Diversion | None = None
        self.returning = False
        self.left_total = 0
        self._evidence = Evidence()
        self._waiting: dict[Hashable, float] = {}  # attempts without an answer, oldest first: when they were sent
        self._since = 0.0  # when it was left, or began to return
        self._pause_seconds = PROBE_SECONDS
        self._probe_at = 0.0
        self._good_probes = 0

    # --- the choice

    def passes(self, now: float, random: Callable[[], float], *, retry: bool = False) -> bool:
        """Whether a request may go to this priority. A retry is no probe: it has failed once."""
        if self._waiting:
            self.sweep(now)
        if self.because is None:
            return True
        if self.returning:
            share = RETURN_FIRST_SHARE + (now - self._since) / RETURN_SECONDS
            if share >= 1.0:
                self.because = None
                self.returning = False
                return True
            return random() < share
        if retry or now < self._probe_at:
            return False
        self._probe_at = now + self._pause_seconds
        return True

    # --- what comes of attempts

    def sent(self, attempt: Hashable, now: float) -> None:
        """An attempt goes out."""
        self._waiting[attempt] = now

    def answered(self, attempt: Hashable, now: float) -> None:
        """Its first byte has come."""
        sent = self._waiting.pop(attempt, None)
        if sent is None:
            return  # counted as slow already
        slow = self.latency_seconds is not None and now - sent > self.latency_seconds
        self._take(now, sent, slow=slow)

    def failed(self, attempt: Hashable, now: float) -> None:
        """It failed: unanswered, or in the midst of its answer."""
        sent = self._waiting.pop(attempt, None)
        if sent is None:
            self._evidence.add(now, samples=0, failed=1)  # as an attempt it is counted already
            self._judge(now)
        else:
            self._take(now, sent, failed=True)

    def withdrawn(self, attempt: Hashable) -> None:
        """The client left, or it was refused for want of room: that says nothing."""
        self._waiting.pop(attempt, None)

    def sweep(self, now: float) -> None:
        """Counts those that have waited for too long as slow. Called with each request, and several times a second."""
        latency = self.latency_seconds
        if latency is None:
            return
        late = []
        for attempt, sent in self._waiting.items():
            if now - sent <= latency:
                break
            late.append(attempt)
        for attempt in late:
            self._take(now, self._waiting.pop(attempt), slow=True)

    def _take(self, now: float, sent: float, *, failed: bool = False, slow: bool = False) -> None:
        if self.because is not None and sent < self._since:
            return  # from before: it says what is known
        if self.because is not None and not self.returning:
            self._probed(now, good=not failed and not slow)
            return
        self._evidence.add(now, failed=failed, slow=slow)
        self._judge(now)

    def _judge(self, now: float) -> None:
        evidence = self._evidence
        evidence.forget(now)
        samples = evidence.samples
        if samples < MIN_SAMPLES or (self.because is not None and not self.returning):
            return
        if self.error_ratio is not None and evidence.failed >= MIN_BAD and evidence.failed > self.error_ratio * samples:
            self._leave(now, Diversion(DiversionCause.ERROR_RATE, min(1.0, evidence.failed / samples), self.error_ratio))
        elif self.latency_seconds is not None and evidence.slow >= MIN_BAD and evidence.slow > SLOW_SHARE * samples:
            self._leave(now, Diversion(DiversionCause.LATENCY, evidence.slow / samples, self.latency_seconds))

    def _leave(self, now: float, because: Diversion) -> None:
        if self.because is None:
            self.left_total += 1
            self._pause_seconds = PROBE_SECONDS
        else:
            self._pause_seconds = min(2 * self._pause_seconds, PROBE_MAX_SECONDS)
        self.because = because
        self.returning = False
        self._since = now
        self._probe_at = now + self._pause_seconds
        self._good_probes = 0
        self._evidence.clear()

    def _probed(self, now: float, *, good: bool) -> None:
        if not good:
            self._good_probes = 0
            self._pause_seconds = min(2 * self._pause_seconds, PROBE_MAX_SECONDS)
            self._probe_at = now + self._pause_seconds
            return
        self._good_probes += 1
        if self._good_probes == 1 and self._pause_seconds > PROBE_SECONDS:
            self._pause_seconds = PROBE_SECONDS
            self._probe_at = min(self._probe_at, now + PROBE_SECONDS)
        if self._good_probes >= PROBES_TO_RETURN:
            self.returning = True
            self._since = now
            self._evidence.clear()

    def info(self) -> dict[str, object]:
        """State and evidence."""
        return {
            "state": "in use" if self.because is None else "returning" if self.returning else "left",
            "because": self.because.text() if self.because is not None else None,
            "samples": self._evidence.samples,
            "failed": self._evidence.failed,
            "slow": self._evidence.slow,
            "waiting": len(self._waiting),
            "left_total": self.left_total,
        }
