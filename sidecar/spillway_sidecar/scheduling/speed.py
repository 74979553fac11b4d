"""How fast a cluster is on average, and how much waits at its endpoints: what one endpoint is compared with."""

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
    """Mean seconds to first token per token of work in a cluster, apart for streams and whole replies; means of requests and of waiting work."""

    __slots__ = ("late", "mean_cost", "others", "stream", "success_ratio", "unary", "waiting")

    def __init__(self) -> None:
        self.late = Lateness()
        self.stream = 0.0
        self.unary = 0.0
        self.mean_cost = float(BASE_TOKENS)
        self.waiting = 0.0  # tokens before one more request, as endpoints tell
        self.others = 0.0  # of that, what is not this router's
        self.success_ratio = 1.0

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

    def told(self, waiting_tokens: float, others_tokens: float) -> None:
        """Takes in what one endpoint says waits there, and what of it is others'; no word moves a mean further than a busy endpoint's would."""
        self.waiting += SPEED_GAIN * (min(waiting_tokens, 8.0 * self.waiting + 1000.0) - self.waiting)
        self.others += SPEED_GAIN * (min(others_tokens, 8.0 * self.others + 1000.0) - self.others)

    def ended(self, *, well: bool) -> None:
        """Takes in how one attempt ended."""
        self.success_ratio += SPEED_GAIN * (float(well) - self.success_ratio)

    def first_token_seconds(self, prompt_tokens: int) -> float:
        """The usual time to first token of such a request with what usually waits before it; 0 while it is not known."""
        return (
            self.stream * (BASE_TOKENS + prompt_tokens + self.waiting)
            if self.stream
            else self.unary * (BASE_TOKENS + prompt_tokens)
        )

    def late_seconds(self, stream: bool, prompt_tokens: int, ahead_tokens: int) -> float:
        """After how long the first token of such a request is late; 0 while that is not known."""
        if stream:
            return self.stream * (BASE_TOKENS + prompt_tokens + ahead_tokens) * self.late.stream
        return self.unary * (BASE_TOKENS + prompt_tokens) * self.late.unary
