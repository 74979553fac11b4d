"""Backends by condition, with real processes: `python -m bench.spill`.

A local pool of simulated engines, and one outside that stands for a provider. Printed:
* spill: how much of the traffic goes out at twice the pool's capacity, and what those that stay wait; how soon it is over after the peak;
* fallback: how soon traffic leaves a pool after the evidence that it fails, or is slow, and how soon it is back when the pool is well.

Capacity is measured first, in the same processes. Times are the client's; the machine's load is printed beside them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import threading
import time
import urllib.request
from collections.abc import Sequence
from typing import Any

from tests.integration.standalone.conftest import Standalone

from bench.standalone import POOL_BACKEND, provider, running
from bench.traffic import Arrival, Sent, play, poisson, quantile, saturate

RESOURCES = (
    POOL_BACKEND
    + """
apiVersion: spillway.dev/v1alpha1
kind: ModelBackend
metadata: {{name: provider}}
spec: {{provider: OpenAICompatible, model: provider-model, external: {{url: "http://127.0.0.1:{port}/v1"}}}}
---
apiVersion: spillway.dev/v1alpha1
kind: ModelRoute
metadata: {{name: chat}}
spec:
  models: [chat]
  rules:
  - name: all
    backendRefs: [{{name: pool, priority: 0}}, {{name: provider, priority: 1}}]
    {conditions}
  timeouts: {{firstToken: 60s}}
  retries: {{maxAttempts: 3, budgetPercent: 100}}
---
apiVersion: spillway.dev/v1alpha1
kind: ModelRoute
metadata: {{name: alone}}
spec:
  models: [alone]
  rules: [{{name: all, backendRefs: [{{name: pool}}]}}]
  flowControl: {{maxWait: 60s}}
"""
)
POOL = "simulate: {pool: {replicas: 2, decodeRate: 25, prefillRate: 20000, maxRunning: 16}}\n"
FILL_SECONDS = 5.0
PROMPT, OUTPUT = (50, 300), (20, 60)
PROVIDER = ("--max-running", "512", "--decode-rate", "60", "--half-speed-batch", "512", "--prefill-rate", "100000")


def spill(seed: int, peak_seconds: float, max_wait: float) -> None:
    with provider(*PROVIDER) as port:
        files = {"all.yaml": RESOURCES.format(port=port, conditions=f"spill: {{maxWait: {max_wait:g}s}}"), "spillway.yaml": POOL}
        with running(files) as standalone:
            # Twice as many at a time as run at once: there is always a queue.
            can = asyncio.run(saturate(standalone.port, 64, 30.0, "alone", PROMPT, OUTPUT))
            calm = 20.0
            trace = poisson(seed, [(calm, 0.5 * can), (peak_seconds, 2 * can), (40.0, 0.5 * can)], PROMPT, OUTPUT)
            watch = Watch(standalone)
            with watch:
                records = asyncio.run(play(standalone.port, trace, "chat"))
            begin = records[0].began - records[0].arrival.at_seconds
            peak = [r for r in records if calm <= r.arrival.at_seconds < calm + peak_seconds]
            out = [r for r in records if r.model == "provider-model"]
            out_peak = [r for r in peak if r.model == "provider-model"]
            stayed = [r.ttft for r in peak if r.model == "pool-model"]
            steady = [r for r in peak if r.arrival.at_seconds >= calm + FILL_SECONDS]  # slots and queue have filled
            steady_out = sum(r.model == "provider-model" for r in steady)
            excess = len(steady) - can * (peak_seconds - FILL_SECONDS)
            after = max((r.began - begin - calm - peak_seconds for r in out), default=0.0)
            print(
                f"spill, maxWait {max_wait:g} s, seed {seed}: capacity {can:.1f}/s; {len(peak)} requests in {peak_seconds:g} s = {len(peak) / peak_seconds / can:.2f} of it"
            )
            print(
                f"  from {FILL_SECONDS:g} s on: excess {excess:.0f} of {len(steady)} (share {excess / len(steady):.3f}), went out {steady_out} (share {steady_out / len(steady):.3f}) = {steady_out / excess:.2f} of the excess; before the peak {len([r for r in out if r.arrival.at_seconds < calm])}"
            )
            print(
                f"  first token, those that stayed: p50 {quantile(stayed, 0.5):.2f} s, p99 {quantile(stayed, 0.99):.2f} s, max {max(stayed):.2f} s; all: p99 {quantile([r.ttft for r in peak], 0.99):.2f} s (bound {1.2 * max_wait:.2f} s)"
            )
            print(
                f"  after the peak: last one out {after:.1f} s, status share 0 again {watch.since(begin + calm + peak_seconds):.1f} s; failed {len([r for r in records if r.status != 200])} of {len(records)}"
            )
            for record in out_peak[-1:]:
                print(f"  record: {went(standalone, record)}")


class Watch:
    """Polls the route's status, for when the share of the provider is 0 again."""

    def __init__(self, standalone: Standalone) -> None:
        self._standalone = standalone
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.seen: list[tuple[float, int, str]] = []

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(10)

    def _run(self) -> None:
        while not self._stop.wait(0.5):
            status = self._standalone.object("modelroutes", "chat").get("status", {})
            share = next((b["weightPercent"] for b in status.get("backends", []) if b["name"] == "provider"), 0)
            self.seen.append((time.monotonic(), share, status.get("summary", {}).get("active", "")))

    def since(self, moment: float) -> float:
        """Seconds from `moment` until the share was 0 for good."""
        busy = [at for at, share, active in self.seen if share or active]
        return max(busy, default=moment) - moment


def went(standalone: Standalone, sent: Sent) -> str:
    """Why a request went past the pool, as its decision record says; empty where it did not."""
    record = standalone.page(f"/explain/{sent.request_id}", gateway=True)
    return str(record["attempts"][0]["diverted"] or "")


def fault(standalone: Standalone, faults: dict[str, Any] | None) -> float:
    """Sets a fault of every engine of the pool, or ends all; when."""
    for number in range(2):
        url = standalone.engine_url(f"pool-{number}") + "/fault"
        request = urllib.request.Request(
            url, data=None if faults is None else json.dumps(faults).encode(), method="DELETE" if faults is None else "POST"
        )
        urllib.request.urlopen(request, timeout=5).read()
    return time.monotonic()


def fallback(name: str, conditions: str, faults: dict[str, Any], evidence: Any, rate: float = 12.0) -> None:
    """`evidence(standalone, records)`: the moment at which what the client has met says that the pool is too bad."""
    with provider(*PROVIDER) as port:
        files = {"all.yaml": RESOURCES.format(port=port, conditions=f"fallback: {conditions}"), "spillway.yaml": POOL}
        with running(files) as standalone:
            trace = [Arrival(n / rate, 100, 10) for n in range(int(60 * rate))]
            moments: dict[str, float] = {}
            threading.Timer(15.0, lambda: moments.update(struck=fault(standalone, faults))).start()
            threading.Timer(30.0, lambda: moments.update(healed=fault(standalone, None))).start()
            print(f"fallback {name}: {conditions}, fault {faults}")
            records = asyncio.run(play(standalone.port, trace, "chat"))
            struck, healed = moments["struck"], moments["healed"]
            gone = [
                r
                for r in records
                if r.began > struck and r.model == "provider-model" and went(standalone, r).startswith("fell back")
            ]
            left = min((r.began for r in gone), default=float("inf"))
            after = [r for r in records if left + 0.3 < r.began < healed]
            back = [r for r in records if r.began > healed and r.model == "pool-model"]
            whole = next(
                (
                    r.began
                    for i, r in enumerate(records)
                    if r.began > healed and all(o.model == "pool-model" for o in records[i : i + 24])
                ),
                float("inf"),
            )
            print(
                f"  left {left - struck:.2f} s after the fault, {left - evidence(standalone, records):+.3f} s after the evidence; then {len([r for r in after if r.model == 'provider-model'])} of {len(after)} to the provider"
            )
            print(
                f"  back: first again {back[0].began - healed if back else float('inf'):.1f} s after the end of the fault, all again {whole - healed:.1f} s; failed {len([r for r in records if r.status != 200])} of {len(records)}"
            )


def slow_evidence(_: Standalone, records: Sequence[Sent]) -> float:
    """Among the attempts of ten seconds more than one in twenty, and three at least, has waited for over a second."""
    return first_over(0.05, [(r.began + min(r.ttft, 1.0), r.ttft > 1.0) for r in records])


def failed_evidence(standalone: Standalone, records: Sequence[Sent]) -> float:
    """Among the attempts of ten seconds more than one in five has failed. An error comes at once; that it came is in the decision record."""
    attempts = []
    for r in records:
        record = standalone.page(f"/explain/{r.request_id}", gateway=True) if r.request_id else {"attempts": []}
        in_pool = [attempt for attempt in record["attempts"] if attempt["backend"] == "default/pool"]
        attempts += [(r.began if attempt["failure"] else r.first, bool(attempt["failure"])) for attempt in in_pool]
    return first_over(0.2, attempts)


def first_over(share: float, samples: Sequence[tuple[float, bool]]) -> float:
    """When bad ones first were more than `share` of ten seconds' samples, and three at least."""
    ordered = sorted(samples)
    for index, (moment, bad) in enumerate(ordered):
        window = [is_bad for at, is_bad in ordered[: index + 1] if at > moment - 10.0]
        if bad and sum(window) >= max(3, 1 + int(share * len(window))) and len(window) >= 10:
            return moment
    return float("inf")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", choices=("spill", "fallback"))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--peak", type=float, default=40.0, metavar="SECONDS")
    parser.add_argument("--max-wait", type=float, default=2.0, metavar="SECONDS")
    arguments = parser.parse_args()
    print(f"load of the machine before: {os.getloadavg()[0]:.1f}")
    if arguments.only != "fallback":
        for seed in range(arguments.seeds):
            spill(seed + 1, arguments.peak, arguments.max_wait)
    if arguments.only != "spill":
        fallback("by latency", "{latencyP95: 1s}", {"slow": {"factor": 60}}, slow_evidence)
        fallback("by errors", "{errorRatePercent: 20}", {"error": {"probability": 0.5}}, failed_evidence)


if __name__ == "__main__":
    main()
