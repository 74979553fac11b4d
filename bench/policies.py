"""Choosing an endpoint, with real processes and as the simulator says: `python -m bench.policies`.

One recorded trace goes through `spillway run` with simulated engines, one of them at half speed, once for each policy. Its requests
go to the gateway and to the route listeners of the sidecars in turn: that many routers, each with its own picture. All policies are
configurations of the same proxies (`scheduling` of the route), so what differs is the choice and nothing else. The same trace then
goes through the simulator with the same engines, step by step, and as many routers.

Goodput counts requests whose first token comes within the declared time. Times are the client's; the machine's load is printed beside them.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import json
import math
import os
import random
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from tests.integration.standalone.conftest import Standalone

from bench.peers import OUT
from bench.standalone import POOL_BACKEND, running
from bench.stepped import SteppedEngine
from bench.traffic import Arrival, Sent, play, quantile
from spillway.simulate.engine import EngineSpec
from spillway.simulate.policies import find
from spillway.simulate.traffic import Arrival as Simulated
from spillway.simulate.world import Setting, World

ENDPOINTS, SLOW = 4, 1
ENGINE = EngineSpec(
    prefill_tokens_per_second=8_000.0, decode_tokens_per_second=25.0, half_speed_batch=64, max_running=16, kv_tokens=40_000
)
PROMPT, OUTPUT = (100, 4000), (20, 80)

# Name; the route's `scheduling`; the simulator's name of the same.
POLICIES = (
    ("round robin", "{profile: RoundRobin}", "round-robin"),
    ("least request", "{profile: LeastRequest}", "least-request"),
    ("queue + KV", "{scorers: [{name: QueueDepth}, {name: KVCache}]}", "queue-kv-1s"),
    ("ours", "{profile: Default}", "ours"),
)
RESOURCES = (
    POOL_BACKEND
    + """
apiVersion: spillway.dev/v1alpha1
kind: ModelRoute
metadata: {{name: chat}}
spec:
  models: [chat]
  rules: [{{name: all, backendRefs: [{{name: pool}}]}}]
  scheduling: {scheduling}
  timeouts: {{firstToken: 60s}}
  flowControl: {{maxWait: 60s}}
"""
)
POOL = (
    f"simulate: {{pool: {{replicas: {ENDPOINTS}, prefillRate: {ENGINE.prefill_tokens_per_second:g}, decodeRate: {ENGINE.decode_tokens_per_second:g},"
    f" maxRunning: {ENGINE.max_running}, kvTokens: {ENGINE.kv_tokens}}}}}\n"
)


def record(seed: int, load: float, seconds: float) -> list[Arrival]:
    """A trace of that share of what the engines can do at most: prompts by the logarithm alike, arrivals at random."""
    rng = random.Random(seed)
    low, high = PROMPT
    mean_prompt = (high - low) / math.log(high / low)
    rate = load * (ENDPOINTS - SLOW / 2) * ENGINE.requests_per_second(mean_prompt, sum(OUTPUT) / 2)
    trace, at = [], 0.0
    while (at := at + rng.expovariate(rate)) < seconds:
        trace.append(Arrival(round(at, 6), round(low * (high / low) ** rng.random()), rng.randint(*OUTPUT)))
    return trace


def real(trace: Sequence[Arrival], scheduling: str) -> list[Sent]:
    """What a client sees of it under `spillway run`."""
    with running({"all.yaml": RESOURCES.format(scheduling=scheduling), "spillway.yaml": POOL}) as standalone:
        for number in range(ENDPOINTS - SLOW, ENDPOINTS):
            slow_down(standalone, f"pool-{number}")
        return asyncio.run(play(route_ports(standalone), trace, "chat"))


def route_ports(standalone: Standalone) -> list[int]:
    """Where the gateway and the sidecars route."""
    ports = []
    for pid in standalone.pids("spillway_sidecar"):
        command = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
        ports.append(int(command[command.index("--port") + 1]))
    return sorted(ports)


def slow_down(standalone: Standalone, name: str) -> None:
    data = json.dumps({"slow": {"factor": 2}}).encode()
    urllib.request.urlopen(
        urllib.request.Request(standalone.engine_url(name) + "/fault", data=data, method="POST"), timeout=5
    ).read()


def simulated(trace: Sequence[Arrival], warmup: float, slo: float) -> dict[str, tuple[float, float, float]]:
    """p50, p99 and goodput by the simulator's name; the engines work in whole steps, as the real processes' do."""
    setting = Setting(routers=ENDPOINTS + 1, endpoints=ENDPOINTS, slow_endpoints=SLOW, engine=ENGINE)
    arrivals = [Simulated(a.at_seconds, a.prompt_tokens, a.output_tokens) for a in trace]
    found = {}
    for _, _, name in POLICIES:
        figures = []
        for seed in range(5):  # of the policies' dice; the trace is the same
            run = World(setting, find(name), seed, SteppedEngine).run(arrivals)
            times = [r.first_at - r.arrived_at for r in run.requests if r.arrived_at >= warmup and not r.failed]
            figures.append((quantile(times, 0.5), quantile(times, 0.99), sum(t <= slo for t in times) / len(times)))
        found[name] = tuple(sum(column) / len(figures) for column in zip(*figures, strict=True))
    return found  # type: ignore[return-value]


def write(trace: Sequence[Arrival]) -> Path:
    """The trace as `spillway simulate --trace` reads it."""
    OUT.mkdir(parents=True, exist_ok=True)
    path = OUT / "policies.csv"
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["arrival_s", "input_tokens", "output_tokens", "prefix_id"])
        table.writerows([a.at_seconds, a.prompt_tokens, a.output_tokens, ""] for a in trace)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--load", type=float, default=0.8, metavar="SHARE")
    parser.add_argument("--seconds", type=float, default=100.0)
    parser.add_argument("--warmup", type=float, default=10.0, metavar="SECONDS")
    parser.add_argument("--slo-ttft", type=float, default=1.0, metavar="SECONDS")
    arguments = parser.parse_args()
    trace = record(arguments.seed, arguments.load, arguments.warmup + arguments.seconds)
    path = write(trace)
    print(f"{len(trace)} requests in {trace[-1].at_seconds:.0f} s ({path}), {ENDPOINTS} engines, {SLOW} of them at half speed")
    predicted = simulated(trace, arguments.warmup, arguments.slo_ttft)
    found = {}
    for name, scheduling, of_simulator in POLICIES:
        busy = os.getloadavg()[0]
        records = [r for r in real(trace, scheduling) if r.arrival.at_seconds >= arguments.warmup]
        times = [r.ttft for r in records]
        found[of_simulator] = (
            quantile(times, 0.5),
            quantile(times, 0.99),
            sum(t <= arguments.slo_ttft for t in times) / len(times),
        )
        print(
            f"  {name}: done, failed {sum(r.status != 200 for r in records)}, load of the machine {busy:.1f} to {os.getloadavg()[0]:.1f}",
            flush=True,
        )
    ours, foreseen = found["ours"], predicted["ours"]
    print(f"{'':14} real: p50      p99  goodput   ours/it: p99 goodput    simulated: p50      p99  goodput   ours/it: p99 goodput")
    for name, _, of_simulator in POLICIES:
        line = f"{name:14}"
        for figures, best in ((found[of_simulator], ours), (predicted[of_simulator], foreseen)):
            p50, p99, goodput = figures
            line += f"    {p50:6.3f} s {p99:6.3f} s  {goodput:6.3f}      {best[1] / p99:10.2f} {best[2] / goodput if goodput else math.inf:7.2f}         "
        print(line)


if __name__ == "__main__":
    main()
