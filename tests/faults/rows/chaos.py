"""Faults of every kind in an order drawn from the seed: the soak, and the short run that every `make test` makes.

One thing is ill at a time and is healed before the next, so there is always an endpoint with room, and nothing may be lost.
"""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Awaitable, Callable
from typing import Final

from tests.faults.bench import SOAK, Bench, Measured, row
from tests.faults.fate import Fate, Request
from tests.faults.load import milliseconds, mixed
from tests.faults.rows.bytes_ import CASES, STREAM_BYTES
from tests.faults.world import ENGINES

MIB: Final = 1024 * 1024
SAMPLE_SECONDS: Final = 5.0
WARM_SECONDS: Final = 120.0  # of a process, in which caches and pools fill
LEAST_SECONDS: Final = 240.0  # after that, for a slope that says anything
KILLS_SHARE: Final = 0.4  # of the time: after that the operator lives, or its memory would never be looked at

Strike = Callable[[Bench, int], Awaitable[None]]


async def _sidecar_killed(bench: Bench, victim: int) -> None:
    await bench.world.sidecars[victim].end()


async def _engine_killed(bench: Bench, victim: int) -> None:
    await bench.world.engines[victim].end()


async def _sidecar_frozen(bench: Bench, victim: int) -> None:
    bench.world.sidecars[victim].strike(signal.SIGSTOP)


async def _engine_frozen(bench: Bench, victim: int) -> None:
    bench.world.engines[victim].strike(signal.SIGSTOP)


async def _hang(bench: Bench, victim: int) -> None:
    await bench.world.fault(victim, hang={})


async def _error(bench: Bench, victim: int) -> None:
    await bench.world.fault(victim, error={})


async def _reset(bench: Bench, victim: int) -> None:
    await bench.world.fault(victim, reset={})


async def _slow(bench: Bench, victim: int) -> None:
    await bench.world.fault(victim, slow={"factor": 8.0})


async def _bytes(bench: Bench, victim: int) -> None:
    kind = bench.rng.choice([case for case in CASES if case != "flip"])
    for number in range(ENGINES):
        await bench.world.harm(number, kind, upto=STREAM_BYTES, probability=0.03)


async def _operator_killed(bench: Bench, victim: int) -> None:
    await bench.world.operator.end()


async def _streams_hung_up(bench: Bench, victim: int) -> None:
    bench.world.relay.hang_up()


async def _endpoint_gone(bench: Bench, victim: int) -> None:
    bench.world.write_endpoints(without=(victim,))


async def _connections_ended(bench: Bench, victim: int) -> None:
    bench.load.close_idle()


STRIKES: Final[tuple[Strike, ...]] = (
    _sidecar_killed, _engine_killed, _sidecar_frozen, _engine_frozen, _hang, _error, _reset, _slow, _bytes, _operator_killed,
    _streams_hung_up, _endpoint_gone, _connections_ended,
)  # fmt: skip


def soaking(rng: random.Random, number: int) -> Request:
    """The ordinary mix, with some long ones and some that leave."""
    if rng.random() < 0.9:
        return mixed(rng, number)
    request = Request(number, f"{number:x} " + "x" * rng.randrange(20_000), rng.randint(40, 120), stream=rng.random() < 0.8)
    if rng.random() < 0.5:
        request.leave_after = rng.uniform(0.001, 0.3)
    return request


async def strike(bench: Bench, pause_seconds: float, kills_share: float = 1.0) -> dict[str, int]:
    """Strikes and heals until the time is over; how often each. `kills_share`: of the time, in which the operator is killed too."""
    done: dict[str, int] = {}
    order: list[Strike] = []
    end = bench.now + bench.seconds
    spared = bench.now + bench.seconds * kills_share
    while bench.until(end):
        if not order:
            order = bench.rng.sample(STRIKES, len(STRIKES))
        one = order.pop()
        if one is _operator_killed and bench.now >= spared:
            continue
        await one(bench, bench.rng.randrange(ENGINES))
        name = one.__name__.strip("_").replace("_", " ")
        done[name] = done.get(name, 0) + 1
        await asyncio.sleep(bench.rng.uniform(0.3, 1.2))
        await bench.world.heal()
        await asyncio.sleep(pause_seconds)
    return done


def slope(samples: list[tuple[float, int]]) -> float:
    """Bytes a second, by least squares; 0 of fewer than two."""
    if len(samples) < 2:
        return 0.0
    mean_at = sum(at for at, _ in samples) / len(samples)
    mean = sum(size for _, size in samples) / len(samples)
    spread = sum((at - mean_at) ** 2 for at, _ in samples)
    return sum((at - mean_at) * (size - mean) for at, size in samples) / spread if spread else 0.0


@row(
    "soak at mixed load",
    "memory slope < 1 MiB/min; no leaked slot; 0 lost",
    seconds=1800,
    allowed=(Fate.SIGNALLED, Fate.LEFT),
    into=SOAK,
)
async def soak(bench: Bench) -> Measured:
    """Mixed load, a fault of some kind each ten seconds; memory is looked at in each process that lives for some minutes."""
    world = bench.world
    samples: dict[tuple[str, int], list[tuple[float, int]]] = {}

    async def watch() -> None:
        while True:
            await asyncio.sleep(SAMPLE_SECONDS)
            for program in [world.operator, *world.proxies]:
                if program.alive:
                    samples.setdefault((program.name, program.pid), []).append((bench.now, program.resident_bytes()))

    watching = asyncio.create_task(watch())
    async with bench.sending(soaking) as requests:
        struck = await strike(bench, 8.0, KILLS_SHARE)
    watching.cancel()
    slopes: dict[str, float] = {}
    for (name, _), taken in samples.items():
        warm = [sample for sample in taken if sample[0] - taken[0][0] >= WARM_SECONDS]
        if warm and warm[-1][0] - warm[0][0] >= LEAST_SECONDS:
            slopes[name] = max(slopes.get(name, -1e9), slope(warm) * 60 / MIB)
    times = ", ".join(f"{count} {name}" for name, count in sorted(struck.items()))
    first = milliseconds([r.first_seconds for r in requests if r.first])
    told = ", ".join(f"{name} {each:+.2f}" for name, each in sorted(slopes.items(), key=lambda item: -item[1]))
    return Measured(
        f"memory slopes in MiB/min: {told}; first byte {first}; {times}",
        requests,
        sound=max(slopes.values(), default=0.0) < 1.0,
    )
