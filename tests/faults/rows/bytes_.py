"""Harm to the bytes of replies: cut at every byte, corrupt, huge, flooded, slow.

All engines do the harm, on the way through their sidecars and on the direct way alike, each request meets it once, so there is
always room elsewhere. Bytes that were flipped inside an event pass, as nothing in HTTP guards them: those requests are exempt from the
check of their own tokens, and from nothing else.
"""

from __future__ import annotations

import asyncio
import random

from tests.faults.bench import Bench, Measured, row
from tests.faults.fate import Fate, Request
from tests.faults.world import ENGINES

STREAM_BYTES = 2600  # of a reply of 8 tokens, head included
CASES = ("cut", "reset", "half", "interim", "fields", "line", "flip", "drip", "silence")


def either(rng: random.Random, number: int) -> Request:
    """Small requests, half through sidecars and half direct."""
    return Request(number, f"{number:x}", 8, stream=rng.random() < 0.75, model=rng.choice(("chat", "direct")))


@row("reply cut at every byte", "0 lost, 0 silent: retried before the first byte, signalled after it", seconds=20)
async def every_byte(bench: Bench) -> Measured:
    """All four engines cut one reply in ten, each at a byte drawn from its whole length; a request's second attempt is left alone."""
    world = bench.world
    places: set[tuple[str, int]] = set()
    async with bench.sending(either) as requests:
        end = bench.now + bench.seconds
        turn = 0
        while bench.until(end):
            for number in range(ENGINES):
                await world.harm(number, ("cut", "reset")[(turn + number) % 2], upto=STREAM_BYTES, probability=0.1)
            turn += 1
            await asyncio.sleep(1.0)
            places |= {(kind, at) for _, kind, at, _ in await world.harmed()}
        for number in range(ENGINES):
            await world.harm(number, None)
    told = sum(r.fate is Fate.SIGNALLED for r in requests)
    return Measured(f"{len(places)} places cut or reset, {told} signalled", requests)


@row("corrupt, huge, flooded, half-closed, dripping, silent replies", "0 lost, 0 crossed, memory flat", seconds=20)
async def hostile(bench: Bench) -> Measured:
    """Each kind of harm in turn, at all engines, to one reply in twenty."""
    world = bench.world
    exempt: set[str] = set()
    struck: dict[str, int] = {}
    async with bench.sending(either) as requests:
        end = bench.now + bench.seconds
        turn = 0
        while bench.until(end):
            kind = CASES[turn % len(CASES)]
            for number in range(ENGINES):
                await world.harm(number, kind, upto=STREAM_BYTES, probability=0.05)
            await asyncio.sleep(min(2.0, bench.seconds / len(CASES)))
            for number in range(ENGINES):
                await world.harm(number, None)
            for tag, kind_, _, _ in await world.harmed():
                struck[kind_] = struck.get(kind_, 0) + 1
                if kind_ == "flip":
                    exempt.add(tag)
            turn += 1
    done = ", ".join(f"{count} {kind}" for kind, count in sorted(struck.items()))
    return Measured(f"struck: {done}", requests, exempt=exempt)
