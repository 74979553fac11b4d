"""Queue and KV cache read from the engines' own metrics at an interval, as endpoint pickers of inference gateways do.

An endpoint's score is the sum of two that are each 0..1: its queue between the longest and the shortest, and what is free of its
KV cache. The best wins, by chance among equals. Between two readings nothing is known of what went where, so readings are staggered: each router has
its own moment, as far as there are not too many to read.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from spillway.simulate.policies.base import Policy, Scene
from spillway.simulate.traffic import Request

_MAX_READINGS: Final = 4_096  # figures kept: with more routers times endpoints, routers share their moments
_SAMPLE: Final = 64
_PREFIX_WEIGHT: Final = 1.5  # beside 1 for the queue and 1 for the KV cache, as llm-d's defaults are 3 : 2 : 2
_MAP_SIZE: Final = 50_000


class QueueAndKV(Policy):
    """Scraped at intervals of `interval_seconds`."""

    interval_seconds = 0.05

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        self._groups = max(1, min(scene.routers, _MAX_READINGS // self.count))
        self._figures: list[list[tuple[int, float]]] = [[(0, 0.0)] * self.count for _ in range(self._groups)]
        self._turn = 0
        self.tick_seconds = self.interval_seconds / self._groups

    def tick(self, now: float) -> None:
        figures = self._figures[self._turn]
        scraped = self.scene.plane.scraped
        for index in range(self.count):
            figure = scraped(index, now)
            if figure is not None:
                figures[index] = figure
        self._turn = (self._turn + 1) % self._groups

    def choose(self, request: Request, now: float) -> int:
        figures = self._figures[request.router % self._groups]
        candidates: range | list[int] = range(self.count)
        if self.count > _SAMPLE:
            candidates = [int(self.random() * self.count) for _ in range(_SAMPLE)]
        if request.tried:
            candidates = [index for index in candidates if index not in request.tried]
        if not candidates:
            return -1
        queues = [figures[index][0] for index in candidates]
        shortest, longest = min(queues), max(queues)
        scale = 1.0 / (longest - shortest) if longest > shortest else 0.0
        best, most, ties = -1, -1.0, 1
        for index in candidates:
            queue, kv = figures[index]
            score = (longest - queue) * scale + 1.0 - kv + self.bonus(request, index)
            if score > most:
                best, most, ties = index, score, 1
            elif score == most:
                ties += 1
                if self.random() * ties < 1.0:
                    best = index
        return best

    def bonus(self, request: Request, index: int) -> float:
        """What an endpoint scores beside queue and KV cache."""
        return 0.0


class QueueAndKVEachSecond(QueueAndKV):
    """The same, read once a second."""

    interval_seconds = 1.0


class PrefixMap(QueueAndKV):
    """The same as at 50 ms, drawn to where this router last sent the request's prefix."""

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        self._maps: list[OrderedDict[str, int]] = [OrderedDict() for _ in range(scene.routers)]

    def bonus(self, request: Request, index: int) -> float:
        known = self._maps[request.router].get(request.prefix) == index
        return _PREFIX_WEIGHT * request.prefix_tokens / request.input_tokens if known else 0.0

    def sent(self, request: Request, now: float) -> None:
        if request.prefix_tokens:
            known = self._maps[request.router]
            known[request.prefix] = request.endpoint
            known.move_to_end(request.prefix)
            if len(known) > _MAP_SIZE:
                known.popitem(last=False)
