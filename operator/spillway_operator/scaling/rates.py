"""How fast the number of replicas may change, as declared: so many, or such a share, within a period.

As with a HorizontalPodAutoscaler a period is one that ends at this moment, and what was changed within it, by whomever, counts against the
policy: `Pods 2 in 60 s` allows another two when the last two were added a minute ago.
"""

from __future__ import annotations

import enum
import math
from collections import deque
from dataclasses import dataclass
from typing import Final


class Select(enum.StrEnum):
    """Which of several rates counts."""

    MAX = "Max"  # that allows most
    MIN = "Min"
    DISABLED = "Disabled"  # no change in this direction


@dataclass(frozen=True, slots=True)
class Rate:
    """So many replicas, or per cent of those at the begin of the period, within it."""

    value: int
    seconds: float
    percent: bool = False


@dataclass(frozen=True, slots=True)
class Rates:
    """One direction's."""

    rates: tuple[Rate, ...] = ()
    select: Select = Select.MAX

    @property
    def bounding(self) -> bool:
        """Whether it says anything."""
        return bool(self.rates) or self.select is Select.DISABLED

    @property
    def span_seconds(self) -> float:
        """The longest period."""
        return max((rate.seconds for rate in self.rates), default=0.0)


FREE: Final = Rates()


class Changes:
    """Changes of the number over the last seconds, at least as far back as anybody asks."""

    def __init__(self, span_seconds: float) -> None:
        self._span_seconds = span_seconds
        self._entries: deque[tuple[float, int]] = deque()

    def record(self, now: float, change: int) -> None:
        """The number changed by so many."""
        while self._entries and self._entries[0][0] <= now - self._span_seconds:
            self._entries.popleft()
        if change and self._span_seconds:
            self._entries.append((now, change))

    def within(self, now: float, seconds: float, *, up: bool) -> int:
        """How many were added (or taken away) in the last seconds."""
        return sum(abs(change) for at, change in self._entries if at > now - seconds and (change > 0) is up)


def highest(rates: Rates, changes: Changes, now: float, there: int) -> int | None:
    """The most that there may be at once; None: no bound."""
    if rates.select is Select.DISABLED:
        return there
    found = []
    for rate in rates.rates:
        begun = there - changes.within(now, rate.seconds, up=True)
        found.append(math.ceil(begun * (1 + rate.value / 100)) if rate.percent else begun + rate.value)
    return max(there, max(found) if rates.select is Select.MAX else min(found)) if found else None


def lowest(rates: Rates, changes: Changes, now: float, there: int) -> int | None:
    """The fewest that there may be at once; None: no bound."""
    if rates.select is Select.DISABLED:
        return there
    found = []
    for rate in rates.rates:
        begun = there + changes.within(now, rate.seconds, up=False)
        found.append(math.floor(begun * max(0.0, 1 - rate.value / 100)) if rate.percent else begun - rate.value)
    return max(0, min(there, min(found) if rates.select is Select.MAX else max(found))) if found else None
