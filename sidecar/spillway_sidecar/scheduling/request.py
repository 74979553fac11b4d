"""What scheduling is told: of a request, and by the router that has it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Request(Protocol):
    """A request as far as its placement goes. Keys are hashes; 0 is none."""

    prompt_tokens: int  # estimated
    prefix: int  # of the start of its prompt
    session: int  # of the session that it belongs to
    adapter: str  # the model's name as it is sent upstream
    shared: float  # set by a picker: how likely others begin like it; negative: not asked yet
    limit: int  # set by a picker: tokens that may wait before it where it goes, for the next best not to be better; 0: any

    @property
    def cost(self) -> int:
        """Load of the request in estimated tokens."""
        raise NotImplementedError


class View(Protocol):
    """A router's view: the live routers it reckons with, the time, and chance in [0, 1)."""

    routers: int
    now: float
    random: Callable[[], float]
