"""How quickly a change reaches proxies, and what the operator costs at rest. Figures are printed; bounds are wide, for small machines."""

import asyncio
import copy
import os
import statistics
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from e2e.control_plane.processes import Bench, Operator, backend, bench, route, soon
from e2e.control_plane.proxies import PretendProxy, pretend
from e2e.kubectl import Kubectl

from spillway_operator.kube.access import KubeAccess
from spillway_operator.kube.api import KubeApi

EDITS = 40
AT_ONCE = 500
PROXIES = 20
REST_SECONDS = 30


@pytest.fixture
def parts(ours: Kubectl, tmp_path: Path) -> Iterator[Bench]:
    with bench(ours, tmp_path) as made:
        yield made


@pytest.fixture
async def access(parts: Bench) -> KubeAccess:
    return await KubeAccess.load(Path(parts.kubectl.environment.get("KUBECONFIG") or os.environ["KUBECONFIG"]))


@pytest.fixture
async def api(access: KubeAccess) -> AsyncIterator[KubeApi]:
    made = KubeApi(access)
    await made.start()
    yield made
    await made.close()


def path_of(namespace: str, plural: str, name: str = "") -> str:
    return f"/apis/spillway.dev/v1alpha1/namespaces/{namespace}/{plural}" + (f"/{name}" if name else "")


async def leading(operator: Operator) -> None:
    await asyncio.to_thread(soon, lambda: operator.leads)


async def until(check: Any, seconds: float) -> None:
    async with asyncio.timeout(seconds):
        while True:
            if check():
                return
            await asyncio.sleep(0.005)


async def programmed(access: KubeAccess, path: str, count: int) -> float:
    """The moment at which so many routes say that they are programmed, as a watch tells; a busy server may cut off a slow one."""
    there: set[str] = set()
    async with access.session() as session:
        while True:
            async with session.get(
                access.server + path, params={"watch": "1", "resourceVersion": "0"}, read_bufsize=2**24
            ) as answer:
                async for line in answer.content:
                    found = msgspec.json.decode(line)["object"]
                    conditions = {each["type"]: each["status"] for each in found.get("status", {}).get("conditions", [])}
                    if conditions.get("Programmed") == "True":
                        there.add(found["metadata"]["name"])
                    if len(there) == count:
                        return time.monotonic()


def has(proxy: PretendProxy, name: str, generation: int = 0) -> bool:
    return proxy.seen.get(("route", name), (0.0, -1))[1] >= generation


async def test_an_edit_reaches_every_proxy(parts: Bench, api: KubeApi) -> None:
    operator, namespace = parts.operator(), str(parts.kubectl.namespace)
    await leading(operator)
    await api.request("POST", path_of(namespace, "modelbackends"), backend())
    document = await api.request("POST", path_of(namespace, "modelroutes"), route())
    async with pretend(
        f"http://127.0.0.1:{parts.discovery_port}", [f"p{n}" for n in range(PROXIES)], namespace=namespace
    ) as proxies:
        await until(lambda: all(has(each, f"{namespace}/chat", 1) for each in proxies), 10)
        took = []
        for number in range(EDITS):
            patch = {"spec": {"retries": {"budgetPercent": number % 50}}}
            began = time.monotonic()
            document = await api.request(
                "PATCH", path_of(namespace, "modelroutes", "chat"), patch, content_type="application/merge-patch+json"
            )
            generation = document["metadata"]["generation"]
            await until(lambda generation=generation: all(has(each, f"{namespace}/chat", generation) for each in proxies), 10)
            took += [each.seen["route", f"{namespace}/chat"][0] - began for each in proxies]
            await asyncio.sleep(0.3)  # edits, not a flood
    cuts = statistics.quantiles(took, n=100)
    print(f"\n{EDITS} edits to {PROXIES} proxies: p50 {cuts[49] * 1000:.0f} ms, p99 {cuts[98] * 1000:.0f} ms")
    assert cuts[49] < 0.5


async def test_many_objects_at_once(parts: Bench, api: KubeApi, access: KubeAccess) -> None:
    operator, namespace = parts.operator(), str(parts.kubectl.namespace)
    await leading(operator)
    await api.request("POST", path_of(namespace, "modelbackends"), backend())
    async with pretend(
        f"http://127.0.0.1:{parts.discovery_port}", [f"p{n}" for n in range(PROXIES)], namespace=namespace
    ) as proxies:
        await until(lambda: all(("cluster", f"{namespace}/fast") in each.seen for each in proxies), 10)
        before = [each.updates for each in proxies]
        room = asyncio.Semaphore(32)
        told_at = asyncio.create_task(programmed(access, path_of(namespace, "modelroutes"), AT_ONCE))

        async def create(number: int) -> None:
            async with room:
                await api.request("POST", path_of(namespace, "modelroutes"), route(f"r{number}"), timeout_seconds=30)

        began = time.monotonic()
        await asyncio.gather(*(create(number) for number in range(AT_ONCE)))
        created = time.monotonic() - began
        await until(lambda: all(sum(kind == "route" for kind, _ in each.seen) == AT_ONCE for each in proxies), 30)
        there = max(moment for each in proxies for (kind, _), (moment, _) in each.seen.items() if kind == "route") - began
        updates = max(each.updates - base for each, base in zip(proxies, before, strict=True))

        async with asyncio.timeout(60):
            told = await told_at - began
    print(
        f"\n{AT_ONCE} routes, created in {created:.1f} s: on {PROXIES} proxies after {there:.1f} s"
        f" ({there - created:.1f} s after the last was created) in {updates} updates each,"
        f" told in every status after {told:.1f} s ({told - created:.1f} s)"
    )
    assert there - created < 3
    assert updates <= 8 + 4 * there
    writes = (await asyncio.to_thread(operator.json, "/info"))["cluster"]["status_writes"]["counts"]["applied"]
    assert writes < 1.3 * AT_ONCE  # one each says that it is accepted and on the proxies


def cpu_seconds(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def pss_mib(process: int) -> float:
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def written(operator: Operator) -> dict[str, int]:
    """Requests so far, by method: PATCH is a status, POST an Event, PUT the Lease."""
    requests = operator.json("/info")["cluster"]["api"]["requests"]
    return {method: requests.get(method, 0) for method in ("PATCH", "POST", "PUT")}


def told_of(operator: Operator) -> bool:
    """Whether nothing of the beginning waits to be written."""
    cluster = operator.json("/info")["cluster"]
    return bool(cluster["events"]["queued"] == cluster["status_writes"]["waiting"] == 0)


async def test_what_it_costs_at_rest(parts: Bench, api: KubeApi) -> None:
    operator, namespace = parts.operator(), str(parts.kubectl.namespace)
    await leading(operator)
    room = asyncio.Semaphore(16)

    async def create(plural: str, document: dict[str, Any]) -> None:
        async with room:
            await api.request("POST", path_of(namespace, plural), copy.deepcopy(document), timeout_seconds=30)

    await asyncio.gather(*(create("modelbackends", backend(f"b{n}")) for n in range(200)))
    await asyncio.gather(*(create("modelroutes", route(f"r{n}", f"b{n}", f"b{n + 100}")) for n in range(100)))
    names = [f"{namespace}/p{n}" for n in range(400)]
    async with pretend(
        f"http://127.0.0.1:{parts.discovery_port}", names, namespace=namespace, report_seconds=1.0, decode=False
    ) as proxies:
        await until(lambda: all(each.updates for each in proxies), 20)
        await asyncio.sleep(15)
        await asyncio.to_thread(soon, lambda: told_of(operator), 120)
        assert operator.child is not None
        process = operator.child.pid
        requests = await asyncio.to_thread(written, operator)
        began, before = time.monotonic(), cpu_seconds(process)
        await asyncio.sleep(REST_SECONDS)
        spent = (cpu_seconds(process) - before) / (time.monotonic() - began)
        after = await asyncio.to_thread(written, operator)
    a_minute = {name: (after[name] - requests[name]) * 60 / REST_SECONDS for name in after}
    print(
        f"\n100 routes, 200 backends, 400 proxies that report each second: {100 * spent:.0f} % of a core,"
        f" {pss_mib(process):.0f} MiB; written a minute: {a_minute['PATCH']:.0f} statuses, {a_minute['POST']:.0f} Events,"
        f" {a_minute['PUT']:.0f} renewals of the Lease"
    )
    assert a_minute["PATCH"] == a_minute["POST"] == 0
    assert a_minute["PUT"] <= 66
