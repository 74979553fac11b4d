"""What tokens cost: as paid, and as a replica with all it can do would have it.

The two differ by what stands idle. What was *paid* (replicas by the hour, or prices by the token, over the tokens that were served in about the
last five minutes) is for people. By it nothing is routed: an idle backend would be the dearest, would get less for it, and be dearer
still. What is compared is the price of a token at a replica's *full speed*, which does not depend on where the traffic goes.
"""

from __future__ import annotations

import math
from typing import Final

_MEMORY_SECONDS: Final = 300.0


def per_million_tokens(hourly: float, tokens_per_second: float) -> float:
    """What a million tokens cost at so many of them a second."""
    return hourly / 3600.0 / tokens_per_second * 1e6


def worth_telling(told: float | None, cost: float | None, step_ratio: float = 0.1) -> bool:
    """Whether a cost has moved so far that everybody who goes by it should hear."""
    if told is None or cost is None or told <= 0 or cost <= 0:
        return told != cost
    return abs(math.log(cost / told)) > math.log1p(step_ratio)


class Spending:
    """One backend's: what was spent and what was served, the older the less."""

    def __init__(self) -> None:
        self._spent = 0.0
        self._tokens = 0.0

    def add(self, seconds: float, per_second: float, tokens_per_second: float) -> None:
        """So much was spent and served a second, for so many seconds."""
        kept = math.exp(-seconds / _MEMORY_SECONDS)
        self._spent = self._spent * kept + per_second * seconds
        self._tokens = self._tokens * kept + tokens_per_second * seconds

    @property
    def per_million_tokens(self) -> float | None:
        """What a million tokens cost; None where next to none were served."""
        return self._spent / self._tokens * 1e6 if self._tokens >= 1.0 else None
