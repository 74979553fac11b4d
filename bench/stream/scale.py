"""1,000 proxies and 2,000 endpoints on one operator: `python -m bench.stream.scale`.

Two rows: the stream alone (discovery server and load store), and the whole operator process on a folder of YAML, where a
change is a rewritten endpoints file and the time counts from before the write. Printed: how long one endpoint's change takes
to reach all proxies (for each change the last of them counts, and all receptions together), the CPU share of one core with
reports at 1 Hz from every proxy and nothing else to do, and memory. Bars: 250 ms p99, 25 % of one core.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.fakes.ports import free_port

PER_CLUSTER = 100
TICK = os.sysconf("SC_CLK_TCK")


@dataclass
class Row:
    name: str
    receptions: list[float]  # ms, every proxy and change
    lasts: list[float]  # ms, the last proxy of each change
    cpu_percent: float
    load_average: float
    memory_mib: float
    memory_before_mib: float
    missed: int


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def rss_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    raise SystemExit(f"process {pid} is gone")


def quantile(values: list[float], q: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))] if ordered else float("nan")


class Alone:
    """The stream alone."""

    name = "stream alone"

    def __init__(self, clusters: int, profile: str | None) -> None:
        command = [sys.executable, "-m", "bench.stream.alone", str(clusters), str(PER_CLUSTER), *([profile] if profile else [])]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdin
        assert self.process.stdout
        self.stdin, self.stdout = self.process.stdin, self.process.stdout
        self.port = int(self.stdout.readline())

    def change(self, _number: int) -> tuple[str | None, int]:
        self.stdin.write("go\n")
        self.stdin.flush()
        version, at = self.stdout.readline().split()
        return version, int(at)

    def stop(self) -> None:
        self.stdin.write("\n")
        self.stdin.close()
        self.process.wait(20)


class Whole:
    """The operator as users run it: YAML and an endpoints file."""

    name = "whole operator"

    def __init__(self, clusters: int, folder: Path) -> None:
        self.clusters = clusters
        self.endpoints_file = folder / "endpoints.json"
        resources = folder / "resources"
        resources.mkdir()
        documents = []
        for n in range(clusters):
            documents.append(
                f"apiVersion: spillway.dev/v1alpha1\nkind: ModelBackend\nmetadata: {{name: b{n}}}\n"
                f"spec: {{provider: VLLM, model: m, pods: {{selector: {{matchLabels: {{app: b{n}}}}}, port: 8000}}}}\n"
            )
            documents.append(
                f"apiVersion: spillway.dev/v1alpha1\nkind: ModelRoute\nmetadata: {{name: r{n}}}\n"
                f"spec: {{models: [m{n}], rules: [{{name: all, backendRefs: [{{name: b{n}}}]}}]}}\n"
            )
        (resources / "all.yaml").write_text("---\n".join(documents))
        self.write(0)
        self.admin, self.port = free_port(), free_port()
        command = [sys.executable, "-m", "spillway_operator", "--source", "files", "--path", str(resources)]
        command += ["--endpoints-file", str(self.endpoints_file), "--admin-port", str(self.admin)]
        command += ["--discovery-port", str(self.port)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        for _ in range(100):
            time.sleep(0.1)
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/readyz", timeout=2):
                    return
            except OSError:
                pass
        raise SystemExit("the operator did not become ready")

    def write(self, number: int) -> None:
        listing = {
            f"default/b{c}": [
                {"id": f"b{c}-{n}", "host": f"10.0.{c}.{n}", "port": 8000 + (number if c == number % self.clusters and n == 0 else 0),
                 "inbound": True}
                for n in range(PER_CLUSTER)
            ]
            for c in range(self.clusters)
        }  # fmt: skip
        beside = self.endpoints_file.with_suffix(".tmp")
        beside.write_text(json.dumps({"endpoints": listing}))
        beside.replace(self.endpoints_file)

    def change(self, number: int) -> tuple[str | None, int]:
        at = time.monotonic_ns()
        self.write(number)
        return None, at

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(20)


@contextmanager
def proxies(port: int, count: int, processes: int, folder: Path) -> Iterator[list[Path]]:
    outs = [folder / f"seen-{n}" for n in range(processes)]
    share = count // processes
    children = [
        subprocess.Popen(
            [sys.executable, "-m", "bench.stream.proxies", str(port), str(n * share), str(share), str(out)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for n, out in enumerate(outs)
    ]
    try:
        for child in children:
            assert child.stdout
            if child.stdout.readline().strip() != "connected":
                raise SystemExit("a client process did not connect")
        yield outs
    finally:
        for child in children:
            child.terminate()
        for child in children:
            child.wait(20)


def measure(server: Alone | Whole, options: argparse.Namespace, folder: Path) -> Row:
    pid = server.process.pid
    before = rss_mib(pid)
    changes: list[tuple[str | None, int]] = []
    with proxies(server.port, options.proxies, options.processes, folder) as outs:
        time.sleep(5)
        busy, began = cpu_seconds(pid), time.monotonic()
        time.sleep(options.steady)
        cpu_percent = 100 * (cpu_seconds(pid) - busy) / (time.monotonic() - began)
        load_average = os.getloadavg()[0]
        for number in range(1, options.changes + 1):
            changes.append(server.change(number))
            time.sleep(1.0)
        memory = rss_mib(pid)
    times: dict[str, list[int]] = {}
    lost = 0
    for out in outs:
        for line in out.read_text().splitlines():
            if line.startswith("#"):
                lost += int(line.split()[2])
                continue
            version_seen, *moments = line.split()
            times.setdefault(version_seen, []).extend(map(int, moments))
    server.stop()
    if lost:
        print(f"{lost} connections were lost", file=sys.stderr)
    receptions: list[float] = []
    lasts: list[float] = []
    missed = 0
    for version, at in changes:
        if version is not None:
            found = times.get(version, [])
        else:  # the version that was first seen after the write
            found = min((seen for seen in times.values() if min(seen) > at), key=min, default=[])
        missed += options.proxies - len(found)
        receptions += [(moment - at) / 1e6 for moment in found]
        lasts.append((max(found) - at) / 1e6 if found else float("nan"))
    return Row(server.name, receptions, lasts, cpu_percent, load_average, memory, before, missed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--proxies", type=int, default=1000)
    parser.add_argument("--clusters", type=int, default=20)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--changes", type=int, default=30)
    parser.add_argument("--steady", type=float, default=20.0, help="seconds of reports alone")
    parser.add_argument("--only", choices=["alone", "whole"])
    parser.add_argument("--profile", help="write cProfile figures of the stream alone there")
    options = parser.parse_args()
    rows = []
    for kind in ("alone", "whole"):
        if options.only not in {None, kind}:
            continue
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            server = Alone(options.clusters, options.profile) if kind == "alone" else Whole(options.clusters, folder)
            rows.append(measure(server, options, folder))
    print(f"{options.proxies} proxies, {options.clusters * PER_CLUSTER} endpoints, {os.cpu_count()} cores shared with the proxies")
    for row in rows:
        print(
            f"{row.name}: one change to all: p50 {quantile(row.receptions, 0.5):.0f} ms, p99 {quantile(row.receptions, 0.99):.0f} ms, "
            f"last proxy median {statistics.median(row.lasts):.0f} ms worst {max(row.lasts):.0f} ms "
            f"({len(row.receptions)} receptions, {row.missed} missed); "
            f"steady {row.cpu_percent:.1f} % of one core; {row.memory_mib:.0f} MiB ({row.memory_before_mib:.0f} before); "
            f"machine load {row.load_average:.1f}"
        )


if __name__ == "__main__":
    main()
