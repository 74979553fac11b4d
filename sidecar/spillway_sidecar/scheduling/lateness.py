"""When a first token is late: how much longer than expected all but one in a hundred of a cluster's first tokens take.

`ClusterSpeed` expects a time for a request of some size behind some queue; what a first token took in relation to that is
counted here, apart for streams and whole replies, in buckets a quarter apart. Counts fade, so that the bound follows
what the cluster does at present. Under `MIN_COUNT` observations nothing is late.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

RATIO: Final = 1.25
BOUNDS: Final = tuple(0.1 * RATIO**n for n in range(32))  # up to a hundred times the mean
FADE: Final = 0.97  # a second: half of what is counted is of the last 23 s
MIN_COUNT: Final = 30.0
QUANTILE: Final = 0.99


class Lateness:
    """Faded counts of relative times; `stream` and `unary` are the bounds, 0 while unknown."""

    __slots__ = ("_stream_counts", "_unary_counts", "stream", "unary")

    def __init__(self) -> None:
        self.stream = 0.0
        self.unary = 0.0
        self._stream_counts = [0.0] * (len(BOUNDS) + 1)
        self._unary_counts = [0.0] * (len(BOUNDS) + 1)

    def observe(self, stream: bool, relative: float) -> None:
        """Takes one time to first token in, in relation to what was expected."""
        (self._stream_counts if stream else self._unary_counts)[bisect_left(BOUNDS, relative)] += 1.0

    def fold(self) -> None:
        """Brings the bounds up to date, and fades the counts. Called each second."""
        self.stream = _bound(self._stream_counts)
        self.unary = _bound(self._unary_counts)


def _bound(counts: list[float]) -> float:
    total = sum(counts)
    late = total * (1.0 - QUANTILE)
    bound = 0.0
    if total >= MIN_COUNT:
        index = len(counts) - 1
        while index > 0 and (late := late - counts[index]) >= 0.0:
            index -= 1
        bound = BOUNDS[min(index, len(BOUNDS) - 1)]
    for index, count in enumerate(counts):
        counts[index] = count * FADE if count > 0.01 else 0.0
    return bound
