"""Whether one endpoint may be chosen, and how much its failures weigh: one router's word, from what it met itself.

* **down** after a hard failure, or several in a row, for a time that doubles; then one probe at a time.
* **away** by its own word (it leaves, or its engine is down), and **limited** while it has asked to be left alone.
* **penalty**: above 1 after failures, so that failing fast never looks attractive. It fades, and ends when an endpoint that
  was down answers: the slow start takes over then.

What changes only with time (the fading, the slow start) is folded into one `factor` by `refresh`, which the sweep calls several times
a second.
"""

from __future__ import annotations

from typing import Final

PENALTY_MAX: Final = 64.0
PENALTY_HALF_LIFE_SECONDS: Final = 10.0
AWAY_SECONDS: Final = 1.0  # the interval of reports
DOWN_BASE_SECONDS: Final = 0.5
DOWN_MAX_SECONDS: Final = 10.0
DOWN_AFTER_FAILURES: Final = 3
LIMITED_MAX_SECONDS: Final = 60.0
SLOW_START_SECONDS: Final = 5.0
SLOW_START_FACTOR: Final = 8.0


class EndpointHealth:
    """The health of one endpoint as this router sees it. Mutable, single-threaded; numbers only."""

    __slots__ = (
        "away_until", "blocked", "down_until", "draining", "factor", "failed_at", "failures", "heard_at", "id", "limited_until", "penalty", "probing", "returned_at", "shut", "trouble",
    )  # fmt: skip

    def __init__(self, id_: str) -> None:
        self.id = id_
        self.away_until = 0.0  # it said itself that it takes nothing
        self.blocked = False  # cannot be used at all, e.g. for want of its key
        self.down_until = 0.0
        self.draining = False
        self.factor = 1.0
        self.failed_at = 0.0
        self.failures = 0
        self.heard_at = -1e9  # when it last answered anything
        self.limited_until = 0.0  # it has answered 429 and said for how long
        self.penalty = 1.0
        self.probing = False
        self.returned_at = -1e9
        self.shut = False  # draining, blocked, away or down: look closer before choosing it
        self.trouble: tuple[str, str] | None = None  # reason and message of a failure that a person has to mend

    def mark(self, *, draining: bool | None = None, blocked: bool | None = None) -> None:
        """Whether it may be chosen, as the snapshot or a missing key says."""
        if draining is not None:
            self.draining = draining
        if blocked is not None:
            self.blocked = blocked
        self.shut = self.draining or self.blocked or self.down_until > 0.0 or self.away_until > 0.0 or self.limited_until > 0.0

    def says(self, now: float, *, away: bool) -> None:
        """Its own word on whether it takes anything. The word has an age: after `AWAY_SECONDS` one request asks again."""
        if away:
            self.away_until = now + AWAY_SECONDS
            self.mark()
        elif self.away_until:
            self.away_until = 0.0
            self.mark()

    def limit_rate(self, seconds: float, now: float) -> None:
        """It wants to be left alone for so long. A word that holds for hours is asked again earlier."""
        self.limited_until = max(self.limited_until, now + min(max(seconds, 0.0), LIMITED_MAX_SECONDS))
        self.mark()

    def limited(self, now: float) -> bool:
        """Whether it is still to be left alone."""
        if self.limited_until and now >= self.limited_until:
            self.limited_until = 0.0
            self.mark()
        return self.limited_until > 0.0

    def succeeded(self, now: float) -> None:
        """A request ended well: the endpoint is up."""
        if self.failures or self.penalty != 1.0:
            self.failures = 0
            self.trouble = None
            self.penalty = max(1.0, self.penalty / 2.0)
            if self.down_until:
                self.returned_at = now
                self.down_until = 0.0
                self.penalty = 1.0
                self.mark()
            self.refresh(now)

    def failed(self, now: float, *, hard: bool) -> None:
        """An attempt failed. `hard`: the endpoint could not be reached at all, so it is down for a while that doubles."""
        self.failures += 1
        self.penalty = min(self.penalty_now(now) * 2.0, PENALTY_MAX)
        self.failed_at = now
        if hard or self.failures >= DOWN_AFTER_FAILURES:
            self.down_until = now + min(DOWN_BASE_SECONDS * 2.0 ** min(self.failures - 1, 10), DOWN_MAX_SECONDS)
            self.mark()
        self.refresh(now)

    def penalty_now(self, now: float) -> float:
        """Penalty faded toward 1 by the time since the last failure."""
        return 1.0 + (self.penalty - 1.0) * float(0.5 ** ((now - self.failed_at) / PENALTY_HALF_LIFE_SECONDS))

    def refresh(self, now: float) -> None:
        """Folds penalty and slow start into `factor`."""
        factor = 1.0
        if self.penalty != 1.0:
            factor = self.penalty_now(now)
            if factor < 1.01:
                factor = self.penalty = 1.0
        since = now - self.returned_at
        if since < SLOW_START_SECONDS:
            factor *= 1.0 + SLOW_START_FACTOR * (1.0 - since / SLOW_START_SECONDS)
        self.factor = factor
