"""Ports of 127.0.0.1 for processes that are started later.

They lie below those that the system hands to whoever asks for any, so that no connection takes one meanwhile, and a process of tests gives
none away twice: what was just found free is free until the process that it is for listens.
"""

from __future__ import annotations

import random
from typing import Final

from spillway.run.ports import is_free

_RANGE: Final = range(20_000, 32_000)
_given: set[int] = set()


def free_ports(count: int) -> int:
    """The first of so many free ones in a row."""
    rng = random.Random()  # not seeded: several runs may share the machine
    for _ in range(1000):
        first = rng.randrange(_RANGE.start, _RANGE.stop - count)
        ports = range(first, first + count)
        if _given.isdisjoint(ports) and all(map(is_free, ports)):
            _given.update(ports)
            return first
    raise RuntimeError("no free ports")


def free_port() -> int:
    """A port on which nothing listens."""
    return free_ports(1)
