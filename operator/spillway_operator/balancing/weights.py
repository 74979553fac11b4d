"""Declared weights and pressures -> effective weights.

Each backend of a rule carries a *factor* in [floor, 1]; its effective weight is declared weight times factor. At rest every
factor is 1 and the effective weights are exactly the declared ones.

- A backend over the bound (pressure > 1) while another one of the same rule and priority has headroom (pressure < `low`,
  a declared weight above 0) loses share multiplicatively, faster the further it is over, at most `fall_per_second`.
- A backend below `low` recovers additively, `rise_per_second` of its declared weight. Between `low` and 1 it holds: that
  gap is the hysteresis that keeps a backend on its bound from swinging.
- Everyone over the bound: all hold, for moving load between full backends helps nobody.
- Unknown pressure (no report, stale reports) holds too: not 0, not full, and no headroom for others to lean on.
- The floor keeps a trickle, so that recovery is seen.

Multiplicative decrease against additive increase makes the shares of several pressed backends converge. The loop's period
does not matter: falls compound and rises add in proportion to the time that passed.
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
    """How fast, how far. Defaults: two seconds of hard pressure take 90 % to about a quarter; a full recovery takes 20 s."""

    low: float = 0.7  # below it there is headroom and a cut backend recovers
    floor: float = 0.05  # of the declared weight; enough traffic to see that a backend is well again
    fall_per_second: float = 0.5  # at most this share of a weight is lost in a second
    full_excess: float = 1.0  # a pressure this far over 1 falls at the full speed
    rise_per_second: float = 0.05  # of the declared weight; slow, for a backend that comes back too fast falls again
    step_ratio: float = 0.02  # smaller changes of a factor are not worth a snapshot
    max_dt_seconds: float = 2.0  # a loop that stalled does not catch up in one leap


_DEFAULT_POLICY = WeightPolicy()


def next_factors(
    declared: Mapping[str, Share],
    previous: Mapping[str, float],
    pressures: Mapping[str, float | None],
    dt_seconds: float,
    policy: WeightPolicy = _DEFAULT_POLICY,
) -> dict[str, float]:
    """The factor of every declared backend after `dt_seconds`; one without a previous factor starts at 1."""
    dt = min(max(dt_seconds, 0.0), policy.max_dt_seconds)
    roomy = {
        share.priority: name
        for name, share in declared.items()
        if share.weight > 0 and (level := _level(pressures, name)) is not None and level < policy.low
    }
    return {
        name: _next(
            min(1.0, max(policy.floor, previous.get(name, 1.0))), _level(pressures, name), share.priority in roomy, dt, policy
        )
        for name, share in declared.items()
    }


def _level(pressures: Mapping[str, float | None], name: str) -> float | None:
    level = pressures.get(name)
    return level if level is not None and math.isfinite(level) else None


def _next(factor: float, level: float | None, room_elsewhere: bool, dt: float, policy: WeightPolicy) -> float:
    if level is None:
        return factor
    if level > 1.0:
        if not room_elsewhere:
            return factor
        speed = min(1.0, (level - 1.0) / policy.full_excess) * policy.fall_per_second
        return float(max(policy.floor, factor * (1.0 - speed) ** dt))
    if level < policy.low:
        return min(1.0, factor + policy.rise_per_second * dt)
    return factor


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
