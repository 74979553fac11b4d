"""Which Python runs ours and the aiohttp baseline. An interpreter built without profile-guided optimisation costs a quarter more."""

from __future__ import annotations

import os
import platform
import sys
import time
from pathlib import Path

from bench import peers

OPTION = "--python"
HELP = "another interpreter for ours and aiohttp, in an environment of its own (an image's is an optimised build; yours may not be)"


def describe() -> str:
    """The interpreter and how fast it is: how it was built is not always to be seen, a fixed loop shows it."""
    took = min(_loop_seconds() for _ in range(5))
    return f"Python {platform.python_version()} (a fixed loop in {1000 * took:.0f} ms)"


def _loop_seconds() -> float:
    began, seen, total = time.perf_counter(), {}, 0
    for number in range(500_000):
        seen[number & 255] = number
        total += len(str(number))
    return time.perf_counter() - began


def become(python: str | None) -> None:
    """Starts over under another interpreter, with the locked dependencies in the cache folder; returns if it is this one."""
    if not python:
        return
    folder = peers.environment("run", python)
    rest = [
        argument for argument in sys.argv[1:] if argument != OPTION and not argument.startswith(f"{OPTION}=") and argument != python
    ]
    os.environ["PYTHONPATH"] = os.pathsep.join(str(peers.ROOT / part) for part in ("operator", "sidecar", "cli"))
    module = Path(sys.argv[0]).stem
    name = "bench" if module == "__main__" else f"bench.{module}"
    os.execv(folder / "bin/python", [str(folder / "bin/python"), "-m", name, *rest])
