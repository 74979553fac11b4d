"""The control plane fails, lies, storms or is set back; disk, names and clock fail."""

from __future__ import annotations

import asyncio
import json
import resource
import shutil
import signal
from typing import Any, Final

from tests.faults.bench import Bench, Measured, row
from tests.faults.load import milliseconds, percentile
from tests.faults.relay import Passing, untouched
from tests.faults.world import ENGINES

PATIENCE_SECONDS: Final = 15.0  # for a change to be in force


@row("operator away", "0 lost; a proxy started meanwhile ready in 1 s from its last good snapshot", seconds=26, allowed=())
async def away(bench: Bench) -> Measured:
    """The operator is stopped, then killed; a third gateway starts meanwhile from the first one's state."""
    world, load = bench.world, bench.load
    times: list[float] = []
    late = world.proxy("gateway", "gateway-late")
    world.guests.append(late)
    port = world.port("gateway-late")
    async with bench.sending() as requests:
        end = bench.now + bench.seconds
        while bench.until(end):
            if len(times) % 2:
                await world.operator.end()
            else:
                world.operator.strike(signal.SIGSTOP)
            shutil.copytree(world.folder / "gateway-0.state", world.folder / "gateway-late.state", dirs_exist_ok=True)
            late.start()
            times.append(await world.until(lambda: world.ready(late), "the late gateway is ready"))
            load.rotation.append(port)
            await asyncio.sleep(3.0)
            load.rotation.remove(port)
            await asyncio.sleep(0.2)
            await late.end(signal.SIGTERM)
            world.operator.strike(signal.SIGCONT)
            await world.heal()
    return Measured(
        f"ready {max(times) * 1000:.0f} ms after its start at most, {len(times)} starts (its process's start included)",
        requests,
        quick=max(times) <= 1.0,
    )


@row("operator killed again and again, streams hung up (reconnect storm)", "0 lost", seconds=15, allowed=())
async def storms(bench: Bench) -> Measured:
    """Every stream ends each half second; the operator is killed each three seconds."""
    world = bench.world
    kills = hangs = 0
    async with bench.sending() as requests:
        end = bench.now + bench.seconds
        while bench.until(end):
            await world.operator.end()
            kills += 1
            world.operator.start()
            for _ in range(6):
                await asyncio.sleep(0.5)
                world.relay.hang_up()
                hangs += 1
    first = milliseconds([r.first_seconds for r in requests if r.first])
    synced = await world.until(lambda: _connected(bench), "every proxy has its stream", fatal=False)
    return Measured(f"{kills} kills, {hangs} times all hung up; first byte {first}; all connected {synced:.1f} s later", requests)


async def _connected(bench: Bench) -> bool:
    return all([(await bench.world.info(proxy))["config"]["connected"] for proxy in bench.world.proxies])


def _spoilt(frame: str, rng: Any) -> Passing:
    """A snapshot with something wrong: cut, no JSON, a dangling reference, wrong types, all endpoints gone without a word, an old epoch."""
    message = json.loads(frame)
    if message["type"] != "update":
        return untouched(frame)
    way = rng.randrange(7)
    if way == 0:
        return ((frame[: rng.randrange(len(frame))], 0.0),)
    if way == 1:
        return (("{" * 2000, 0.0),)
    if way == 2:
        message["epoch"] = 1
    for one in message.get("resources", ()):
        if way == 3 and "endpoints" in one:
            one["endpoints"] = []
        elif way == 4 and "rules" in one:
            one["rules"] = [{"name": "x", "backends": [{"name": "default/none"}]}]
        elif way == 5:
            one["name"] = 5
        elif way == 6 and "endpoints" in one:
            one["endpoints"] = [*one["endpoints"], *one["endpoints"]]
    return ((json.dumps(message), 0.0),)


@row("bad snapshots", "0 lost; each refused whole, the last good one stays; the next good one is taken", seconds=15, allowed=())
async def bad_snapshots(bench: Bench) -> Measured:
    """Every update is spoilt while the configuration changes five times a second; then all is well again."""
    world, rng = bench.world, bench.rng
    world.relay.down = lambda frame: _spoilt(frame, rng)
    before = world.relay.spoiled
    async with bench.sending() as requests:
        end = bench.now + bench.seconds
        turn = 0
        while bench.until(end):
            turn += 1
            world.write_resources(
                f"  retries: {{maxAttempts: {2 + turn % 2}, budgetPercent: 10}}\n" if not world.shape.more else None
            )
            await asyncio.sleep(0.2)
            if turn % 10 == 0:
                world.relay.hang_up()
        spoilt = world.relay.spoiled - before
        world.relay.heal()
        world.relay.hang_up()
        world.write_resources()
        await world.until(lambda: _connected(bench), "every proxy has its stream", fatal=False)
        versions: set[str] = set()

        async def agreed() -> bool:
            versions.clear()
            versions.update([(await world.info(proxy))["config"]["snapshot"]["version"] for proxy in world.proxies])
            return len(versions) == 1

        taken = await world.until(agreed, "one version", fatal=False, seconds=10)
    return Measured(f"{spoilt} spoilt frames; all on one version {taken:.1f} s after", requests, sound=len(versions) == 1)


def _lie(frame: str, rng: Any, frozen: dict[str, Any]) -> Passing:  # noqa: PLR0911 - one return a lie
    """A report lost, late, doubled, out of order, not a number, beyond caps, negative, or that never changes."""
    message = json.loads(frame)
    if message["type"] != "report":
        return untouched(frame)
    match rng.randrange(8):
        case 0:
            return ()
        case 1:
            return ((frame, rng.uniform(0.5, 4.0)),)
        case 2:
            return ((frame, 0.0), (frame, 0.0))
        case 3:
            return ((frame.replace('"in_flight":', '"in_flight":NaN,"x":', 1), 0.0),)
        case 4:
            return ((frame.replace('"in_flight":', '"in_flight":1e300,"x":', 1), 0.0),)
        case 5:
            return ((frame.replace('"in_flight":', '"in_flight":-5,"x":', 1), 0.0),)
        case 6:
            return ((json.dumps({**message, "sequence": max(0, message["sequence"] - 3)}), 0.0),)
        case _:
            load = frozen.setdefault(message["boot_id"], message.get("load"))
            return ((json.dumps({**message, "load": load}), 0.0),)


@row("lost, late, doubled, NaN, frozen reports", "0 lost; no endpoint is flooded or starved by a lie", seconds=16, allowed=())
async def lies(bench: Bench) -> Measured:
    """Every report to the operator is spoilt; and one engine, asked directly, says in its replies that it is idle while it is slow."""
    world, rng = bench.world, bench.rng
    frozen: dict[str, Any] = {}
    world.relay.up = lambda frame: _lie(frame, rng, frozen)
    idle = 'JSON {"named_metrics": {"in_flight": 0, "queued": 0, "in_flight_tokens": 0, "max_concurrency": 1000000}}'
    nan = 'JSON {"named_metrics": {"in_flight": NaN, "queued": -1, "in_flight_tokens": 1e400, "max_concurrency": 0}}'
    before = [(await world.get(e.admin, "/info"))["engine"]["finished_total"] for e in world.engines]
    await world.harm(0, "load", value=idle)
    await world.harm(1, "load", value=nan)
    await world.fault(0, slow={"factor": 6.0})
    async with bench.sending() as requests:
        await asyncio.sleep(bench.seconds)
    after = [(await world.get(e.admin, "/info"))["engine"]["finished_total"] for e in world.engines]
    shares = [(b - a) / max(1, sum(after) - sum(before)) for a, b in zip(before, after, strict=True)]
    first = [r.first_seconds for r in requests if r.first]
    return Measured(
        f"{world.relay.spoiled} frames spoilt; shares {', '.join(f'{share:.0%}' for share in shares)} (the first lies and is slow), first byte {milliseconds(first)}",
        requests,
        sound=shares[0] < 0.35 and min(shares[1:]) > 0.1,
    )


@row("wall clock jumps", "0 lost; configuration goes on", seconds=20, allowed=())
async def clock(bench: Bench) -> Measured:
    """An hour forth, two hours back, ten years forth; the operator restarts under each; a route changes under each."""
    world, rng = bench.world, bench.rng
    jumps = (3600.0, -7200.0, 3.2e8, 0.0)
    taken: list[float] = []
    async with bench.sending() as requests:
        for jump in jumps:
            world.write_clock(jump)
            await asyncio.sleep(1.0)
            await world.operator.end(signal.SIGTERM)
            world.operator.start()
            percent = rng.randrange(11, 99)
            world.write_resources(f"  retries: {{maxAttempts: 2, budgetPercent: {percent}}}\n")

            async def in_force(percent: int = percent) -> bool:
                infos = [await world.info(gateway) for gateway in world.gateways]
                return all(info["route"]["retry_budgets"]["default/chat"]["percent"] == percent for info in infos)

            taken.append(await world.until(in_force, "the change is in force", fatal=False, seconds=PATIENCE_SECONDS))
        world.write_resources()
    slow = max(taken)
    return Measured(
        f"a change is in force within {', '.join(f'{t:.1f}' for t in taken)} s after jumps of {', '.join(f'{j:+.0f}' for j in jumps)} s",
        requests,
        sound=slow < PATIENCE_SECONDS,
    )


@row("disk full", "0 lost; starts and changes go on", seconds=12, allowed=())
async def disk(bench: Bench) -> Measured:
    """No proxy can write another byte to any file (RLIMIT_FSIZE): state, access log, log; meanwhile the route changes."""
    world = bench.world
    for proxy in world.proxies:
        resource.prlimit(proxy.pid, resource.RLIMIT_FSIZE, (64, resource.RLIM_INFINITY))
    async with bench.sending() as requests:
        await asyncio.sleep(bench.seconds / 3)
        world.write_resources("  retries: {maxAttempts: 2, budgetPercent: 37}\n")

        async def in_force() -> bool:
            infos = [await world.info(gateway) for gateway in world.gateways]
            return all(info["route"]["retry_budgets"]["default/chat"]["percent"] == 37 for info in infos)

        taken = await world.until(in_force, "the change is in force", fatal=False, seconds=PATIENCE_SECONDS)
        await asyncio.sleep(bench.seconds / 3)
        for proxy in world.proxies:
            if proxy.alive:
                resource.prlimit(proxy.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        world.write_resources()
        await asyncio.sleep(bench.seconds / 3)
    return Measured(
        f"a change in force within {taken:.1f} s on a full disk",
        requests,
        sound=taken < PATIENCE_SECONDS and all(p.alive for p in world.proxies),
    )


@row("names do not resolve", "0 lost", seconds=15, allowed=())
async def names(bench: Bench) -> Measured:
    """One endpoint after the other gets a name that nobody knows, while the operator's address refuses everybody."""
    world, rng = bench.world, bench.rng
    turns = 0
    async with bench.sending() as requests:
        end = bench.now + bench.seconds
        while bench.until(end):
            number = rng.randrange(ENGINES)
            world.hosts[number] = f"engine-{number}.invalid"
            world.write_endpoints()
            await asyncio.sleep(0.5)
            world.relay.open = False
            world.relay.hang_up()
            await asyncio.sleep(1.5)
            turns += 1
            world.relay.open = True
            await world.heal()
    first = [r.first_seconds for r in requests if r.first]
    return Measured(
        f"{turns} endpoints lost their name; first byte {milliseconds(first)}", requests, quick=percentile(first, 0.99) < 2.5
    )
