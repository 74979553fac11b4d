"""How many places are kept free for those whose turn comes first.

An engine interrupts nothing that it runs. So whoever comes while every place is taken waits for the next one to end, be its priority the
highest. While requests wait, the last few places are therefore given only to those before whom nobody would go, and the others take what is
beyond. Each such place is idle for some of the time: it is bought with throughput.

If those who go first are a share `s` of all that is served, k places of the reserve are taken in a part of the time that goes as s^k. The
reserve grows until it is seldom gone (`GONE`), and never beyond what leaves a small part of all places idle (`IDLE`; fewer requests side by
side run faster, so less than that is lost). With few places, or nobody who goes first, there is none.
"""

from __future__ import annotations

from typing import Final

GONE: Final = 0.05
IDLE: Final = 1 / 12
MOST: Final = 16


def reserve(share: float, places: int) -> int:
    """Of so many places, those that are kept for a share of the requests."""
    kept, weight, total, idle = 0, 1.0, 1.0, 0.0  # s^kept, the sum of s^k, the sum of (kept - k) s^k
    if share <= 0.0:
        return 0
    while kept < MOST and weight > GONE * total:
        idle += total
        weight *= share
        total += weight
        if idle > IDLE * places * total:
            break
        kept += 1
    return kept
