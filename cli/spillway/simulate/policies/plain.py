"""What load balancers do: policies by turns, by chance, or by a router's own counts."""

from __future__ import annotations

from spillway.simulate.policies.base import Policy, Scene
from spillway.simulate.traffic import Request

_SCAN: int = 64  # above so many endpoints a sample of them stands for all


class RoundRobin(Policy):
    """Each router takes turns, from a place of its own."""

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        self._next = [int(self.random() * self.count) for _ in range(scene.routers)]

    def choose(self, request: Request, now: float) -> int:
        for _ in range(self.count):
            index = self._next[request.router] = (self._next[request.router] + 1) % self.count
            if index not in request.tried:
                return index
        return -1


class Random(Policy):
    """Any, alike."""

    def choose(self, request: Request, now: float) -> int:
        if not request.tried:
            return int(self.random() * self.count)
        others = self.other_than(request.tried)
        return others[int(self.random() * len(others))] if others else -1


class LeastRequest(Policy):
    """The one where this router has the fewest requests in flight; by chance among equals."""

    sample = _SCAN

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        self._in_flight = [[0] * self.count for _ in range(scene.routers)]

    def choose(self, request: Request, now: float) -> int:
        counts = self._in_flight[request.router]
        candidates: range | list[int] = range(self.count)
        if self.count > self.sample:
            candidates = [int(self.random() * self.count) for _ in range(self.sample)]
        best, least, ties = -1, 0, 1
        for index in candidates:
            count = counts[index]
            if best >= 0 and count > least:
                continue
            if request.tried and index in request.tried:
                continue
            if best < 0 or count < least:
                best, least, ties = index, count, 1
            else:
                ties += 1
                if self.random() * ties < 1.0:
                    best = index
        return best

    def sent(self, request: Request, now: float) -> None:
        self._in_flight[request.router][request.endpoint] += 1

    def ended(self, request: Request, now: float, *, ok: bool) -> None:
        self._in_flight[request.router][request.endpoint] -= 1


class PowerOfTwo(LeastRequest):
    """The better of two drawn by chance, by this router's own counts."""

    sample = 2
