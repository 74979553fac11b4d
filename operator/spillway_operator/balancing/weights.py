"""Declared weights and pressures -> effective weights.

Each backend of a rule carries a *factor* in [floor, 1]; its effective weight is declared weight times factor. At rest every
factor is 1 and the effective weights are exactly the declared ones.

A factor is a target that moves slowly: routers go round a full backend by themselves at once, and what is left for the weights is the
division that lasts. Under an overload that lasts they are to come to rest, and not to swing between too much and too little:

- A backend over the bound (pressure > 1) while another one of the same rule and priority has headroom (pressure < `low`,
  a declared weight above 0) loses share multiplicatively, faster the further it is over, at most `fall_per_second`.
- While its pressure falls by itself it holds: the queue of before is draining, and is no reason to take more away.
- A backend below `low` recovers, at most `rise_per_second` of its declared weight, and slowly at first: what was too much a moment ago
  is approached with care. Between `low` and 1 it holds: that gap is the hysteresis of a backend on its bound.
- Everyone over the bound: all hold, for moving load between full backends helps nobody.
- Unknown pressure (no report, stale reports) holds too: not 0, not full, and no headroom for others to lean on.
- The floor keeps a trickle, so that recovery is seen.

Multiplicative decrease against additive increase makes the shares of several pressed backends converge. The loop's period
hardly matters: falls compound and rises add in proportion to the time that passed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Share:
    """One backend of a rule as declared."""

    weight: int
    priority: int = 0


@dataclass(frozen=True, slots=True)
class WeightPolicy:
    """How fast, how far. Defaults: three seconds of hard pressure take a half; a recovery takes up to half a minute."""

    low: float = 0.7  # below it there is headroom and a cut backend recovers
    floor: float = 0.05  # of the declared weight; enough traffic to see that a backend is well again
    fall_per_second: float = 0.2  # at most this share of a weight is lost in a second: reports and queues need some to follow
    full_excess: float = 1.0  # a pressure this far over 1 falls at the full speed
    rise_per_second: float = 0.05  # of the declared weight; slow, for a backend that comes back too fast falls again
    calm_seconds: float = 20.0  # of pressure below `low` until it rises at the full speed
    step_ratio: float = 0.04  # smaller changes of a factor are not worth a snapshot
    max_dt_seconds: float = 2.0  # a loop that stalled does not catch up in one leap


@dataclass(frozen=True, slots=True)
class Course:
    """Where one backend's factor stands, and what the next step must know of those before."""

    factor: float = 1.0
    level: float | None = None  # its pressure at the last step
    calm_seconds: float = 0.0  # for how long it has been below `low`


_DEFAULT_POLICY = WeightPolicy()
_AT_REST = Course()


def next_courses(
    declared: Mapping[str, Share],
    previous: Mapping[str, Course],
    pressures: Mapping[str, float | None],
    dt_seconds: float,
    policy: WeightPolicy = _DEFAULT_POLICY,
) -> dict[str, Course]:
    """The course of every declared backend after `dt_seconds`; one without a previous course starts at rest."""
    dt = min(max(dt_seconds, 0.0), policy.max_dt_seconds)
    roomy = {
        share.priority: name
        for name, share in declared.items()
        if share.weight > 0 and (level := _level(pressures, name)) is not None and level < policy.low
    }
    return {
        name: _next(previous.get(name, _AT_REST), _level(pressures, name), share.priority in roomy, dt, policy)
        for name, share in declared.items()
    }


def _level(pressures: Mapping[str, float | None], name: str) -> float | None:
    level = pressures.get(name)
    return level if level is not None and math.isfinite(level) else None


def _next(course: Course, level: float | None, room_elsewhere: bool, dt: float, policy: WeightPolicy) -> Course:
    factor, calm_seconds = min(1.0, max(policy.floor, course.factor)), course.calm_seconds
    if level is None:
        return Course(factor, None, calm_seconds)
    if level > 1.0:
        calm_seconds = 0.0
        draining = course.level is not None and level < course.level
        if room_elsewhere and not draining:
            speed = min(1.0, (level - 1.0) / policy.full_excess) * policy.fall_per_second
            factor = max(policy.floor, factor * (1.0 - speed) ** dt)
    elif level < policy.low:
        calm_seconds = min(calm_seconds + dt, policy.calm_seconds)
        factor = min(1.0, factor + policy.rise_per_second * (calm_seconds / policy.calm_seconds) ** 2 * dt)
    return Course(factor, level, calm_seconds)


def factors(courses: Mapping[str, Course]) -> dict[str, float]:
    """The factors alone."""
    return {name: course.factor for name, course in courses.items()}


def worth_publishing(published: Mapping[str, float], current: Mapping[str, float], policy: WeightPolicy = _DEFAULT_POLICY) -> bool:
    """Whether some factor moved by a meaningful step since what proxies have, or has come to rest at 1 or at the floor."""
    for name, factor in current.items():
        before = published.get(name, 1.0)
        if factor == before:
            continue
        if factor in {1.0, policy.floor} or abs(factor - before) >= policy.step_ratio * before:
            return True
    return any(factor != 1.0 for name, factor in published.items() if name not in current)


def effective(declared: Mapping[str, Share], factors: Mapping[str, float]) -> dict[str, float]:
    """Effective weights by backend: the declared ones exactly where the factor is 1."""
    return {
        name: float(share.weight) if factors.get(name, 1.0) == 1.0 else round(share.weight * factors[name], 6)
        for name, share in declared.items()
    }
