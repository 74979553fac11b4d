"""Which replica goes first: what each has under way, and what it has worked on lately, as one whole number. The lowest goes first.

What is under way counts most, since a replica that is taken away has to finish it first. Between replicas that have as much under way
the one goes whose cache is worth least: what an engine had under way over the last minutes is what lies in its prefix cache, so a mean of
that over ten minutes stands for its warmth, and a replica that has just started has none.

Tokens are counted in powers of two. Half a minute's mean of what is under way is taken for a cost that stands for a while, so that
short requests do not turn it to and fro; at the moment of the choice it is what is under way then.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

ANNOTATION: Final = "controller.kubernetes.io/pod-deletion-cost"  # on a pod, for the ReplicaSet that it is of
BUSY_SECONDS: Final = 30.0
WARM_SECONDS: Final = 600.0
_STEP: Final = 1000  # of the level of what is under way; warmth is below it


@dataclass(slots=True)
class Work:
    """What one replica had under way lately, in tokens. `now` rises."""

    at: float
    busy: float = 0.0
    warm: float = 0.0

    def observe(self, now: float, tokens: float) -> None:
        """It has this much under way."""
        seconds = max(0.0, now - self.at)
        self.at = now
        self.busy += (tokens - self.busy) * -math.expm1(-seconds / BUSY_SECONDS)
        self.warm += (tokens - self.warm) * -math.expm1(-seconds / WARM_SECONDS)


def cost(tokens: float, warm: float) -> int:
    """Of a replica with so many tokens under way and such a cache."""
    return _STEP * _level(tokens) + _level(warm)


def _level(tokens: float) -> int:
    return 0 if tokens < 1 else min(_STEP // 2, 1 + math.floor(math.log2(tokens)))


def differs(standing: int, found: int) -> bool:
    """Whether a cost is worth another write: idle or not, four times as much or as little under way, a cache of another kind."""
    (was_busy, was_warm), (busy, warm) = divmod(standing, _STEP), divmod(found, _STEP)
    return (was_busy == 0) != (busy == 0) or abs(busy - was_busy) >= 2 or abs(warm - was_warm) >= 3


def misleads(standing: int, found: int) -> bool:
    """Whether it is at the moment of the choice."""
    return standing // _STEP != found // _STEP or differs(standing, found)
