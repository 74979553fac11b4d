"""Whether one endpoint may be chosen, and how much its failures weigh: one router's word, from what it met itself.

* **ejected** (down) at once when it cannot be reached, after several failures in a row, when it is silent while others
  answer, or when it succeeds much less often than its peers (`outliers`); for a time that doubles with each ejection. Then
  half open: one probe at a time, and only what was sent since can bring it back or keep it away. Whoever stays up for a
  while is forgiven.
* **away** by its own word (it leaves, or its engine is down), and **limited** while it has asked to be left alone.
* **penalty**: above 1 after failures, so that failing fast never looks attractive. It fades, and ends when an endpoint that
  was ejected answers: the slow start takes over then.
* **doubted**: a failure or two eject nobody, but the penalty alone may keep every other request away for half a minute. So
  an endpoint that has had no success for `DOUBT_SECONDS` after one is half open too: a probe says which it is.

That an endpoint cannot be reached is a fact. The other reasons are judgements, which an overload or a poisonous request may
bring about everywhere at once: by them at most half of those that can be reached are out at a time, the worst ones.

What changes only with time (the fading, the slow start) is folded into one `factor` by `refresh`, which the sweep calls several times
a second.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Final

PENALTY_MAX: Final = 1024.0
PENALTY_STEP: Final = 4.0  # at 2 the home of a prefix, which saves a prefill, went on to look better after a failure
PENALTY_HALF_LIFE_SECONDS: Final = 10.0
AWAY_SECONDS: Final = 1.0  # the interval of reports
DOWN_BASE_SECONDS: Final = 0.5
DOWN_MAX_SECONDS: Final = 10.0
DOWN_AFTER_FAILURES: Final = 3
DOUBT_SECONDS: Final = 1.0
FORGIVEN_AFTER_SECONDS: Final = 30.0  # three times the longest ejection
PAUSE_BASE_SECONDS: Final = 0.25  # for who says 429 and not for how long
PAUSE_MAX_SECONDS: Final = 5.0
LIMITED_MAX_SECONDS: Final = 60.0
SLOW_START_SECONDS: Final = 5.0
SLOW_START_FACTOR: Final = 8.0


class Ejection(enum.StrEnum):
    """Why an endpoint is out."""

    UNREACHABLE = "unreachable"  # no connection, no TLS, no key that it takes
    FAILING = "failing"  # several requests in a row
    SILENT = "silent"  # first tokens are overdue while others answer
    OUTLIER = "success_rate"  # much below its peers


class Peers:
    """The endpoints of one cluster, and how often each reason has put one of them out."""

    __slots__ = ("asked", "ejections", "endpoints")

    def __init__(self, endpoints: Sequence[EndpointHealth] = ()) -> None:
        self.endpoints = endpoints
        self.asked = 0  # how often one of them has been chosen
        self.ejections: dict[Ejection, int] = {}


class EndpointHealth:
    """The health of one endpoint as this router sees it. Mutable, single-threaded; numbers only."""

    __slots__ = (
        "away_until", "blocked", "down_since", "down_until", "draining", "ejected", "ejections", "factor", "failed_at", "failures", "heard_at", "id",
        "limited_until", "pauses", "peers", "penalty", "probing", "recent_bad", "recent_good", "replied_at", "returned_at", "shut", "trouble",
        "waits_overdue", "window_bad", "window_good",
    )  # fmt: skip

    def __init__(self, id_: str) -> None:
        self.id = id_
        self.away_until = 0.0  # it said itself that it takes nothing
        self.blocked = False  # cannot be used at all, e.g. for want of its key
        self.down_since = 0.0
        self.down_until = 0.0
        self.draining = False
        self.ejected: Ejection | None = None
        self.ejections = 0  # since it was last forgiven
        self.factor = 1.0
        self.failed_at = 0.0
        self.failures = 0  # in a row
        self.heard_at = -1e9  # when it last answered anything
        self.limited_until = 0.0  # it has asked to be left alone
        self.pauses = 0  # in a row, for which it did not say how long
        self.peers = Peers((self,))
        self.penalty = 1.0
        self.probing = False
        self.recent_good = self.recent_bad = 0.0  # requests lately: `outliers` fades them
        self.replied_at = -1e9  # when a piece of a reply last came, as far as the sweep has seen
        self.returned_at = -1e9
        self.shut = False  # draining, blocked, away, limited or down: look closer before choosing it
        self.trouble: tuple[str, str] | None = None  # reason and message of a failure that a person has to mend
        self.waits_overdue = 0  # evidence of silence that this sweep has met
        self.window_good = self.window_bad = 0  # requests since the last fold

    def mark(self, *, draining: bool | None = None, blocked: bool | None = None) -> None:
        """Whether it may be chosen, as the snapshot or a missing key says."""
        if draining is not None:
            self.draining = draining
        if blocked is not None:
            self.blocked = blocked
        self.shut = self.draining or self.blocked or self.down_until > 0.0 or self.away_until > 0.0 or self.limited_until > 0.0

    @property
    def doubted(self) -> bool:
        """Whether it is half open without having been ejected."""
        return self.down_until > 0.0 and self.ejected is None

    # --- its own word

    def says(self, now: float, *, away: bool) -> None:
        """Its own word on whether it takes anything. The word has an age: after `AWAY_SECONDS` one request asks again."""
        if away:
            self.away_until = now + AWAY_SECONDS
            self.mark()
        elif self.away_until:
            self.away_until = 0.0
            self.mark()

    def limit_rate(self, seconds: float, now: float) -> None:
        """It wants to be left alone for so long; 0 is for who does not say how long. A word that holds for hours is asked again earlier."""
        if seconds <= 0.0 and now >= self.limited_until:
            self.pauses += 1
            seconds = min(PAUSE_BASE_SECONDS * 2.0 ** min(self.pauses - 1, 10), PAUSE_MAX_SECONDS)
        self.limited_until = max(self.limited_until, now + min(max(seconds, 0.0), LIMITED_MAX_SECONDS))
        self.mark()

    def limited(self, now: float) -> bool:
        """Whether it is still to be left alone."""
        if self.limited_until and now >= self.limited_until:
            self.limited_until = 0.0
            self.mark()
        return self.limited_until > 0.0

    # --- what this router met

    def succeeded(self, now: float, sent_at: float | None = None) -> None:
        """A request ended well. One that was sent before an ejection tells nothing of the time after it."""
        self.window_good += 1
        if self.failures or self.pauses or self.penalty != 1.0:
            if self.down_until:
                if sent_at is not None and sent_at < self.down_since:
                    return
                self._return(now)
            self.failures = self.pauses = 0
            self.trouble = None
            self.penalty = max(1.0, self.penalty / 2.0)
            self.refresh(now)

    def failed(self, now: float, *, hard: bool, sent_at: float | None = None) -> None:
        """An attempt failed. `hard`: the endpoint could not be reached at all. What was under way at an ejection counts no more."""
        self.window_bad += 1
        if self.down_until and sent_at is not None and sent_at < self.down_since:
            return
        self.failures += 1
        self._punish(now)
        if hard:
            self.eject(Ejection.UNREACHABLE, now)
        elif self.down_until or self.failures >= DOWN_AFTER_FAILURES:
            self.eject(Ejection.FAILING, now)
        self.refresh(now)

    def _punish(self, now: float) -> None:
        self.penalty = min(self.penalty_now(now) * PENALTY_STEP, PENALTY_MAX)
        self.failed_at = now

    # --- ejection

    def eject(self, reason: Ejection, now: float) -> bool:
        """Puts it out for a time, or for longer, for the reason that it is out for; False where too many are, and none of them is less bad."""
        if self.penalty == 1.0:  # not for a failure that was met: by what was overdue, or by comparison
            self._punish(now)
        if reason is not Ejection.UNREACHABLE and self.ejected is None and not self._make_room(now):
            self.refresh(now)
            return False
        if not self.down_until and now - self.returned_at > FORGIVEN_AFTER_SECONDS:
            self.ejections = 0
        if self.ejected is not None and reason is not Ejection.UNREACHABLE:
            reason = self.ejected
        self.ejections += 1
        self.ejected = reason
        self.probing = False
        self.down_since = now
        self.down_until = now + min(DOWN_BASE_SECONDS * 2.0 ** min(self.ejections - 1, 10), DOWN_MAX_SECONDS)
        self.recent_good = self.recent_bad = 0.0
        counts = self.peers.ejections
        counts[reason] = counts.get(reason, 0) + 1
        self.mark()
        self.refresh(now)
        return True

    def _make_room(self, now: float) -> bool:
        """Whether one more may be out by judgement: of those that can be reached half, or the only one. A less bad one comes back for it."""
        reachable = [
            peer
            for peer in self.peers.endpoints
            if not (peer.draining or peer.blocked or peer.ejected is Ejection.UNREACHABLE) and peer is not self
        ]
        out = [peer for peer in reachable if peer.ejected is not None]
        if len(out) < max(1, (len(reachable) + 1) // 2):
            return True
        least = min(out, key=lambda peer: peer.penalty)
        if least.penalty >= self.penalty:
            return False
        least._return(now)  # noqa: SLF001 - of the same class
        least.refresh(now)
        return True

    def _return(self, now: float) -> None:
        self.down_until = 0.0
        self.ejected = None
        self.failures = 0
        self.probing = False
        self.penalty = 1.0
        self.returned_at = now
        self.mark()

    # --- figures

    def penalty_now(self, now: float) -> float:
        """Penalty faded toward 1 by the time since the last failure."""
        return 1.0 + (self.penalty - 1.0) * float(0.5 ** ((now - self.failed_at) / PENALTY_HALF_LIFE_SECONDS))

    def refresh(self, now: float) -> None:
        """Folds penalty and slow start into `factor`. Who has failed, and has not been tried again since, is due for a probe."""
        if self.failures and not self.down_until and now - self.failed_at >= DOUBT_SECONDS:
            self.down_since, self.down_until = self.failed_at, now
            self.mark()
        factor = 1.0
        if self.penalty != 1.0:
            factor = self.penalty_now(now)
            if factor < 1.01 and self.ejected is None:
                factor = self.penalty = 1.0
        since = now - self.returned_at
        if since < SLOW_START_SECONDS:
            factor *= 1.0 + SLOW_START_FACTOR * (1.0 - since / SLOW_START_SECONDS)
        self.factor = factor
