"""The real operator process before a fake API server: it leads, publishes, writes statuses and Events, and tells of itself."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from tests.fakes import resources
from tests.fakes.kube_api import FakeKubeApi, fake_kube_api
from tests.fakes.ports import free_port

DEADLINE_SECONDS = 20.0


class Bench:
    def __init__(self, api: FakeKubeApi, folder: Path, session: aiohttp.ClientSession) -> None:
        self.api = api
        self.session = session
        self.kubeconfig = api.write_kubeconfig(folder / "kubeconfig")
        self.admin, self.discovery = free_port(), free_port()
        self.process: asyncio.subprocess.Process | None = None

    async def start(self, *options: str) -> None:
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "spillway_operator", "--source", "kubernetes", "--kubeconfig", str(self.kubeconfig),
            "--host", "127.0.0.1", "--admin-port", str(self.admin), "--discovery-port", str(self.discovery),
            "--authentication", "loopback", "--identity", "one", *options,
            stderr=asyncio.subprocess.DEVNULL, env={**os.environ},
        )  # fmt: skip

    async def get(self, path: str) -> tuple[int, str]:
        try:
            async with self.session.get(f"http://127.0.0.1:{self.admin}{path}") as answer:
                return answer.status, await answer.text()
        except aiohttp.ClientError:
            return 0, ""

    async def until(self, check: Callable[[], Any]) -> None:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while True:
                found = check()
                if await found if asyncio.iscoroutine(found) else found:
                    return
                await asyncio.sleep(0.02)

    async def leads(self) -> bool:
        return (await self.get("/leaderz"))[0] == 200

    def status_of(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.api.objects["modelroutes", "ml", name].get("status", {})
        return {each["type"]: each["status"] for each in found.get("conditions", [])}


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with fake_kube_api() as api, aiohttp.ClientSession() as session:
        await api.put("modelbackends", resources.backend("fast"))
        await api.put("modelroutes", resources.route("chat"))
        made = Bench(api, tmp_path, session)
        yield made
        if made.process is not None and made.process.returncode is None:
            made.process.terminate()
            await asyncio.wait_for(made.process.wait(), DEADLINE_SECONDS)


async def test_it_leads_and_writes_what_it_finds(bench: Bench):
    await bench.start()
    await bench.until(bench.leads)
    await bench.until(lambda: bench.status_of("chat").get("Accepted") == "True")
    assert bench.status_of("chat")["Programmed"] == "Unknown"
    await bench.api.put("modelroutes", resources.route("lost", models=["x"], rules=[resources.rule("all", {"name": "nowhere"})]))
    await bench.until(lambda: any(event["reason"] == "BackendNotFound" for event in bench.api.events))
    text = (await bench.get("/metrics"))[1]
    assert "spillway_operator_leader 1.0" in text
    assert 'spillway_operator_status_applies_total{outcome="applied"}' in text
    written = len(bench.api.statuses)
    await asyncio.sleep(1.5)  # passes over all statuses, which find nothing to write
    assert len(bench.api.statuses) == written


async def test_a_standby_is_ready_and_serves_no_proxy(bench: Bench):
    lease = {
        "metadata": {"name": "spillway-operator", "namespace": "default"},
        "spec": {"holderIdentity": "another", "leaseDurationSeconds": 3600, "renewTime": "2026-01-31T12:00:00.000000Z"},
    }
    await bench.api.put("leases", lease)
    await bench.start()

    async def ready() -> bool:
        return (await bench.get("/readyz"))[0] == 200

    await bench.until(ready)
    await asyncio.sleep(0.7)
    assert (await bench.get("/leaderz"))[0] == 503
    with pytest.raises(aiohttp.ClientError):
        await bench.session.get(f"http://127.0.0.1:{bench.discovery}/v1/discovery")
    assert bench.api.statuses == []
    changed = {**bench.api.objects["leases", "default", "spillway-operator"]}
    changed["spec"] = {**changed["spec"], "holderIdentity": ""}
    await bench.api.put("leases", changed)
    await bench.until(bench.leads)
    await bench.until(lambda: bench.api.statuses)


async def test_a_cluster_that_cannot_be_found_ends_it_with_a_message(tmp_path: Path):
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "spillway_operator", "--source", "kubernetes", "--kubeconfig", str(tmp_path / "none"),
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, told = await asyncio.wait_for(process.communicate(), DEADLINE_SECONDS)
    assert process.returncode == 1
    assert b"cannot start" in told
