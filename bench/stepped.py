"""The engine of `spillway sim-engine` in the simulator's place of its own: whole steps instead of a fluid.

A first token comes with the end of a step, so it is later by up to two of them than the fluid says: a tenth of a second where a
sequence alone makes 25 tokens a second. What real processes do is compared with this.
"""

from __future__ import annotations

from collections import deque

from spillway.sim_engine.model import Engine, EngineSpec
from spillway.simulate import engine as fluid
from spillway.simulate.traffic import Request


class SteppedEngine(fluid.Engine):
    """As `World` asks its engines. What several requests have at the end of one step is told one by one."""

    def __init__(self, index: int, spec: fluid.EngineSpec, speed: float = 1.0) -> None:
        super().__init__(index, spec, speed)
        self.steps = Engine(
            EngineSpec(
                spec.prefill_tokens_per_second,
                spec.decode_tokens_per_second,
                spec.half_speed_batch,
                spec.max_running,
                spec.kv_tokens,
                spec.step_tokens,
            )
        )
        self.steps.slowdown = 1.0 / speed
        self.requests: dict[int, Request] = {}
        self.untold: deque[tuple[Request | None, Request | None]] = deque()

    @property
    def running(self) -> int:
        return self.steps.running

    @property
    def in_flight(self) -> int:
        return len(self.requests)

    @property
    def kv_ratio(self) -> float:
        return self.steps.kv_cache_ratio

    def submit(self, request: Request, now: float) -> bool:
        self.steps.submit(request.id, request.input_tokens, request.output_tokens, now)
        self.requests[request.id] = request
        self.waiting_tokens += request.cost
        self.in_flight_tokens += request.cost
        self._next(now)
        return True

    def run(self, now: float) -> tuple[Request | None, Request | None]:
        for progress in self.steps.advance(now + 1e-9):
            request = self.requests[progress.request_id]
            if progress.first:
                self.waiting_tokens -= request.cost
            if progress.finished:
                del self.requests[request.id]
                self.in_flight_tokens -= request.cost
            if progress.first or progress.finished:
                self.untold.append((request if progress.first else None, request if progress.finished else None))
        told = self.untold.popleft() if self.untold else (None, None)
        self._next(now)
        return told

    def _next(self, now: float) -> None:
        self.at = now
        self.version += 1
        self.waiting = deque(self.requests[each] for each in self.steps.waiting_ids())
        change = self.steps.next_change_at()
        self.next_at = now if self.untold else fluid.NEVER if change is None else change
