"""Demand by time of day, learned from earlier days: how many replicas will be needed when one that is asked for at this moment is ready.

Holt-Winters without a trend. The season is a mean of each five minutes of the day, and of the week once there are two of them, in which
every day counts for `season_gain`; the level is how the last half hour compares with it, so a day that is busier than usual
is expected to go on so, and what grows from day to day shows there. An interval that was met on fewer than two days says nothing, since one day
is no pattern.

What comes out is a floor, and it only ever adds. It is the highest of what is expected until the replica is ready, and falls when it was lower
for `calm_seconds`, so that it follows no dip that ends soon after. An interval without measurements teaches nothing.

Time is UTC: where clocks are put forward or back, the pattern is an hour off until the level and a few days have corrected it. Memory is
2,304 intervals at most; it is lost with the process.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

from spillway_operator.scaling.windows import Highest

INTERVAL_SECONDS: Final = 300
_A_DAY: Final = 86_400 // INTERVAL_SECONDS
_A_WEEK: Final = 7 * _A_DAY


@dataclass(frozen=True, slots=True)
class ForecastPolicy:
    """The constants of a forecast."""

    season_gain: float = 0.3  # three days make two thirds of it
    level_gain: float = 0.2  # of each interval: half an hour makes two thirds
    least_level: float = 0.5
    most_level: float = 1.5  # one odd hour does not multiply the day
    ballast: float = 1.0  # replicas: among few, a ratio says little
    calm_seconds: float = 900.0
    band_ratio: float = 0.15  # as the decider's: so much more than there is raises nothing
    least_need: float = 0.1  # replicas: less than that waits for who asks
    known_times: int = 2


USUAL: Final = ForecastPolicy()


class Daily:
    """The demand of one backend, in replicas. `wall_seconds` is UTC since the epoch."""

    def __init__(self, policy: ForecastPolicy = USUAL) -> None:
        self._policy = policy
        self._of_day = _Season(_A_DAY, policy)
        self._of_week = _Season(_A_WEEK, policy)
        self._floors = Highest(policy.calm_seconds)
        self._level = 1.0
        self._interval = -1
        self._sum = 0.0
        self._count = 0

    def record(self, wall_seconds: float, need: float) -> None:
        """So many replicas were needed at that moment. Times that run backwards are passed over."""
        interval = int(wall_seconds // INTERVAL_SECONDS)
        if interval < self._interval:
            return
        if interval > self._interval:
            self._close()
            self._interval, self._sum, self._count = interval, 0.0, 0
        self._sum += need
        self._count += 1

    def floor(self, wall_seconds: float, lead_seconds: float) -> float | None:
        """The highest need, in replicas, that is expected until one that is asked for at this moment is ready; None: not known."""
        first = int(wall_seconds // INTERVAL_SECONDS)
        last = int((wall_seconds + lead_seconds) // INTERVAL_SECONDS) + 1  # what is within the last interval is above its mean
        last = min(last, first + _A_DAY)
        known = [value for interval in range(first, last + 1) if (value := self._usual(interval)) is not None]
        return max(known) * self._level if known else None

    def replicas(self, wall_seconds: float, lead_seconds: float) -> int:
        """The highest floor of the last minutes, in whole replicas; 0 where nothing is known."""
        need = self.floor(wall_seconds, lead_seconds)
        whole = 0 if need is None or need < self._policy.least_need else math.ceil(need / (1.0 + self._policy.band_ratio) - 1e-9)
        self._floors.record(wall_seconds, whole)
        return self._floors.at(wall_seconds) or 0

    def _close(self) -> None:
        """The interval is over: its mean moves the level and the seasons."""
        if not self._count:
            return
        mean = self._sum / self._count
        usual = self._usual(self._interval)
        policy = self._policy
        if usual is not None:
            ratio = (mean + policy.ballast) / (usual + policy.ballast)
            level = self._level + policy.level_gain * (ratio - self._level)
            self._level = min(max(level, policy.least_level), policy.most_level)
        self._of_day.learn(self._interval, mean)
        self._of_week.learn(self._interval, mean)

    def _usual(self, interval: int) -> float | None:
        found = self._of_week.at(interval)
        return self._of_day.at(interval) if found is None else found

    def info(self) -> dict[str, Any]:
        """How much is known, and how this day compares with others."""
        return {
            "level": round(self._level, 3),
            "known_of_day": round(self._of_day.known, 3),
            "known_of_week": round(self._of_week.known, 3),
        }


class _Season:
    """Means of the intervals of a period."""

    def __init__(self, length: int, policy: ForecastPolicy) -> None:
        self._policy = policy
        self._means = [0.0] * length
        self._times = bytearray(length)  # how often each was met, as far as that matters

    def learn(self, interval: int, mean: float) -> None:
        slot = interval % len(self._means)
        times = self._times[slot]
        gain = max(self._policy.season_gain, 1.0 / (times + 1))
        self._means[slot] += gain * (mean - self._means[slot])
        self._times[slot] = min(times + 1, 255)

    def at(self, interval: int) -> float | None:
        slot = interval % len(self._means)
        return self._means[slot] if self._times[slot] >= self._policy.known_times else None

    @property
    def known(self) -> float:
        """The share of it that is known."""
        return sum(times >= self._policy.known_times for times in self._times) / len(self._times)
