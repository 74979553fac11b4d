"""Harm to the bytes of replies: cut at every byte, corrupt, huge, flooded, slow.

One of the four engines does the harm at a time, on the way through its sidecar and on the direct way alike, so there is always
room elsewhere. Bytes that were flipped inside an event pass, as nothing in HTTP guards them: those requests are exempt from the
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


@row("reply cut at every byte", "0 lost, 0 silent: retried before the first byte, signalled after it", seconds=30)
async def every_byte(bench: Bench) -> Measured:
    """The four engines in turn cut each reply one byte later than the last one."""
    world = bench.world
    places: set[tuple[str, int]] = set()
    reached = 0
    way = "cut"
    async with bench.sending(either) as requests:
        end = bench.now + bench.seconds
        turn = 0
        while bench.until(end):
            await world.harm(turn % ENGINES, way, at=reached, every=True)
            await asyncio.sleep(1.0)
            await world.harm(turn % ENGINES, None)
            struck = await world.harmed()
            places |= {(kind, at) for _, kind, at, _ in struck}
            reached = max((at + 1 for *_, at, _ in struck), default=reached)
            if reached > STREAM_BYTES:
                reached, way = 0, "reset" if way == "cut" else "cut"
            turn += 1
            await asyncio.sleep(0.2)
            await world.heal()
    told = sum(r.fate is Fate.SIGNALLED for r in requests)
    return Measured(f"{len(places)} places cut or reset, {told} signalled", requests)


@row("corrupt, huge, flooded, half-closed, dripping, silent replies", "0 lost, 0 crossed, memory flat", seconds=36)
async def hostile(bench: Bench) -> Measured:
    """Each kind of harm in turn, by an engine drawn from the seed."""
    world, rng = bench.world, bench.rng
    exempt: set[str] = set()
    struck: dict[str, int] = {}
    async with bench.sending(either) as requests:
        end = bench.now + bench.seconds
        turn = 0
        while bench.until(end):
            victim = rng.randrange(ENGINES)
            kind = CASES[turn % len(CASES)]
            await world.harm(victim, kind, upto=STREAM_BYTES, probability=0.5, count=40)
            await asyncio.sleep(1.5)
            await world.harm(victim, None)
            for tag, kind_, _, _ in await world.harmed():
                struck[kind_] = struck.get(kind_, 0) + 1
                if kind_ == "flip":
                    exempt.add(tag)
            turn += 1
            await world.heal()
    done = ", ".join(f"{count} {kind}" for kind, count in sorted(struck.items()))
    return Measured(f"struck: {done}", requests, exempt=exempt)
