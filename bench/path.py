"""The whole path on one machine, in figures: `python -m bench.path`.

Starts `spillway run` on resources of its own, sends open-loop streams through the gateway, and prints
* how long an edit of the YAML takes until every proxy runs it, and what it cost the traffic;
* what a client notices when one of three engines slows to a third;
* what a client notices when the operator is killed, and how soon a gateway that starts meanwhile serves.

Times depend on the machine; read them beside its load, which is printed too.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from tests.fakes.ports import free_port, free_ports
from tests.integration.standalone.conftest import Standalone, until
from tests.integration.standalone.test_live_edit import BACKEND, ROUTE, WEIGHTED
from tests.integration.standalone.traffic import Traffic

POOL = "simulate: {pool: {replicas: 3, decodeRate: 200, prefillRate: 20000}}\n"
PAIR = "simulate: {fast: {replicas: 1, decodeRate: 400, prefillRate: 50000}, slow: {replicas: 1, decodeRate: 400, prefillRate: 50000}}\n"


def start(files: dict[str, str]) -> Standalone:
    folder = Path(tempfile.mkdtemp(prefix="spillway-path-"))
    (folder / "yaml").mkdir()
    for name, text in files.items():
        (folder / "yaml" / name).write_text(text)
    port, admin = free_port(), free_ports(3)
    state = folder / "state"
    command = [sys.executable, "-m", "spillway", "run", str(folder / "yaml"), "--port", str(port), "--admin-port", str(admin)]
    process = subprocess.Popen([*command, "--state-dir", str(state)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    standalone = Standalone(folder / "yaml", state, port, admin, process)
    until(standalone.synced, "every route programmed and ready")
    return standalone


def admin_ports(standalone: Standalone) -> list[int]:
    """Admin ports of all proxies."""
    ports = []
    for pid in standalone.pids("spillway_sidecar"):
        command = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
        ports.append(int(command[command.index("--admin-port") + 1]))
    return ports


def config(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/config", timeout=5) as reply:
        return reply.read().decode()


def milliseconds(values: list[float]) -> str:
    ordered = sorted(v * 1e3 for v in values)
    return f"p50 {statistics.median(ordered):.0f} ms, p99 {ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]:.0f} ms, n {len(ordered)}"


def ttft(traffic: Traffic, since: float) -> list[float]:
    return [s.first - s.began for s in traffic.sent if s.began >= since and s.first]


def edits(count: int) -> None:
    standalone = start(
        {
            "fast.yaml": BACKEND.format(name="fast"),
            "slow.yaml": BACKEND.format(name="slow"),
            "route.yaml": ROUTE.format(rules=WEIGHTED.format(fast=90, slow=10)),
            "spillway.yaml": PAIR,
        }
    )
    ports = admin_ports(standalone)
    took = []
    with Traffic(standalone.port, rate=60) as traffic:
        time.sleep(1)
        for turn in range(count):
            weight = 11 + turn
            rules = WEIGHTED.format(fast=weight, slow=100)
            wanted = f'"weight":{weight}'
            began = time.monotonic()
            (standalone.folder / "route.yaml").write_text(ROUTE.format(rules=rules))
            waiting = set(ports)
            while waiting:
                waiting = {port for port in waiting if wanted not in config(port)}
            took.append(time.monotonic() - began)
            time.sleep(0.3)
    print(
        f"edit to every one of {len(ports)} proxies: {milliseconds(took)}; requests {len(traffic.sent)}, failed {len(traffic.failures)}"
    )
    standalone.stop()


def slowed() -> None:
    standalone = start(
        {
            "pool.yaml": BACKEND.format(name="pool"),
            "route.yaml": ROUTE.format(rules="  - {name: all, backendRefs: [{name: pool}]}"),
            "spillway.yaml": POOL,
        }
    )
    with Traffic(standalone.port, rate=40, prompt="{n} " + "word " * 400) as traffic:
        began = time.monotonic()
        time.sleep(6)
        before = ttft(traffic, began)
        request = urllib.request.Request(
            standalone.engine_url("pool-0") + "/fault", data=json.dumps({"slow": {"factor": 3}}).encode(), method="POST"
        )
        urllib.request.urlopen(request, timeout=5).read()
        changed = time.monotonic()
        served = finished(standalone, "pool-0")
        time.sleep(3)
        moved = finished(standalone, "pool-0")
        later = time.monotonic()
        time.sleep(9)
        end = finished(standalone, "pool-0")
    total = len([s for s in traffic.sent if s.began >= later])
    print(f"three engines alike: time to first token {milliseconds(before)}")
    print(
        f"one at a third, all 12 s: {milliseconds(ttft(traffic, changed))}; it got {moved - served} requests in the first 3 s, {end - moved} of {total} after; failed {len(traffic.failures)}"
    )
    standalone.stop()


def finished(standalone: Standalone, endpoint: str) -> int:
    with urllib.request.urlopen(standalone.engine_url(endpoint) + "/metrics", timeout=5) as reply:
        lines = reply.read().decode().splitlines()
    return sum(int(float(line.rsplit(" ", 1)[1])) for line in lines if line.startswith("vllm:request_success_total"))


def killed() -> None:
    standalone = start(
        {
            "pool.yaml": BACKEND.format(name="pool"),
            "route.yaml": ROUTE.format(rules="  - {name: all, backendRefs: [{name: pool}]}"),
            "spillway.yaml": POOL,
        }
    )
    until((standalone.state / "gateway-0" / "last-good.json").exists, "the snapshot is on disk")
    with Traffic(standalone.port, rate=60) as traffic:
        time.sleep(1)
        for pid in standalone.pids("spillway_operator"):
            os.kill(pid, signal.SIGSTOP)  # away, and not started again
        port, admin = free_port(), free_port()
        command = [
            sys.executable,
            "-m",
            "spillway_sidecar",
            "--node-id",
            "gateway-late",
            "--operator",
            f"http://127.0.0.1:{standalone.admin + 2}",
        ]
        began = time.monotonic()
        late = subprocess.Popen(
            [*command, "--port", str(port), "--admin-port", str(admin), "--state-dir", str(standalone.state / "gateway-0")],
            stderr=subprocess.DEVNULL,
        )
        first = 0.0
        while not first and time.monotonic() - began < 20:
            try:
                body = json.dumps({"model": "chat", "messages": [], "max_tokens": 1}).encode()
                urllib.request.urlopen(
                    urllib.request.Request(f"http://127.0.0.1:{port}/v1/chat/completions", data=body), timeout=5
                ).read()
                first = time.monotonic() - began
            except urllib.error.HTTPError as error:
                if error.code == 400:  # the engine's own answer: it was routed
                    first = time.monotonic() - began
            except OSError:
                time.sleep(0.005)
        time.sleep(2)
        late.terminate()
        late.wait(20)
        for pid in standalone.pids("spillway_operator"):
            os.kill(pid, signal.SIGCONT)
            os.kill(pid, signal.SIGKILL)
        time.sleep(4)
    print(
        f"operator away, then killed: requests {len(traffic.sent)}, failed {len(traffic.failures)}; a gateway started meanwhile answered {first * 1e3:.0f} ms after its start"
    )
    standalone.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--edits", type=int, default=40)
    arguments = parser.parse_args()
    print(f"load of the machine before: {os.getloadavg()[0]:.1f}")
    edits(arguments.edits)
    slowed()
    killed()


if __name__ == "__main__":
    main()
