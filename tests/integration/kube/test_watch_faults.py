"""kopf under our supervisor: what breaks a watch costs at most a moment, and what was deleted meanwhile is gone afterwards."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from tests.fakes import resources
from tests.fakes.kube_api import FakeKubeApi, fake_kube_api

from spillway_operator.api import ObjectKey
from spillway_operator.kube.access import KubeAccess
from spillway_operator.sources.kubernetes import KubernetesSource
from spillway_operator.sources.kubernetes_watch import WatchPace
from spillway_operator.store import BACKEND, ROUTE, Store

DEADLINE_SECONDS = 20.0
PACE = WatchPace(stall_seconds=1.0, missing_seconds=0.5, stuck_seconds=60.0, restart_last_seconds=0.5, retry_last_seconds=0.2)


class Bench:
    """A source before a fake API server."""

    def __init__(self, api: FakeKubeApi, access: KubeAccess) -> None:
        self.api = api
        self.store = Store()
        self.others: list[ObjectKey] = []
        self.source = KubernetesSource(
            self.store,
            access,
            namespaces=(),
            pod_selector="",
            clock=time.monotonic,
            rng=random.Random(1),
            on_other_object=self.others.append,
            pace=PACE,
        )

    @property
    def starts(self) -> int:
        return int(self.source.info()["kopf"]["starts"])

    def has(self, kind: str, name: str) -> bool:
        return self.store.get(ObjectKey(kind, "ml", name)) is not None

    async def until(self, check: Callable[[], object]) -> None:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while True:
                if check():
                    return
                await asyncio.sleep(0.01)

    async def follows(self, name: str = "later") -> None:
        """A change made at this point is seen."""
        await self.api.put("modelroutes", resources.route(name))
        await self.until(lambda: self.has(ROUTE, name))


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with fake_kube_api() as api:
        await api.put("modelbackends", resources.backend("fast"))
        await api.put("modelroutes", resources.route("chat"))
        await api.put("modelroutes", resources.route("gone"))
        access = await KubeAccess.load(api.write_kubeconfig(tmp_path / "kubeconfig"))
        bench = Bench(api, access)
        try:
            yield bench
        finally:
            await bench.source.stop()


async def started(bench: Bench) -> Bench:
    async with asyncio.timeout(DEADLINE_SECONDS):
        await bench.source.start()
    return bench


async def test_everything_is_there_when_it_has_started_and_is_followed(bench: Bench):
    await started(bench)
    assert bench.has(BACKEND, "fast")
    assert bench.has(ROUTE, "chat")
    await bench.follows()
    changed = resources.route("chat", models=["another"])
    changed["metadata"]["generation"] = 2
    await bench.api.put("modelroutes", changed)
    await bench.until(lambda: bench.store.get(ObjectKey(ROUTE, "ml", "chat")).generation == 2)  # type: ignore[union-attr]
    await bench.api.remove("modelroutes", "gone")
    await bench.until(lambda: not bench.has(ROUTE, "gone"))
    assert bench.starts == 1


async def test_an_error_in_the_watch_ends_kopf_and_not_us(bench: Bench):
    await started(bench)
    await bench.api.end_watches(500)
    await bench.api.remove("modelroutes", "gone")
    began = time.monotonic()
    await bench.follows()
    await bench.until(lambda: not bench.has(ROUTE, "gone"))
    await bench.until(lambda: bench.starts > 1)
    assert time.monotonic() - began < 5  # an order of magnitude below what kopf's own delays come to
    assert bench.has(ROUTE, "chat")


async def test_a_deletion_that_no_watch_told_of_is_found_by_the_next_list(bench: Bench):
    """410: kopf lists again by itself, and says nothing of what is not in the list any more."""
    await started(bench)
    await bench.api.stall()
    await bench.api.remove("modelroutes", "gone")
    await bench.api.remove("modelroutes", "chat")
    bench.api.forget_history()
    await bench.until(lambda: not bench.has(ROUTE, "gone") and not bench.has(ROUTE, "chat"))
    await bench.follows()
    assert bench.starts == 1


async def test_a_watch_that_went_silent_is_opened_anew(bench: Bench):
    await started(bench)
    await bench.api.stall()
    await bench.follows()
    assert bench.starts == 1


@pytest.mark.parametrize("status", [503, 403, 429])
async def test_refusals_for_long_are_sat_out(bench: Bench, status: int):
    await started(bench)
    bench.api.failure = status
    await bench.api.end_watches(410)
    await asyncio.sleep(1.5)
    assert bench.has(ROUTE, "chat")
    assert bench.source.info()["kopf"]["contacts"]["ModelRoute"]["failure"].startswith(str(status))
    bench.api.failure = None
    await bench.follows()
    assert bench.starts == 1


async def test_an_expired_token_is_not_hammered(bench: Bench):
    await started(bench)
    bench.api.failure = 401
    await bench.api.end_watches(410)
    before = bench.api.requests.total()
    await asyncio.sleep(1.5)
    assert bench.api.requests.total() - before < 30
    bench.api.failure = None
    await bench.follows()


async def test_kinds_that_are_installed_later_are_found(bench: Bench):
    bench.api.hidden.add("spillway.dev")
    starting = asyncio.create_task(bench.source.start())
    await bench.until(lambda: bench.starts > 1)
    assert not bench.source.synced
    assert "CRDs" in bench.source.waits_for() or "no list of" in bench.source.waits_for()
    bench.api.hidden.clear()
    async with asyncio.timeout(DEADLINE_SECONDS):
        await starting
    assert bench.has(ROUTE, "chat")


async def test_another_object_of_the_same_name_begins_anew(bench: Bench):
    await started(bench)
    await bench.api.remove("modelroutes", "chat")
    await bench.api.put("modelroutes", resources.route("chat"))
    key = ObjectKey(ROUTE, "ml", "chat")
    uid = bench.api.objects["modelroutes", "ml", "chat"]["metadata"]["uid"]
    await bench.until(lambda: bench.source.uid_of(key) == uid)
    assert bench.has(ROUTE, "chat")
    assert bench.others == [key]


async def test_an_api_server_that_is_not_there_yet_is_waited_for(bench: Bench):
    await bench.api.stop()
    starting = asyncio.create_task(bench.source.start())
    await bench.until(lambda: bench.source.info()["kopf"]["starts"] == 1)
    await asyncio.sleep(0.3)
    await bench.api.start()
    async with asyncio.timeout(DEADLINE_SECONDS):
        await starting
    assert bench.has(ROUTE, "chat")
