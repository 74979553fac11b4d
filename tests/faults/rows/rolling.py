"""Everything is replaced while traffic flows."""

from __future__ import annotations

import asyncio
import signal

from tests.faults.bench import Bench, Measured, row
from tests.faults.load import milliseconds
from tests.faults.world import Program

ENDPOINT_LAG_SECONDS = 0.2  # from a pod's deletion to the last connection that its Service sends there


@row("rolling restart of sidecars and gateways", "0 lost", seconds=101, allowed=())
async def rolling(bench: Bench) -> Measured:
    """As a Deployment does it: preStop, gone from the Service a little later, SIGTERM, the next one starts when it has ended."""
    world, load = bench.world, bench.load
    restarts = 0
    codes: list[int | None] = []

    async def replace(program: Program, port: int | None) -> None:
        await world.get(program.admin, "/drain", b"-", method="POST")
        await asyncio.sleep(ENDPOINT_LAG_SECONDS)
        if port is not None:
            load.rotation.remove(port)
        await asyncio.sleep(ENDPOINT_LAG_SECONDS)
        codes.append(await program.end(signal.SIGTERM))
        program.start()
        await world.until(lambda: world.ready(program), f"{program.name} is ready")
        if port is not None:
            load.rotation.append(port)
        else:
            await world.until(lambda: world.admits(program), f"{program.name} admits")

    async with bench.sending() as requests:
        end = bench.now + bench.seconds
        while bench.until(end):
            for program in world.proxies:
                gateway = program in world.gateways
                await replace(program, world.port(program.name) if gateway else None)
                restarts += 1
                await asyncio.sleep(bench.rng.uniform(0.2, 0.8))
                if not bench.until(end):
                    break
    first = milliseconds([r.first_seconds for r in requests if r.first])
    again = sum(r.again for r in requests)
    return Measured(f"{restarts} restarts, first byte {first}, {again} sent again by the client", requests, sound=set(codes) == {0})
