"""What clients ask of a cluster that scales, in tokens: of prompts and of answers, whoever served them or whether anybody did.

A request counts when it comes, with the answer that is usual here; when it has ended it is put right. It counts once, however
often it is tried.
"""

from __future__ import annotations

from typing import Final

from spillway_sidecar.scheduling.speed import EXPECTED_OUTPUT_TOKENS

ANSWER_GAIN: Final = 0.05


class Arrivals:
    """Tokens since the last `drain`. `quiet`: none since then, nor between that and the one before."""

    __slots__ = ("_tokens", "answer_tokens", "quiet")

    def __init__(self) -> None:
        self.answer_tokens = float(EXPECTED_OUTPUT_TOKENS)  # the mean
        self.quiet = True
        self._tokens = 0

    def add(self, prompt_tokens: int) -> int:
        """A request has come; returns what it counts for."""
        tokens = prompt_tokens + int(self.answer_tokens)
        self._tokens += tokens
        self.quiet = False
        return tokens

    def correct(self, counted: int, prompt_tokens: int, answer_tokens: int) -> None:
        """It has ended."""
        self._tokens += prompt_tokens + answer_tokens - counted
        self.answer_tokens += ANSWER_GAIN * (answer_tokens - self.answer_tokens)

    def drain(self) -> int:
        """What has come since the last call; what was counted too much is taken off the next."""
        tokens = max(0, self._tokens)
        self._tokens -= tokens
        self.quiet = tokens == 0
        return tokens
