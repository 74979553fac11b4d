"""`python -m bench.decisions`: CPU time of one decision, by profile and by the number of endpoints.

It calls `choose` as the proxy does, with what was compared written down for the decision record, and takes the request in and out of the
endpoint's picture, whose word is fresh each time. No socket is involved: it is the share of a request's CPU time that goes into placing it.
"""

from __future__ import annotations

import gc
import random
import sys
import time
from dataclasses import dataclass

from bench import report
from spillway_sidecar.balancing.choose import choose
from spillway_sidecar.routing.classify import Facts
from spillway_sidecar.routing.table import compile_table
from spillway_sidecar.scheduling.pool import Pool
from spillway_sidecar.scheduling.speed import ClusterSpeed
from spillway_sidecar.scheduling.state import EndpointState
from spillway_wire.loads import Load
from spillway_wire.names import RequestType, SchedulingProfile, Scorer
from spillway_wire.snapshot import BackendRef, Route, Rule, Scheduling, ScorerWeight

COUNTS = (4, 64, 256, 2000)
DECISIONS = 4000
ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Case:
    name: str
    scheduling: Scheduling | None = None
    prompt_tokens: int = 200
    prefixes: int = 0
    backends: int = 1


def _scorers(*names: Scorer) -> Scheduling:
    return Scheduling(scorers=tuple(ScorerWeight(name) for name in names))


CASES = (
    Case("Default, short prompts"),
    Case("Default, shared prefixes", None, 1500, 64),
    Case("Default, unique long prompts", None, 1500, 1 << 30),
    Case("Load + PrefixAffinity", _scorers(Scorer.LOAD, Scorer.PREFIX_AFFINITY), 1500, 64),
    Case("every scorer among endpoints", _scorers(*list(Scorer)[:8]), 1500, 64),
    Case("NodeLoad", Scheduling(SchedulingProfile.NODE_LOAD)),
    Case("LeastRequest", Scheduling(SchedulingProfile.LEAST_REQUEST)),
    Case("Balanced, 4 backends", Scheduling(SchedulingProfile.BALANCED), backends=4),
    Case("Default, 4 backends by weight", backends=4),
)


@dataclass
class View:
    routers: int
    now: float
    random: object


def _pool(name: str, count: int, rng: random.Random) -> Pool[EndpointState]:
    speed = ClusterSpeed()
    pool: Pool[EndpointState] = Pool(name, [EndpointState(f"{name}-{n}", True, speed) for n in range(count)], speed)
    pool.cost = (rng.random(), rng.random())
    for endpoint in pool.targets:
        endpoint.limit(256, 128)
        running = rng.randrange(60)
        load = Load(
            running,
            0,
            running * 500,
            256,
            engine_waiting=0,
            engine_running=running,
            kv_cache_ratio=rng.random(),
            gpu_ratio=rng.random(),
        )
        endpoint.report(load, 99.9)
    return pool


def microseconds(case: Case, count: int) -> float:
    """CPU time of a decision, the least of a few rounds: what disturbs only ever adds."""
    rng = random.Random(7)
    each = max(1, count // case.backends)
    pools = {f"p{n}": _pool(f"p{n}", each, rng) for n in range(case.backends)}
    rule = Rule("all", tuple(BackendRef(name) for name in pools), scheduling=case.scheduling)
    table = compile_table("1", [Route("r", ("m",), (rule,))], {}, lambda name: (pools[name], "m", tuple(RequestType)))
    compiled = table.routes["m"].rules[0]
    view = View(4, 100.0, rng.random)
    least = float("inf")
    for _ in range(ROUNDS):
        asked = [
            Facts(RequestType.CHAT, "m", True, case.prompt_tokens, rng.randrange(case.prefixes) + 1 if case.prefixes else 0)
            for _ in range(DECISIONS)
        ]
        held: list[tuple[EndpointState, int]] = []
        gc.collect()
        gc.disable()
        began = time.process_time_ns()
        for facts in asked:
            view.now += 0.001
            choice = choose(compiled, facts, view, (), [])
            target, cost = choice[1], facts.cost
            target.sent(cost)
            target.awaits(cost)
            target.sent_since = target.sent_since_tokens = 0
            target.reported_at = target.told_at = view.now
            held.append((target, cost))
            if len(held) > 32:
                target, cost = held.pop(0)
                target.arrived(cost)
                target.done(cost)
        least = min(least, (time.process_time_ns() - began) / DECISIONS / 1000)
        gc.enable()
        for target, cost in held:
            target.arrived(cost)
            target.done(cost)
    return least


def table() -> str:
    rows = [(case.name, *(f"{microseconds(case, count):.1f}" for count in COUNTS)) for case in CASES]
    return report.table(("CPU us/decision", *(f"{count} endpoints" for count in COUNTS)), rows)


if __name__ == "__main__":
    sys.exit(print(table()))
