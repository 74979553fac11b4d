"""How fast a cluster is on average: what one endpoint's times are compared with."""

from __future__ import annotations

from typing import Final

from spillway_sidecar.scheduling.lateness import Lateness

BASE_TOKENS: Final = 256  # what a request costs an engine however short its prompt
EXPECTED_OUTPUT_TOKENS: Final = 64
SPEED_GAIN: Final = 0.05


def request_cost(prompt_tokens: int) -> int:
    """Load of one request in estimated tokens."""
    return prompt_tokens + EXPECTED_OUTPUT_TOKENS


class ClusterSpeed:
    """Mean seconds to first token per unit of work in a cluster, apart for streams and whole replies."""

    __slots__ = ("late", "mean_cost", "stream", "unary")

    def __init__(self) -> None:
        self.late = Lateness()
        self.stream = 0.0
        self.unary = 0.0
        self.mean_cost = float(BASE_TOKENS)

    def observe(self, stream: bool, seconds: float, prompt_tokens: int, ahead_tokens: int = 0) -> float:
        """Takes one observation in; returns it relative to the mean before it (1 is ordinary).

        What was ahead of a stream is work that its time paid for: a queue is not slowness.
        """
        self.mean_cost += SPEED_GAIN * (prompt_tokens + EXPECTED_OUTPUT_TOKENS - self.mean_cost)
        mean = self.stream if stream else self.unary
        per_work = seconds / (BASE_TOKENS + prompt_tokens + (ahead_tokens if stream else 0))
        if mean > 0.0:
            relative = per_work / mean
            # One outlier moves the mean as far as a request four times as slow would.
            mean *= 1.0 + SPEED_GAIN * ((min(4.0, relative)) - 1.0)
        else:
            relative, mean = 1.0, per_work
        self.late.observe(stream, relative)
        if stream:
            self.stream = mean
        else:
            self.unary = mean
        return relative

    def late_seconds(self, stream: bool, prompt_tokens: int, ahead_tokens: int) -> float:
        """After how long the first token of such a request is late; 0 while that is not known."""
        if stream:
            return self.stream * (BASE_TOKENS + prompt_tokens + ahead_tokens) * self.late.stream
        return self.unary * (BASE_TOKENS + prompt_tokens) * self.late.unary
