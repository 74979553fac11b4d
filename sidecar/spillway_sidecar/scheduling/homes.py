"""Where a key is at home: endpoints by rendezvous hashing, so that all routers agree without talking.

Each key falls into one of `SLOTS` slots, and a slot's homes are those endpoints whose hash with it is highest. They are found when the
slot is first asked for and kept as long as the pool's endpoints stay: a request looks one thing up, among four endpoints or
two thousand. When endpoints come or go, only the slots of which they are homes change hands.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from heapq import nlargest
from typing import Final, Generic, TypeVar

from spillway_sidecar.scheduling.state import EndpointState

SLOTS: Final = 4096
DEPTH: Final = 2  # the first, and the one that takes over where the first may not be used or is too full
_ODD: Final = 0x9E3779B97F4A7C15
_MASK: Final = (1 << 64) - 1

E = TypeVar("E", bound=EndpointState)


class Homes(Generic[E]):
    """The homes of keys among `endpoints`, which do not change."""

    __slots__ = ("_by_slot", "_endpoints", "_seeds")

    def __init__(self, endpoints: Sequence[E]) -> None:
        self._endpoints = endpoints
        self._seeds: list[int] = []
        self._by_slot: dict[int, tuple[E, ...]] = {}

    def of(self, key: int) -> tuple[E, ...]:
        """The homes of a key, the first first; fewer than `DEPTH` only where there are no more endpoints."""
        slot = key % SLOTS
        return self._by_slot.get(slot) or self._find(slot)

    def _find(self, slot: int) -> tuple[E, ...]:
        if not self._seeds:
            self._seeds = [int.from_bytes(blake2b(e.id.encode(), digest_size=8).digest(), "little") for e in self._endpoints]
        salt = ((slot + 1) * _ODD) & _MASK
        ranks = [((seed ^ salt) * _ODD & _MASK) >> 16 for seed in self._seeds]
        first = nlargest(DEPTH, range(len(ranks)), key=ranks.__getitem__)
        homes = self._by_slot[slot] = tuple(self._endpoints[index] for index in first)
        return homes
