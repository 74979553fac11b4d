"""Sliding counters: what happened in about the last ten seconds.

A window is a ring of one-second slots. A report's counters go into the slot of the moment it came in; reading sums the
slots that are young enough and divides by the time they really cover (nine full seconds and the part of the present one),
so a rate does not sag at the start of each second. Adding is O(1) plus one pass over the histogram, with no allocation.
"""

from __future__ import annotations

from spillway_operator.loads.figures import TrafficRates, ttft_quantile
from spillway_wire.loads import TTFT_BUCKETS_SECONDS, BackendTraffic

WINDOW_SLOTS = 10
BUCKETS = len(TTFT_BUCKETS_SECONDS) + 1
_EMPTY = (0, 0, 0, 0, 0)


class TrafficWindow:
    """Counters of one series over `WINDOW_SLOTS` seconds of a monotonic clock."""

    __slots__ = ("_counts", "_seconds", "_ttft", "touched")

    def __init__(self) -> None:
        self._seconds = [-1] * WINDOW_SLOTS  # which second a slot holds
        self._counts: list[tuple[int, int, int, int, int]] = [
            _EMPTY
        ] * WINDOW_SLOTS  # requests, errors, retries, input, output tokens
        self._ttft: list[list[int] | None] = [None] * WINDOW_SLOTS
        self.touched = 0.0  # when the last report came in

    def add(self, now: float, traffic: BackendTraffic) -> None:
        """Count one report's entry at `now`."""
        slot = self._slot(now, traffic.requests, traffic.errors, traffic.retries, traffic.input_tokens, traffic.output_tokens)
        if traffic.ttft:
            histogram = self._ttft[slot]
            if histogram is None:
                self._ttft[slot] = list(traffic.ttft)
            else:
                for index, count in enumerate(traffic.ttft):
                    if count:
                        histogram[index] += count

    def add_refused(self, now: float, requests: int) -> None:
        """Count requests that ended in an error before any backend was chosen."""
        self._slot(now, requests, requests, 0, 0, 0)

    def _slot(self, now: float, *counts: int) -> int:
        second = int(now)
        slot = second % WINDOW_SLOTS
        if self._seconds[slot] != second:
            self._seconds[slot] = second
            self._counts[slot] = _EMPTY
            self._ttft[slot] = None
        one, two, three, four, five = self._counts[slot]
        requests, errors, retries, input_tokens, output_tokens = counts
        self._counts[slot] = (one + requests, two + errors, three + retries, four + input_tokens, five + output_tokens)
        self.touched = now
        return slot

    def requests(self, now: float) -> int:
        """Requests in the window."""
        oldest = int(now) - WINDOW_SLOTS + 1
        return sum(counts[0] for second, counts in zip(self._seconds, self._counts, strict=True) if second >= oldest)

    def idle(self, now: float) -> bool:
        """Whether nothing of the window is left."""
        return now - self.touched > WINDOW_SLOTS + 1


class SumWindow:
    """One counter over `WINDOW_SLOTS` seconds of a monotonic clock."""

    __slots__ = ("_seconds", "_sums", "touched")

    def __init__(self) -> None:
        self._seconds = [-1] * WINDOW_SLOTS
        self._sums = [0] * WINDOW_SLOTS
        self.touched = 0.0

    def add(self, now: float, count: int) -> None:
        """Count so many at `now`."""
        second = int(now)
        slot = second % WINDOW_SLOTS
        if self._seconds[slot] != second:
            self._seconds[slot], self._sums[slot] = second, 0
        self._sums[slot] += count
        self.touched = now

    def per_second(self, now: float) -> float:
        """The rate over the window."""
        oldest = int(now) - WINDOW_SLOTS + 1
        total = sum(count for second, count in zip(self._seconds, self._sums, strict=True) if second >= oldest)
        return total / max(1.0, now - oldest)


def rates(windows: list[TrafficWindow], now: float) -> TrafficRates:
    """The rates of several series taken together."""
    oldest = int(now) - WINDOW_SLOTS + 1
    span = max(1.0, now - oldest)
    requests = errors = retries = input_tokens = output_tokens = 0
    ttft = [0] * BUCKETS
    for window in windows:
        for slot, second in enumerate(window._seconds):  # noqa: SLF001 - the reader of the ring
            if second < oldest:
                continue
            counts = window._counts[slot]  # noqa: SLF001
            requests += counts[0]
            errors += counts[1]
            retries += counts[2]
            input_tokens += counts[3]
            output_tokens += counts[4]
            histogram = window._ttft[slot]  # noqa: SLF001
            if histogram is not None:
                ttft = [mine + its for mine, its in zip(ttft, histogram, strict=True)]
    return TrafficRates(
        requests_per_second=requests / span,
        error_ratio=errors / requests if requests else 0.0,
        attempts=requests + retries,
        failed_ratio=(errors + retries) / (requests + retries) if requests + retries else 0.0,
        input_tokens_per_second=input_tokens / span,
        output_tokens_per_second=output_tokens / span,
        ttft_p95_seconds=ttft_quantile(ttft, 0.95),
        requests=requests,
    )
