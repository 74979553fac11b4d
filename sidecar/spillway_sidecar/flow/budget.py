"""How much of a route's traffic may be sent a second time: after a failure, or as a hedge against a late first token.

**Retries**: at most a share of the requests in flight may be retrying, and one always may. A retry is over with the first byte
of its reply. When an endpoint dies, all that waited for it want another at once, and they are more than the share; so what
requests left unused of their share before is saved, up to as many as are in flight. In the long run retries stay within the
share, and a storm of them dies down to it.

**Hedges** have no floor: each request saves its share, and a hedge costs one whole.
"""

from __future__ import annotations

from typing import Final

BURST: Final = 10  # what is saved at least as far as for
HEDGE_BURST: Final = 10


class RetryBudget:
    """Counts requests in flight and those of them on a retry. Such a request holds one place, however often it tries, until it is answered."""

    __slots__ = (
        "_counted", "_hedges_saved", "_saved", "begun_total", "denied_total", "hedge_percent", "hedged_total", "in_flight", "percent", "retrying",
        "spent_total",
    )  # fmt: skip

    def __init__(self, percent: int, hedge_percent: int = 0) -> None:
        self.percent = percent
        self.hedge_percent = hedge_percent
        self.in_flight = 0
        self.begun_total = 0
        self.retrying = 0
        self.spent_total = 0
        self.denied_total = 0
        self.hedged_total = 0
        self._counted = 0
        self._saved = float(BURST)  # an endpoint may die in a router's first seconds
        self._hedges_saved = 0.0

    def _save(self) -> None:
        """Lays by what the requests since the last look left."""
        begun = self.begun_total - self._counted
        self._counted = self.begun_total
        self._saved = min(self._saved + begun * self.percent / 100, float(max(BURST, self.in_flight)))
        self._hedges_saved = min(self._hedges_saved + begun * self.hedge_percent / 100, float(HEDGE_BURST))

    @property
    def _place(self) -> bool:
        return self.percent > 0 and self.retrying < max(1, self.in_flight * self.percent // 100)

    @property
    def has_room(self) -> bool:
        """Whether one more retry may start."""
        if self._place:
            return True
        self._save()
        return self.percent > 0 and self._saved >= 1.0

    def take(self) -> bool:
        """Whether one more request may try again; it is counted if so."""
        if not self.has_room:
            self.denied_total += 1
            return False
        self._save()
        if self._saved >= 1.0:
            self._saved -= 1.0
        self.retrying += 1
        self.spent_total += 1
        return True

    def give_back(self) -> None:
        """A request that took a place has been answered, or has ended."""
        self.retrying -= 1

    def take_hedge(self) -> bool:
        """Whether one more hedge may be sent; it is counted if so."""
        self._save()
        if self._hedges_saved < 1.0:
            return False
        self._hedges_saved -= 1.0
        self.hedged_total += 1
        return True

    def info(self) -> dict[str, int]:
        """The counts."""
        return {
            "in_flight": self.in_flight,
            "retrying": self.retrying,
            "percent": self.percent,
            "spent_total": self.spent_total,
            "denied_total": self.denied_total,
            "hedge_percent": self.hedge_percent,
            "hedged_total": self.hedged_total,
        }
