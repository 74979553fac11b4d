"""How hard a backend is pressed: one number, 1.0 at the bound, None when nobody knows.

Three views of the same thing, and the highest counts:

- *slots*: requests held over concurrency limits. Full slots mean that the next request waits in the inbound listener.
- *waiting*: requests that wait (inbound queue and engine queue) for each one that runs. An engine whose batch is full queues
  inside itself long before our own limit is reached: the default limit is 256, a real batch may be 16. A few that wait
  are the ordinary flicker of continuous batching, so one for each endpoint is not counted.
- *cache*: KV cache in use. Past 0.95 engines preempt requests and throw their prefill away.

The number is capped: past the cap it says nothing more, and a smoothed value would take long to come down from it.

GPU utilisation is no part of it: it stands at 100 % with room left.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PressureBounds:
    """Where each view reads 1.0."""

    slots_ratio: float = 0.85  # below 1 so that weights move before requests wait
    waiting_ratio: float = 0.25  # one waits for four that run: about a quarter of a service time of queueing
    cache_ratio: float = 0.95  # where engines begin to preempt
    cap: float = 4.0
    known_share: float = 0.5  # at least this share of the endpoints reported lately, else the sum says nothing


@dataclass(frozen=True, slots=True)
class Occupancy:
    """What is known of a backend: sums over the `known` endpoints that reported lately, out of `total`."""

    total: int
    known: int
    in_flight: int  # at the engines
    queued: int  # in inbound listeners
    engine_waiting: int  # part of `in_flight`: accepted by the engine, not running
    capacity: int  # sum of concurrency limits
    kv_cache_ratio: float | None = None


_DEFAULT_BOUNDS = PressureBounds()


def pressure(occupancy: Occupancy, bounds: PressureBounds = _DEFAULT_BOUNDS) -> float | None:
    """The pressure, or None where too little is known or there is nothing that could be pressed (no capacity)."""
    if not occupancy.known or occupancy.known < occupancy.total * bounds.known_share or not occupancy.capacity:
        return None
    slots = (occupancy.in_flight + occupancy.queued) / occupancy.capacity / bounds.slots_ratio
    waits = max(0, occupancy.queued + occupancy.engine_waiting - occupancy.known)
    running = max(1, occupancy.in_flight - occupancy.engine_waiting, occupancy.known)
    waiting = waits / running / bounds.waiting_ratio
    cache = (occupancy.kv_cache_ratio or 0.0) / bounds.cache_ratio
    return min(bounds.cap, max(slots, waiting, cache))


def smooth(previous: float | None, reading: float | None, dt_seconds: float, time_constant_seconds: float) -> float | None:
    """An exponential mean over time; an unknown reading gives an unknown value, and the first known one is taken as it is."""
    if reading is None or previous is None:
        return reading
    keep = math.exp(-max(0.0, dt_seconds) / time_constant_seconds)
    return keep * previous + (1 - keep) * reading
