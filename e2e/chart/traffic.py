"""Traffic that goes on while a test does something to the cluster, and what became of it."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from e2e.chart.readme import in_network
from e2e.cluster import lifecycle
from e2e.cluster.layout import PROJECT

END_SECONDS = 90.0


@dataclass(slots=True)
class Traffic:
    """Requests at a steady rate since `begin`; `tallies` are there when it has ended."""

    rate: float
    begin: float
    tallies: dict[str, dict[str, Any]] = field(default_factory=dict)

    def due(self) -> int:
        """How many requests are sent by now."""
        return int((time.monotonic() - self.begin) * self.rate)

    @property
    def sent(self) -> int:
        return sum(tally["sent"] for tally in self.tallies.values())

    @property
    def lost(self) -> int:
        return sum(tally["sent"] - tally["ok"] for tally in self.tallies.values())

    def __str__(self) -> str:
        reasons = [
            f"\n  {kind}: {seen['times']} x {reason}, first after {seen['first_after_seconds']} s ({seen['request_id']})"
            for kind, tally in self.tallies.items()
            for reason, seen in tally["failures"].items()
        ]
        return f"{self.sent} requests at {self.rate:g}/s, {self.lost} failed{''.join(reasons)}"


@contextmanager
def traffic(cluster: lifecycle.Cluster, url: str, rate: float) -> Iterator[Traffic]:
    """Sends from the node's network while the block runs; afterwards every request has come to its end, and is counted."""
    command = [*in_network(cluster), sys.executable, "-m", "e2e.chart.steady", url, str(rate)]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=PROJECT
    ) as sender:
        made = Traffic(rate, time.monotonic())
        try:
            yield made
        finally:
            try:
                out, _ = sender.communicate(timeout=END_SECONDS)
            finally:
                sender.kill()
            made.tallies = json.loads(out)
            print(made)
