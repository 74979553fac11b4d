"""A token bucket: so many at once, so many a second after that. Pure; the caller passes monotonic `now`."""

from __future__ import annotations


class TokenBucket:
    """Holds at most `burst` tokens and gains `per_second`."""

    def __init__(self, *, per_second: float, burst: int) -> None:
        if per_second <= 0 or burst < 1:
            raise ValueError("a budget has a rate above 0 and a burst of at least 1")
        self._per_second = per_second
        self._burst = float(burst)
        self._tokens = float(burst)
        self._at: float | None = None

    def take(self, now: float) -> float:
        """0.0 and a token is taken, or the seconds until there is one."""
        if self._at is not None:
            self._tokens = min(self._burst, self._tokens + max(0.0, now - self._at) * self._per_second)
        self._at = now if self._at is None else max(self._at, now)
        if self._tokens >= 1.0:
            self._tokens -= 1.0
            return 0.0
        return (1.0 - self._tokens) / self._per_second

    def info(self) -> dict[str, float]:
        """Tokens left at the last look, and the bounds."""
        return {"tokens": round(self._tokens, 1), "per_second": self._per_second, "burst": self._burst}
