"""What is asked for, over hours, and what goes wrong meanwhile.

Demand is in replicas at full speed: 10 is what ten busy replicas do, and no more. Each tick's demand is drawn around it by `noise_ratio`;
the noise is real, in what comes as in what is measured.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from spillway_operator.scaling.needs import SPEED_SHARE

HOUR: Final = 3600.0
DAY: Final = 86_400.0


@dataclass(frozen=True, slots=True)
class Lies:
    """What is told wrongly, for as long as the scene takes."""

    silent_routers: float = 0.0  # the share of the demand whose routers say that there is none
    full_replicas: int = 0  # replicas that say they are full, whatever they do


@dataclass(frozen=True, slots=True)
class Scene:
    """One scene. With `history_days` the same demand came on the days before, each a little different."""

    name: str
    meaning: str
    demand: Callable[[float], float] = field(repr=False)
    seconds: float = HOUR
    noise_ratio: float = 0.1
    blind: tuple[float, float] | None = None  # nothing is measured from and until
    lies: Lies = Lies()
    gpu_target: float | None = None
    history_days: int = 0
    begins: float = 0.0  # time of day
    factor: Callable[[random.Random], float] = field(default=lambda _: 1.0, repr=False)  # of the demand, by the seed
    coupled: bool = False  # through the routing simulator's engines
    learned: bool = True  # what a replica does is known, as from the status; only in coupled scenes it may not be


def _one(_: float) -> float:
    return 1.0


def _level(rng: random.Random) -> float:
    return rng.uniform(3.0, 20.0)


def _whole_number(rng: random.Random) -> float:
    """Of replicas at the share of their speed that they are meant to run at."""
    return rng.randint(2, 20) * SPEED_SHARE


def _step(now: float) -> float:
    return 16.0 if 600.0 <= now < 2400.0 else 1.6


def _short_step(now: float) -> float:
    return 8.0 if 300.0 <= now < 1200.0 else 0.8


def _sine(now: float) -> float:
    return 8.0 + 5.0 * math.sin(2.0 * math.pi * now / 1800.0)


def _peak(now: float) -> float:
    return 16.0 if now >= 900.0 else 4.0 + 12.0 * now / 900.0


def _morning(now: float) -> float:
    """By the time of day: a night, a ramp from 8:00 to 8:20, a working day."""
    hour = now % DAY / HOUR
    up = min(1.0, max(0.0, (hour - 8.0) * 3.0))
    down = min(1.0, max(0.0, (hour - 18.0) / 2.0))
    return 1.6 + 14.4 * min(up, 1.0 - down)


SCENES: Final = {
    scene.name: scene
    for scene in (
        Scene("steady", "the same load for an hour, 25 % of noise", _one, noise_ratio=0.25, factor=_level),
        Scene("edge", "a need at the edge of a whole number for an hour", _one, noise_ratio=0.02, factor=_whole_number),
        Scene("step", "ten times the load for half an hour", _step, seconds=1.5 * HOUR),
        Scene("sine", "a wave of half an hour, four times", _sine, seconds=2.0 * HOUR),
        Scene("outage", "no metrics for ten minutes at the peak", _peak, blind=(1500.0, 2100.0)),
        Scene(
            "lying", "a quarter of the routers report no demand, and one replica reports that it is full",
            _peak, lies=Lies(silent_routers=0.25, full_replicas=1), gpu_target=0.85,
        ),
        Scene(
            "morning", "eight to ten in the morning, after five such days", _morning,
            seconds=2.0 * HOUR, begins=8.0 * HOUR - 900.0, history_days=5,
        ),
        Scene("step-coupled", "ten times the load for a quarter of an hour, request by request through routers and engines", _short_step, seconds=0.6 * HOUR, coupled=True),
        Scene("first-coupled", "the same for a backend that was never saturated, so that nobody knows what its replica does", _short_step,
            seconds=0.6 * HOUR, coupled=True, learned=False),
    )
}  # fmt: skip
