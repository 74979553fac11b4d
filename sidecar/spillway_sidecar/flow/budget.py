"""The retry budget: at most a share of the requests in flight may be retries, and one always may."""

from __future__ import annotations


class RetryBudget:
    """Counts requests in flight and those of them on a retry. Such a request holds one place, however often it tries, to its end."""

    __slots__ = ("denied_total", "in_flight", "percent", "retrying", "spent_total")

    def __init__(self, percent: int) -> None:
        self.percent = percent
        self.in_flight = 0
        self.retrying = 0
        self.spent_total = 0
        self.denied_total = 0

    @property
    def has_room(self) -> bool:
        """Whether one more retry may start."""
        return self.percent > 0 and self.retrying < max(1, self.in_flight * self.percent // 100)

    def take(self) -> bool:
        """Whether one more request may try again; it is counted if so."""
        if not self.has_room:
            self.denied_total += 1
            return False
        self.retrying += 1
        self.spent_total += 1
        return True

    def give_back(self) -> None:
        """A request that took a place has ended."""
        self.retrying -= 1

    def info(self) -> dict[str, int]:
        """The counts."""
        return {
            "in_flight": self.in_flight,
            "retrying": self.retrying,
            "percent": self.percent,
            "spent_total": self.spent_total,
            "denied_total": self.denied_total,
        }
