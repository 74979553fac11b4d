"""Between the replicas and who decides: what is told of them, and what is written down."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace
from typing import Final

from spillway.simulate.scaling.scalers import Moment, Scaler
from spillway.simulate.scaling.scenes import DAY, Scene
from spillway_operator.scaling.decider import Replicas
from spillway_operator.scaling.needs import Need, Observed, Targets, need

TICK_SECONDS: Final = 2.0
LEAST: Final = 1
MOST: Final = 100
_A_WEDNESDAY: Final = 20_000 * DAY  # of 2024; scenes begin at a time of that day


@dataclass(frozen=True, slots=True)
class Sample:
    """One tick: what was asked of the replicas (in replicas at full speed), and what there was."""

    at: float
    mean: float  # of the demand
    demand: float
    asked_for: int
    ready: int


class Watch:
    """Tells a scaler what it would hear, and keeps what came of it."""

    def __init__(self, scene: Scene, scaler: type[Scaler], seed: int) -> None:
        self.scene = scene
        self.rng = random.Random(f"scaling {scene.name} {seed}")  # noqa: S311
        self.headroom = need_of(1.0)
        self._factor = scene.factor(self.rng)
        self.start = math.ceil(need_of(self.mean(0.0)) - 1e-9)
        self.samples: list[Sample] = []
        self._targets = Targets(gpu_ratio=scene.gpu_target)
        self._scaler = scaler(self.start)
        for day in range(scene.history_days, 0, -1):
            self._remember(_A_WEDNESDAY - day * DAY)

    def _remember(self, midnight: float) -> None:
        """One of the days before: a tenth more or less, and up to ten minutes earlier or later."""
        factor, late = self.rng.uniform(0.9, 1.1), self.rng.uniform(-600.0, 600.0)
        for minute in range(24 * 60):
            demand = factor * self.scene.demand(60.0 * minute - late)
            self._scaler.learn(midnight + 60.0 * minute, need_of(demand))

    def drawn(self, now: float) -> float:
        """The demand of the tick that begins."""
        return max(0.0, self.mean(now) * self.rng.gauss(1.0, self.scene.noise_ratio))

    def mean(self, now: float) -> float:
        """The demand without its noise."""
        return self._factor * self.scene.demand(self.scene.begins + now)

    def tick(self, now: float, demand: float, observed: Observed, concurrency: float, asked_for: int) -> int:
        """How many replicas there are to be; `demand` was asked for since the last tick."""
        self.samples.append(Sample(now, self.mean(now - TICK_SECONDS), demand, asked_for, observed.ready))
        told = self._told(now, observed)
        moment = Moment(
            now,
            _A_WEDNESDAY + self.scene.begins + now,
            need(told, self._targets) if told is not None else Need(),
            concurrency if told is not None else None,
            Replicas(asked_for, observed.ready, LEAST, MOST),
        )
        return min(max(self._scaler.decide(moment), LEAST), MOST)

    def _told(self, now: float, observed: Observed) -> Observed | None:
        scene = self.scene
        if scene.blind is not None and scene.blind[0] <= now < scene.blind[1]:
            return None
        if scene.lies.silent_routers and observed.tokens_per_second_asked is not None:
            observed = replace(
                observed, tokens_per_second_asked=observed.tokens_per_second_asked * (1.0 - scene.lies.silent_routers)
            )
        if scene.lies.full_replicas and observed.gpu_ratio is not None:
            full = min(1.0, scene.lies.full_replicas / max(1, observed.ready))
            observed = replace(observed, gpu_ratio=observed.gpu_ratio * (1.0 - full) + full)
        return observed


def need_of(demand: float) -> float:
    """Replicas that a demand needs by the production code, which leaves them room."""
    return need(Observed(ready=1, tokens_per_second_asked=demand, tokens_per_second_replica=1.0), Targets()).flow or 0.0
