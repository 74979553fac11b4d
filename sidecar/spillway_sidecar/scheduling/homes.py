"""Where a key is at home: by rendezvous hashing among few endpoints, by multi-probe consistent hashing among many; all routers agree without talking.

Among many the endpoints are points on a ring. A key asks at `PROBES` places of it, and the endpoints that follow closest after one are its homes; so each
gets nearly the same share of the keys with one point each, and when an endpoint comes or goes only its own keys change hands.
Keys fall into `SLOTS` slots whose homes are found when one is first asked for: a request looks one thing up, among four endpoints or two
thousand.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Final, Generic, TypeVar
from zlib import crc32

from spillway_sidecar.scheduling.state import EndpointState

SLOTS: Final = 4096
RENDEZVOUS_MOST: Final = 64  # a few points on a ring may lie close together, and the second of two then has hardly a key
PROBES: Final = 21  # the fullest then gets 1.05 times the mean
_MASK: Final = (1 << 64) - 1

E = TypeVar("E", bound=EndpointState)


def _mixed(value: int) -> int:
    """splitmix64's finalizer: each bit of the value moves half of the bits of the result."""
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


class Homes(Generic[E]):
    """The homes of keys among `endpoints`, which do not change."""

    __slots__ = ("_by_slot", "_endpoints", "_points", "_ring")

    def __init__(self, endpoints: Sequence[E]) -> None:
        self._endpoints = endpoints
        self._by_slot: dict[int, tuple[E, E] | None] = {}
        self._points: list[int] = []
        self._ring: list[E] = []

    def of(self, key: int) -> tuple[E, E] | None:
        """The key's home, and the one that takes over where that is full or away: the same where there is no other; None without endpoints."""
        slot = key % SLOTS
        try:
            return self._by_slot[slot]
        except KeyError:
            homes = self._by_slot[slot] = self._find(slot)
            return homes

    def _find(self, slot: int) -> tuple[E, E] | None:
        if not self._ring:
            placed = sorted((_mixed(crc32(e.id.encode())), index) for index, e in enumerate(self._endpoints))
            self._points = [point for point, _ in placed]
            self._ring = [self._endpoints[index] for _, index in placed]
        points, ring = self._points, self._ring
        count = len(ring)
        if not count:
            return None
        if count <= RENDEZVOUS_MOST:
            first, second = (*sorted(range(count), key=lambda at: _mixed(points[at] ^ _mixed(slot)))[:2], 0)[:2]
            return ring[first], ring[second]
        near: dict[int, int] = {}
        for probe in range(PROBES):
            place = _mixed(slot * PROBES + probe)
            at = bisect_left(points, place) % count
            near[at] = min((points[at] - place) & _MASK, near.get(at, _MASK))
        closest, *others = sorted(near, key=near.__getitem__)
        return ring[closest], ring[others[0] if others else (closest + 1) % count]
