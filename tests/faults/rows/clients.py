"""Clients that leave, and clients that come in storms."""

from __future__ import annotations

import asyncio
import contextlib
import random

from tests.faults.bench import RATE, Bench, Measured, row
from tests.faults.fate import Fate, Request
from tests.faults.load import milliseconds

LEAVERS = 10_000
SHARE = 1.35  # some have their reply before they leave


def leaving(rng: random.Random, number: int) -> Request:
    """Leaves at a random point: most while it waits or streams, some after its end, some before it has dialled."""
    request = Request(number, f"{number:x} " + "x" * rng.randrange(400), rng.randint(4, 40), stream=rng.random() < 0.7)
    request.leave_after = rng.choice((0.0005, 0.1)) * rng.random() + 0.0001
    return request


@row(
    "client leaves at a random point", "0 leaked upstreams, slots or reservations after 1 s", seconds=LEAVERS / RATE * SHARE, allowed=(Fate.LEFT,)
)  # fmt: skip
async def leaves(bench: Bench) -> Measured:
    """Ten thousand clients leave; what the proxies and engines hold is asked a second after the last."""
    world = bench.world
    before = [gateway.descriptors() for gateway in world.gateways]
    gone = 0
    enough = asyncio.Event()

    def count(request: Request) -> None:
        nonlocal gone
        gone += request.left
        if gone >= LEAVERS:
            enough.set()

    bench.load.on_over = count
    async with bench.sending(leaving) as requests:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(enough.wait(), bench.seconds)
    bench.load.on_over = None
    left = sum(request.fate is Fate.LEFT for request in requests)
    bench.load.close_idle()
    leaks = await world.leaks(1.0)
    after = [gateway.descriptors() for gateway in world.gateways]
    return Measured(f"{left} left, {len(leaks)} leaks after 1 s, descriptors {before} to {after}", requests, sound=not leaks)


@row("clients reconnect in a storm", "0 lost", seconds=12, allowed=())
async def storm(bench: Bench) -> Measured:
    """Every kept connection ends each 0.3 s, and 400 connections come at once."""
    rounds = 0
    async with bench.sending() as requests:
        end = bench.now + bench.seconds
        while bench.until(end):
            await asyncio.sleep(0.3)
            bench.load.close_idle()
            rounds += 1
            if rounds % 5 == 0:
                for _ in range(400):
                    bench.load.dispatch(bench.load.new(lambda rng, n: Request(n, f"{n:x}", 4, stream=True)), fresh=True)
    return Measured(f"{rounds} rounds, first byte {milliseconds([r.first_seconds for r in requests if r.first])}", requests)
