"""Backends by condition at several gateways at once, each by what it has met itself; a rule that mixes pods, a Service and a provider."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter

from tests.fakes.proxy_bench import STREAM_BODY, Bench, Router, post, until
from tests.fakes.raw_engine import Call, answers, reply, stream

from spillway.sim_engine.faults import Faults, FaultSettings
from spillway.sim_engine.model import Engine, EngineSpec
from spillway.sim_engine.server import EngineServer
from spillway_wire.names import Provider
from spillway_wire.snapshot import (
    BackendRef,
    Cluster,
    Endpoint,
    Endpoints,
    External,
    Fallback,
    Resource,
    ResourceKey,
    Retries,
    Route,
    Rule,
    Spill,
    key_of,
)

GATEWAYS = 3
SPEC = EngineSpec(prefill_tokens_per_second=100_000, decode_tokens_per_second=100, half_speed_batch=64, max_running=4)
BODY = b'{"model":"m","stream":true,"max_tokens":20,"messages":[{"role":"user","content":"Where to?"}]}'
CAPACITY = 2 * 4 / (20 * SPEC.step_seconds(4, 0))  # requests a second of two such engines


async def simulated(bench: Bench, name: str) -> int:
    """A simulated engine that calls itself `name`; its port."""
    server = EngineServer(Engine(SPEC), Faults(random.Random(1), FaultSettings()), [name], time.monotonic)
    port = await server.start("127.0.0.1", 0)
    bench.stops.append(lambda: server.stop(0.0))
    return port


async def mixed(bench: Bench) -> list[Router]:
    """Gateways with one rule: pods with a sidecar and a Service without one, and past them a provider."""
    guard = await bench.guard(await simulated(bench, "pods"))
    service, outside = await simulated(bench, "service"), await bench.engine(answers(stream("outside")))
    external = External("127.0.0.1", outside.port, tls=False, allowed_networks=("127.0.0.0/8",))
    refs = (BackendRef("pods", 0), BackendRef("service", 0), BackendRef("outside", 1))
    resources: list[Resource] = [
        Route("r", ("m",), (Rule("x", refs, (), spill=Spill(0.3)),)),
        Cluster("pods", Provider.VLLM, "pods"),
        Cluster("service", Provider.VLLM, "service"),
        Cluster("outside", Provider.OPENAI_COMPATIBLE, "outside", external=external),
        Endpoints("pods", (Endpoint("pods-0", "127.0.0.1", guard.port, inbound=True),)),
        Endpoints("service", (Endpoint("service-0", "127.0.0.1", service),)),
        Endpoints("outside", (Endpoint("outside-0", "127.0.0.1", outside.port),)),
    ]
    return await gateways(bench, {key_of(resource): resource for resource in resources})


async def gateways(bench: Bench, resources: dict[ResourceKey, Resource]) -> list[Router]:
    """Several, that know of each other's number."""
    routers = [await bench.router(resources, seed=seed) for seed in range(GATEWAYS)]
    for router in routers:
        router.site.routers = GATEWAYS
    return routers


async def offered(router: Router, rate: float, seconds: float) -> Counter[str]:
    """So many requests a second come to it, whatever became of those before; where they were served."""

    async def one() -> str:
        got = await router.ask(post(BODY))
        assert (got.status, got.whole) == (200, True), got.body
        return next((name for name in ("pods", "service") if b'"model":"%b"' % name.encode() in got.body), "outside")

    begin = time.monotonic()
    tasks = []
    async with asyncio.TaskGroup() as group:
        for number in range(int(rate * seconds)):
            await asyncio.sleep(max(0.0, begin + number / rate - time.monotonic()))
            tasks.append(group.create_task(one()))
    return Counter(task.result() for task in tasks)


async def test_every_gateway_spills_the_excess_of_a_mixed_rule_and_comes_back():
    async with Bench() as bench:
        routers = await mixed(bench)
        went = await asyncio.gather(*(offered(router, 2 * CAPACITY / GATEWAYS, 3.0) for router in routers))
        total = sum(went, Counter[str]())
        assert 0.15 < total["outside"] / total.total() < 0.75, "half of it is more than the engines can do"
        for counts in went:
            assert min(counts["pods"], counts["service"]) > counts.total() / 20, went
            assert counts["outside"] > counts.total() / 20, went

        async def calm() -> bool:
            counts = await asyncio.gather(*(offered(router, 0.25 * CAPACITY / GATEWAYS, 1.0) for router in routers))
            return not sum(counts, Counter[str]())["outside"]

        async with asyncio.timeout(20):
            while not await calm():
                pass
        assert not any(spill.spilling for router in routers for spill in router.site.conditions.spills.values())


async def test_each_gateway_falls_back_and_returns_by_what_it_has_met_itself():
    failing = False

    async def script(call: Call) -> None:
        await call.write(reply(b"{}", status=500) if failing else stream("pool"))

    async with Bench() as bench:
        pool, spare = await bench.engine(script), await bench.engine(answers(stream("spare")))
        refs = (BackendRef("pool", 0), BackendRef("spare", 1))
        resources: list[Resource] = [Route("r", ("m",), (Rule("x", refs, (), fallback=Fallback(30)),), retries=Retries(3, 100))]
        for name, port in (("pool", pool.port), ("spare", spare.port)):
            resources += [Cluster(name, Provider.VLLM, "m"), Endpoints(name, (Endpoint(f"{name}-0", "127.0.0.1", port),))]
        routers = await gateways(bench, {key_of(resource): resource for resource in resources})
        conditions = [router.site.conditions.fallbacks["r", "x", 0] for router in routers]

        async def ask(router: Router) -> bytes:
            got = await router.ask(post(STREAM_BODY))
            assert got.status == 200, "a failure is made good at the next priority"
            return got.body

        for index, router in enumerate(routers):
            failing = False
            for _ in range(8):
                assert b"pool" in await ask(router)
            failing = True
            for _ in range(40):
                await ask(router)
                if conditions[index].because is not None:
                    break
                router.target(0, "pool").succeeded(router.site.clock())  # keep it from being ejected for itself
            assert [condition.because is not None for condition in conditions] == [at <= index for at in range(GATEWAYS)]
        failing = False
        for index, router in enumerate(routers):
            for _ in range(100):
                router.advance(0.5)
                await ask(router)
                if conditions[index].because is None:
                    break
            assert [condition.because is None for condition in conditions] == [at <= index for at in range(GATEWAYS)]
            assert b"pool" in await ask(router)
        await until(lambda: all(router.idle() for router in routers))
