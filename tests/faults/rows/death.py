"""Engines and sidecars that die, freeze, fail or say nothing."""

from __future__ import annotations

import asyncio
import random
import signal

from tests.faults.bench import Bench, Measured, added, row
from tests.faults.fate import Fate, Request
from tests.faults.load import milliseconds, mixed, percentile
from tests.faults.world import ENGINES

FIRST_TOKEN_SECONDS = 2.0  # as the world's routes have it
PROBES = 4  # of one router in four seconds, at growing intervals


def anywhere(rng: random.Random, number: int) -> Request:
    """The ordinary mix, one in four to the engines themselves."""
    request = mixed(rng, number)
    request.model = "direct" if rng.random() < 0.25 else "chat"
    return request


def chatty(rng: random.Random, number: int) -> Request:
    """Streams that last a while."""
    return Request(number, f"{number:x}", 30, stream=True)


@row(
    "engine or sidecar killed, refused, reset, 5xx",
    "0 lost; failover p50 <= 3 ms, p99 <= 25 ms",
    seconds=101,
)
async def killed(bench: Bench) -> Measured:
    """Strikes one of the four after the other, each in a way drawn from the seed, heals it, and waits a little."""
    world, rng = bench.world, bench.rng
    struck: dict[str, int] = {}
    async with bench.sending(anywhere) as requests:
        await asyncio.sleep(1.0)
        end = bench.now + bench.seconds
        while bench.until(end):
            victim = rng.randrange(ENGINES)
            way = rng.choice(("sidecar killed", "engine killed", "reset", "500"))
            struck[way] = struck.get(way, 0) + 1
            match way:
                case "sidecar killed" | "engine killed":
                    program = (world.sidecars if way == "sidecar killed" else world.engines)[victim]
                    await program.end()
                    await asyncio.sleep(rng.uniform(0.1, 1.0))
                    program.start()
                case "reset":
                    await world.fault(victim, reset={})
                case _:
                    await world.fault(victim, error={})
            await asyncio.sleep(rng.uniform(0.3, 1.0))
            await world.heal()
    attempts = await bench.attempts()
    again = [r for r in requests if attempts.get(r.request_id, 1) > 1]
    plain = [r for r in requests if attempts.get(r.request_id, 1) == 1]
    times = added(again, plain)
    ways = ", ".join(f"{count} {way}" for way, count in sorted(struck.items()))
    return Measured(
        f"failover {milliseconds(times)} over {len(again)} of {ways}",
        requests,
        quick=percentile(times, 0.5) <= 0.003 and percentile(times, 0.99) <= 0.025,
    )


@row("sidecar frozen (SIGSTOP)", "0 lost; p99 <= 300 ms added", seconds=24)
async def frozen(bench: Bench) -> Measured:
    """Stops a sidecar for 1.5 s, again and again."""
    world, rng = bench.world, bench.rng
    windows: list[tuple[float, float]] = []
    async with bench.sending() as requests:
        await asyncio.sleep(1.0)
        end = bench.now + bench.seconds
        while bench.until(end):
            sidecar = rng.choice(world.sidecars)
            start = bench.now
            sidecar.strike(signal.SIGSTOP)
            await asyncio.sleep(1.5)
            windows.append((start, bench.now))
            sidecar.strike(signal.SIGCONT)
            await world.heal()
            await asyncio.sleep(0.5)
    during = [r for r in requests if any(a <= r.due <= b for a, b in windows)]
    outside = [r for r in requests if not any(a - 0.2 <= r.due <= b + 0.5 for a, b in windows)]
    more = percentile([r.first_seconds for r in during if r.first], 0.99) - percentile(
        [r.first_seconds for r in outside if r.first], 0.99
    )
    return Measured(
        f"p99 {more * 1000:.0f} ms added over {len(during)} requests in {len(windows)} freezes", requests, quick=more <= 0.3
    )


@row("engine accepts and says nothing", "0 lost; ejected within 2 s; nobody waits past the first-token timeout", seconds=24)
async def silent(bench: Bench) -> Measured:
    """One engine hangs for 6 s while its health answers; first-token timeout 2 s."""
    world, rng = bench.world, bench.rng
    met: list[int] = []
    late: list[int] = []
    async with bench.sending() as requests:
        await asyncio.sleep(1.0)
        end = bench.now + bench.seconds
        while bench.until(end):
            victim = rng.randrange(ENGINES)
            before = await _struck(bench, victim, "hang")
            await world.fault(victim, hang={})
            await asyncio.sleep(2.0)
            met.append(await _struck(bench, victim, "hang") - before)
            await asyncio.sleep(4.0)
            late.append(await _struck(bench, victim, "hang") - before - met[-1])
            await world.fault(victim, hang=None)
            await asyncio.sleep(1.0)
            await world.heal()
    longest = max((r.seconds for r in requests if r.fate is not Fate.HUNG), default=0.0)
    probes = PROBES * len(world.gateways)
    return Measured(
        f"at most {max(met)} of {len(met)} hangs' requests met it, {max(late)} probes from 2 s on; longest request {longest:.2f} s",
        requests,
        sound=max(met) > 0,
        quick=max(late) <= probes and longest <= FIRST_TOKEN_SECONDS + 0.5,
    )


async def _struck(bench: Bench, victim: int, fault: str) -> int:
    """How many requests have met a fault of the engine."""
    count: int = (await bench.world.get(bench.world.engines[victim].admin, "/fault"))["struck"].get(fault, 0)
    return count


@row("engine dies in a stream", "100 % signalled within 25 ms, 0 duplicated or mixed tokens", seconds=26)
async def in_a_stream(bench: Bench) -> Measured:
    """Long streams; engines and sidecars are killed, or their replies reset at a byte."""
    world, rng = bench.world, bench.rng

    async def slowed() -> None:
        for number in range(ENGINES):
            await world.fault(number, slow={"factor": 5.0})

    await slowed()
    deaths: list[tuple[float, float]] = []
    async with bench.sending(chatty, bench.rate / 3) as requests:
        await asyncio.sleep(1.0)
        end = bench.now + bench.seconds
        while bench.until(end):
            victim = rng.randrange(ENGINES)
            way = rng.choice(("engine", "sidecar", "reset", "cut"))
            if way in {"reset", "cut"}:
                await world.harm(victim, way, at=400, upto=6000)
                await asyncio.sleep(0.3)
            else:
                program = (world.engines if way == "engine" else world.sidecars)[victim]
                start = bench.now
                program.strike(signal.SIGKILL)
                deaths.append((start, start + 0.3))
                await program.end()
                await asyncio.sleep(0.5)
                program.start()
            await world.heal()
            await slowed()
            await asyncio.sleep(0.5)
    broken = [r for r in requests if r.fate is Fate.SIGNALLED]
    times = [r.ended - start for r in broken for start, end in deaths if start <= r.ended <= end and r.first < start]
    untold = [r for r in requests if r.fate in {Fate.SILENT, Fate.HUNG}]
    return Measured(
        f"{len(broken)} broken, {len(untold)} untold; {len(times)} by a death: max {max(times, default=0) * 1000:.1f} ms, {milliseconds(times)}",
        requests,
        sound=bool(broken),
        quick=max(times, default=0) <= 0.025,
    )


@row(
    "fast-failing engine (500 in 1 ms)",
    "<= 3 requests, all retried; ejected; half-open probe brings it back",
    seconds=20,
    allowed=(),
)
async def fast_failing(bench: Bench) -> Measured:
    """One engine answers 500 at once for 3 s."""
    world, rng = bench.world, bench.rng
    met: list[int] = []
    probes: list[int] = []
    back: list[float] = []
    async with bench.sending() as requests:
        await asyncio.sleep(1.0)
        end = bench.now + bench.seconds
        while bench.until(end):
            engine = world.engines[victim := rng.randrange(ENGINES)]
            before = await _struck(bench, victim, "error")
            await world.fault(victim, error={})
            await asyncio.sleep(0.4)
            first = await _struck(bench, victim, "error") - before
            await asyncio.sleep(2.6)
            last = await _struck(bench, victim, "error") - before
            met.append(first)
            probes.append(last - first)
            served = (await world.get(engine.admin, "/info"))["engine"]["finished_total"]
            await world.fault(victim, error=None)

            async def serves(engine: object = engine, served: int = served) -> bool:
                info = await world.get(engine.admin, "/info")  # type: ignore[attr-defined]
                return bool(info["engine"]["finished_total"] > served + 5)

            back.append(await world.until(serves, "it serves again", fatal=False, seconds=15))
            await world.heal()
            await asyncio.sleep(1.0)
    per_router = max(met, default=0) / len(world.gateways)
    return Measured(
        f"{max(met, default=0)} requests of {len(world.gateways)} routers met it, {max(probes, default=0)} probes in 2.6 s; back after {max(back, default=0):.1f} s",
        requests,
        quick=per_router <= 3 and max(back, default=99) < 15,
    )


@row(
    "every engine gone", "503 with Retry-After in <= 5 ms; no queue growth", seconds=10, allowed=(Fate.SIGNALLED, Fate.REFUSED, Fate.LOST)
)  # fmt: skip
async def all_gone(bench: Bench) -> Measured:
    """All four engines are killed and stay away."""
    world = bench.world
    async with bench.sending() as requests:
        await asyncio.sleep(1.0)
        for engine in world.engines:
            engine.strike(signal.SIGKILL)
        gone = bench.now
        await asyncio.sleep(1.0)
        begin = bench.now
        await asyncio.sleep(bench.seconds)
        under_way = bench.load.under_way
        finish = bench.now
        await asyncio.gather(*(engine.end() for engine in world.engines))
    during = [r for r in requests if begin <= r.due <= finish]
    right = [r for r in during if r.status == 503 and r.fate is Fate.REFUSED]
    times = [r.seconds for r in during]
    first = [r for r in requests if gone <= r.due < begin and r.fate is Fate.LOST]
    return Measured(
        f"{len(right)} of {len(during)} 503 with Retry-After, {milliseconds(times)}; {under_way} under way; in the first second {len(first)} other failures",
        requests,
        sound=len(right) == len(during) and under_way < 30,
        quick=percentile(times, 0.99) <= 0.005,
    )


@row(
    "all back at once", "slow start; no second collapse", seconds=12, allowed=(Fate.SIGNALLED, Fate.REFUSED, Fate.LOST)
)  # fmt: skip
async def all_back(bench: Bench) -> Measured:
    """All four engines come back in the same moment, under full load."""
    world = bench.world
    for engine in world.engines:
        await engine.end()
    async with bench.sending() as requests:
        await asyncio.sleep(2.0)
        for engine in world.engines:
            engine.start()
        begin = bench.now
        await asyncio.sleep(bench.seconds)
    seconds: dict[int, list[Request]] = {}
    for request in requests:
        if request.due >= begin:
            seconds.setdefault(int(request.due - begin), []).append(request)
    shares = [sum(r.fate is Fate.OK for r in seconds[n]) / len(seconds[n]) for n in sorted(seconds)]
    recovered = next((n for n, share in enumerate(shares) if share >= 0.99), None)
    after = shares[recovered:] if recovered is not None else [0.0]
    return Measured(
        f"99 % served from second {recovered} on; lowest second after that {min(after) * 100:.1f} %",
        requests,
        sound=recovered is not None and min(after) >= 0.95,
    )
