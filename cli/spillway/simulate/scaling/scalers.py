"""Who decides how many replicas there are. One is the production code; the others do what is commonly done.

All are told the same each two seconds: the need by the production code's `need` (replicas, not rounded; None where nothing was
measured), and the replicas that there are.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Final

from spillway_operator.scaling.decider import Decider, Replicas
from spillway_operator.scaling.forecast import Daily
from spillway_operator.scaling.needs import Need
from spillway_operator.scaling.starts import Starts
from spillway_operator.scaling.windows import Mean


@dataclass(frozen=True, slots=True)
class Moment:
    """What a scaler is told."""

    now: float
    wall: float  # UTC
    need: Need
    concurrency: float | None  # requests under way or waiting, in replicas that each have as many as they should
    replicas: Replicas


class Scaler:
    """Decides how many replicas there should be."""

    def __init__(self, replicas: int) -> None:
        del replicas

    def decide(self, moment: Moment) -> int:
        """Asked each tick."""
        raise NotImplementedError

    def learn(self, wall: float, need: float) -> None:
        """So much was needed at a moment before the scene began."""


class NaiveCeiling(Scaler):
    """The need of this moment, rounded up; what was not measured is none."""

    def decide(self, moment: Moment) -> int:
        need = moment.need
        return math.ceil(max(need.flow or 0.0, need.backlog or 0.0))


class LikeHPA(Scaler):
    """As a HorizontalPodAutoscaler with its defaults does with the need as an average over replicas."""

    sync_seconds: Final = 15.0
    tolerance: Final = 0.1
    down_seconds: Final = 300.0

    def __init__(self, replicas: int) -> None:
        self._next_at = 0.0
        self._recommended: deque[tuple[float, int]] = deque()
        self._raised: deque[tuple[float, int]] = deque()

    def decide(self, moment: Moment) -> int:
        there = moment.replicas.asked_for
        if moment.now < self._next_at:
            return there
        self._next_at = moment.now + self.sync_seconds
        flow = moment.need.flow
        if flow is None:  # FailedGetExternalMetric: nothing changes
            return there
        ratio = flow / max(1, there)
        wanted = there if abs(ratio - 1.0) <= self.tolerance else math.ceil(flow)
        self._recommended.append((moment.now, wanted))
        while self._recommended[0][0] < moment.now - self.down_seconds:
            self._recommended.popleft()
        if wanted < there:
            return min(there, max(value for _, value in self._recommended))
        return min(wanted, max(there * 2, there + 4))  # 100 % or 4 pods each 15 s


class LikeKPA(Scaler):
    """As Knative's autoscaler with its defaults does with concurrency: windows of 60 s and 6 s, down at once."""

    def __init__(self, replicas: int) -> None:
        self._stable = Mean(60.0)
        self._brief = Mean(6.0)
        self._panic_until = -math.inf
        self._panic_most = 0

    def decide(self, moment: Moment) -> int:
        there, ready, now = moment.replicas.asked_for, max(1, moment.replicas.ready), moment.now
        if moment.concurrency is None:
            return there
        self._stable.record(now, moment.concurrency)
        self._brief.record(now, moment.concurrency)
        stable, brief = self._stable.at(now) or 0.0, self._brief.at(now) or 0.0
        most, least = math.ceil(1000.0 * ready), math.floor(ready / 2.0)
        if math.ceil(brief) / ready >= 2.0:
            self._panic_until = now + 60.0
        if now < self._panic_until:
            self._panic_most = max(self._panic_most, min(most, math.ceil(brief)), there)
            return self._panic_most
        self._panic_most = 0
        return min(max(math.ceil(stable), least), most)


class Ours(Scaler):
    """The operator's decider, its learned start of a replica, and no forecast."""

    forecasts = False

    def __init__(self, replicas: int) -> None:
        self.decider = Decider(0.0, replicas)
        self.starts = Starts()
        self.daily = Daily()

    def decide(self, moment: Moment) -> int:
        replicas = moment.replicas
        self.starts.observe(moment.now, replicas.asked_for, replicas.ready)
        if self.forecasts:
            if moment.need.flow is not None:
                self.daily.record(moment.wall, moment.need.flow)
            floor = self.daily.replicas(moment.wall, self.starts.seconds)
            replicas = Replicas(replicas.asked_for, replicas.ready, max(replicas.least, min(floor, replicas.most)), replicas.most)
        return self.decider.decide(moment.now, moment.need, replicas).desired

    def learn(self, wall: float, need: float) -> None:
        self.daily.record(wall, need)


class OursWithForecast(Ours):
    """The same, with the demand of earlier days."""

    forecasts = True


SCALERS: Final[dict[str, type[Scaler]]] = {
    "ceiling": NaiveCeiling,
    "hpa-like": LikeHPA,
    "kpa-like": LikeKPA,
    "ours": Ours,
    "ours-forecast": OursWithForecast,
}
