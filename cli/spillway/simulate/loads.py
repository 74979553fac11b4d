"""What endpoints say about themselves, and what becomes of it on the way.

A sidecar knows exactly what passes through it, and learns from that whether its engine is short of places; what the engine says (waiting, running, KV) it samples once a second. Reports ride on
replies, when a request is admitted and when its first token comes, and are sent to all routers each interval. A fault lies about one endpoint, or
loses or delays what all say; it strikes the scraped figures of other policies just the same.
"""

from __future__ import annotations

import random
from collections import deque
from typing import Final

from spillway.simulate.engine import Engine
from spillway.simulate.faults import Fault
from spillway_sidecar.scheduling.places import Places
from spillway_wire.loads import Load

ENGINE_SAMPLE_SECONDS: Final = 1.0
MAX_CONCURRENCY: Final = 256  # a backend's defaults
MAX_QUEUE: Final = 128
OLD_SECONDS: Final = 5.0
HISTORY_SECONDS: Final = 0.1
FROZEN: Final = Load(
    in_flight=200, queued=0, in_flight_tokens=200_000, max_concurrency=MAX_CONCURRENCY, engine_waiting=136, engine_running=64, kv_cache_ratio=1.0,
    waiting_tokens=100_000,
)  # fmt: skip


class LoadPlane:
    """Loads of all endpoints as they are told."""

    def __init__(self, engines: list[Engine], fault: Fault | None, faulty: int, rng: random.Random) -> None:
        self._engines = engines
        self._fault = fault
        self._faulty = faulty
        self._random = rng.random
        self._samples: list[tuple[float, int, int, float]] = [(-ENGINE_SAMPLE_SECONDS, 0, 0, 0.0)] * len(engines)
        self._history: deque[tuple[float, list[Load]]] = deque()
        self.places = [Places() for _ in engines]
        self.live = False  # whether the fault is in force

    def remember(self, now: float) -> None:
        """Keeps the true loads for those that are told late."""
        history = self._history
        history.append((now, [self._true(index, now) for index in range(len(self._engines))]))
        while len(history) > 1 and history[1][0] <= now - OLD_SECONDS:
            history.popleft()

    def told(self, index: int, now: float) -> Load | None:
        """What an endpoint's report says at this moment; None where it does not arrive or is no load."""
        if self.live:
            fault = self._fault
            if fault is Fault.LOST and self._random() < 0.5:
                return None
            if fault is Fault.OLD and self._history:
                return self._history[0][1][index]
            if index == self._faulty:
                if fault is Fault.ZERO:
                    return Load(
                        max_concurrency=MAX_CONCURRENCY, engine_waiting=0, engine_running=0, kv_cache_ratio=0.0, waiting_tokens=0
                    )
                if fault is Fault.FROZEN:
                    return FROZEN
                if fault is Fault.NAN:
                    return None  # the wire does not decode it
        return self._true(index, now)

    def waiting_tokens(self, index: int) -> int:
        """What the sidecar counts as waiting when it declines or does not; one that lies says what it tells."""
        if self.live and index == self._faulty:
            if self._fault is Fault.ZERO:
                return 0
            if self._fault is Fault.FROZEN:
                return FROZEN.waiting_tokens or 0
        return self._engines[index].waiting_tokens + (self.places[index].wait_tokens or 0)

    def _true(self, index: int, now: float) -> Load:
        engine = self._engines[index]
        in_flight = engine.in_flight
        sampled_at, waiting, running, kv = self._samples[index]
        if now - sampled_at >= ENGINE_SAMPLE_SECONDS:
            waiting, running, kv = len(engine.waiting), engine.running, engine.kv_ratio
            self._samples[index] = (now, waiting, running, kv)
        return Load(
            in_flight=min(in_flight, MAX_CONCURRENCY),
            queued=max(0, in_flight - MAX_CONCURRENCY),
            in_flight_tokens=engine.in_flight_tokens,
            waiting_tokens=engine.waiting_tokens,
            place_tokens=self.places[index].wait_tokens,
            max_concurrency=MAX_CONCURRENCY,
            engine_waiting=waiting,
            engine_running=running,
            kv_cache_ratio=kv,
        )

    def scraped(self, index: int, now: float) -> tuple[int, float] | None:
        """An engine's own queue and KV figures, read this moment; None where they do not come."""
        if self.live and (self._fault in {Fault.LOST, Fault.OLD} or index == self._faulty):
            load = self.told(index, now)
            return None if load is None else (load.engine_waiting or 0, load.kv_cache_ratio or 0.0)
        engine = self._engines[index]
        return len(engine.waiting), engine.kv_ratio
