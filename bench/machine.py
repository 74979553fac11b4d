"""What the kernel says: CPU time and memory of a process with its descendants, cores, and what else kept the machine busy."""

from __future__ import annotations

import contextlib
import os
import platform
import resource
import signal
import subprocess
import time
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")
PROC = Path("/proc")


def cores() -> tuple[int, int]:
    """The core of the proxy and the core of load and engine."""
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        raise SystemExit("bench: two cores are needed, one for the proxy and one for load and engine")
    return allowed[0], allowed[1]


def describe() -> str:
    model = next(
        (line.split(":", 1)[1].strip() for line in (PROC / "cpuinfo").read_text().splitlines() if line.startswith("model name")),
        "?",
    )
    return f"{os.cpu_count()} cores of {model}, Linux {platform.release()}"


def start(
    command: list[str], core: int, *, log: Path | None = None, env: dict[str, str] | None = None, stdout: int | None = None
) -> subprocess.Popen[str]:
    """A process on one core, with as many open files as the machine allows, its output in `log`."""

    def prepare() -> None:
        os.sched_setaffinity(0, {core})
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65536) if hard > 0 else 65536, hard))

    environment = {**os.environ, **(env or {})}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # a peer that compiles its modules at each start is not the one to measure
    if log is None:
        return subprocess.Popen(command, stdout=stdout, env=environment, preexec_fn=prepare, text=True)
    with log.open("w") as out:
        return subprocess.Popen(
            command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, env=environment, preexec_fn=prepare, text=True
        )


def tree(pid: int) -> list[int]:
    """The process and all its descendants, parents first."""
    children: dict[int, list[int]] = {}
    for folder in PROC.iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                children.setdefault(int(_stat(folder)[1]), []).append(int(folder.name))
    found, todo = [], [pid]
    while todo:
        one = todo.pop()
        found.append(one)
        todo += children.get(one, [])
    return found


def stop(processes: list[subprocess.Popen[str]]) -> None:
    """Ends the processes and what they started: asked first, then made to."""
    pids = [pid for process in processes for pid in tree(process.pid)]
    for number, patience in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)):
        for pid in reversed(pids):
            with contextlib.suppress(OSError):
                os.kill(pid, number)
        end = time.monotonic() + patience
        while time.monotonic() < end and any(process.poll() is None for process in processes):
            time.sleep(0.02)


def cpu_seconds(pid: int) -> float:
    """CPU time of the tree, from the scheduler's nanoseconds, all threads."""
    total = 0
    for one in tree(pid):
        with contextlib.suppress(OSError):
            for thread in (PROC / str(one) / "task").iterdir():
                total += int((thread / "schedstat").read_text().split()[0])
    return total / 1e9


def memory_kb(pid: int) -> tuple[int, int]:
    """Memory of the tree: the proportional share (a page shared by n processes counts 1/n), and resident, shared pages counted once."""
    proportional = private = shared = 0
    for one in tree(pid):
        with contextlib.suppress(OSError):
            rollup = {
                line.split()[0]: int(line.split()[1]) for line in (PROC / str(one) / "smaps_rollup").read_text().splitlines()[1:]
            }
            proportional += rollup["Pss:"]
            private += rollup["Private_Clean:"] + rollup["Private_Dirty:"]
            shared = max(shared, rollup["Shared_Clean:"] + rollup["Shared_Dirty:"])
    return proportional, private + shared


def others_seconds(mine: set[int]) -> dict[str, float]:
    """CPU seconds so far of every process that is none of ours, and what the hypervisor took."""
    found = {"steal": int((PROC / "stat").read_text().split("\n", 1)[0].split()[8]) / TICK}
    for folder in PROC.iterdir():
        if folder.name.isdigit() and int(folder.name) not in mine:
            with contextlib.suppress(OSError):
                fields = _stat(folder)
                found[folder.name] = (int(fields[11]) + int(fields[12])) / TICK
    return found


def ahead_of_other_work() -> None:
    """Ahead of other sessions where the kernel groups by session and we may say so; a hint, never an error."""
    with contextlib.suppress(OSError):
        if os.getpgid(0) != os.getpid():
            os.setsid()
        (PROC / "self/autogroup").write_text("-15")


def _stat(folder: Path) -> list[str]:
    text = (folder / "stat").read_text()
    return text[text.rindex(")") + 2 :].split()
