"""Runs a program of ours under a wall clock that jumps.

    python -m tests.faults.clock FILE MODULE ARGUMENTS...

`time.time` and the operator's `now` add the seconds that stand in FILE, read at each look; monotonic time stays as it is, as it does
when NTP or an administrator sets a machine's clock. Nothing beneath Python is changed, so this stands for a jump only in so far as
the programs take the wall clock from Python, which the rule that each composition root owns its clocks makes sure of.
"""

from __future__ import annotations

import contextlib
import sys
import time
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path


def main(argv: list[str]) -> int:
    """Runs `MODULE.__main__` under the clock."""
    file, name, *rest = argv
    real = time.time  # noqa: TID251 - this is where the clock is bent

    def skewed() -> float:
        with contextlib.suppress(OSError, ValueError):
            return real() + float(Path(file).read_text(encoding="ascii"))
        return real()

    time.time = skewed  # noqa: TID251
    module = import_module(f"{name}.__main__")
    if hasattr(module, "_now"):
        module._now = lambda: datetime.fromtimestamp(skewed(), UTC)
    code: int = module.main(rest)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
