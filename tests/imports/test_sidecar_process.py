"""The sidecar stands in every GPU pod, so what its process carries is held: modules, time to import, memory at rest.

The import time is a ratio to `import aiohttp`, measured turn by turn in the same run, in CPU time: no figure of one machine
is asserted. Memory is, since a pod's budget is in megabytes.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fakes.ports import free_port

AIOHTTP = {"aiohttp", "aiohappyeyeballs", "aiosignal", "attr", "attrs", "frozenlist", "idna", "multidict", "propcache", "yarl"}
ALLOWED = AIOHTTP | {"msgspec", "prometheus_client", "uvloop", "spillway_sidecar", "spillway_wire", "typing_extensions"}
IDLE_MB = 40
TURNS = 5
# aiohttp is most of what the sidecar imports; the rest together may cost as much again.
IMPORT_RATIO = 2.0

LIST_MODULES = """
import sys
before = set(sys.modules)
import spillway_sidecar.__main__
tops = {name.partition(".")[0] for name in set(sys.modules) - before}
print(*sorted(tops - set(sys.stdlib_module_names)))
"""


def test_the_process_imports_only_what_is_allowed() -> None:
    answer = subprocess.run([sys.executable, "-c", LIST_MODULES], capture_output=True, text=True, check=True)
    loaded = {name for name in answer.stdout.split() if not name.startswith("_")} - {"cython_runtime"}  # Cython's, no package
    assert "spillway_sidecar" in loaded
    assert loaded <= ALLOWED, f"not allowed in the sidecar's process: {sorted(loaded - ALLOWED)}"


def import_cpu_seconds(module: str) -> float:
    """CPU time of a fresh interpreter that imports `module`, less nothing."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", f"import {module}"], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_importing_costs_little_more_than_aiohttp_alone() -> None:
    import_cpu_seconds("spillway_sidecar.__main__")  # compiles what is not compiled yet
    import_cpu_seconds("aiohttp")
    ours, theirs = [], []
    for _ in range(TURNS):
        ours.append(import_cpu_seconds("spillway_sidecar.__main__"))
        theirs.append(import_cpu_seconds("aiohttp"))
    assert min(ours) / min(theirs) < IMPORT_RATIO


@contextlib.contextmanager
def gateway(state: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A gateway with nobody to talk to, at rest once its admin port answers."""
    admin, operator = free_port(), free_port()
    command = [sys.executable, "-m", "spillway_sidecar", "--role", "gateway", "--node-id", "idle-0"]
    command += ["--operator", f"http://127.0.0.1:{operator}", "--port", str(free_port()), "--admin-port", str(admin)]
    process = subprocess.Popen([*command, "--state-dir", str(state)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 20
        while True:
            assert process.poll() is None, f"the gateway exited with {process.returncode}"
            assert time.monotonic() < end, "the gateway's admin port does not answer"
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{admin}/healthz", timeout=5) as answer:
                answer.read()
                break
            time.sleep(0.05)
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.mark.skipif(
    not os.access("/proc/self/smaps_rollup", os.R_OK),
    reason="memory is read from /proc, which only Linux has: run on Linux to have this",
)
def test_a_process_at_rest_stays_in_the_budget(tmp_path: Path) -> None:
    """Of memory, and of packages: what is imported late shows in the libraries mapped."""
    with gateway(tmp_path) as process:
        rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
        mapped = set(re.findall(r"/site-packages/(\w+)", Path(f"/proc/{process.pid}/maps").read_text()))
    assert {"msgspec"} <= mapped <= ALLOWED
    pss_kb = next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    assert pss_kb / 1024 <= IDLE_MB
