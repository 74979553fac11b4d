"""What scheduling is told: of a request, and by the router that has it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from spillway_sidecar.scheduling.speed import EXPECTED_OUTPUT_TOKENS


class Request:
    """A request as far as its placement goes. Keys are hashes; 0 is none."""

    __slots__ = ("adapter", "limit", "prefix", "prompt_tokens", "session", "shared")

    def __init__(self, prompt_tokens: int, prefix: int = 0, session: int = 0, adapter: str = "") -> None:
        self.prompt_tokens = prompt_tokens  # estimated
        self.prefix = prefix  # of the start of its prompt
        self.session = session  # of the session that it belongs to
        self.adapter = adapter  # the model's name as it is sent upstream, set with the backend
        self.shared = -1.0  # set by a picker: how likely others begin like it; negative: not asked yet
        self.limit = 0  # set by a picker: tokens that may wait before it where it goes, for the next best not to be better; 0: any

    @property
    def cost(self) -> int:
        """Load of the request in estimated tokens."""
        return self.prompt_tokens + EXPECTED_OUTPUT_TOKENS


class View(Protocol):
    """A router's view: the live routers it reckons with, the time, and chance in [0, 1)."""

    routers: int
    now: float
    random: Callable[[], float]
