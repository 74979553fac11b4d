"""The admin port, over a store without a core behind it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest
from prometheus_client import CollectorRegistry, Gauge
from tests.fakes.operator_core import Bench, backend, route

from spillway_operator.admin import AdminServer
from spillway_operator.api import ObjectKey
from spillway_operator.api.documents import Problem


class Port:
    def __init__(self, bench: Bench, session: aiohttp.ClientSession) -> None:
        self.bench = bench
        self.session = session
        self.missing: str | None = None

    async def json(self, path: str) -> dict:
        async with self.session.get(path) as response:
            assert response.status == 200
            assert response.content_type == "application/json"
            return await response.json()


@pytest.fixture
async def port() -> AsyncIterator[Port]:
    bench = Bench()
    registry = CollectorRegistry()
    Gauge("spillway_test", "A gauge.", registry=registry).set(3)
    server = AdminServer(
        store=bench.store,
        state=lambda: bench.world.state,
        ready=lambda: found.missing,
        info=lambda: {"core": bench.core.info()},
        registry=registry,
    )
    number = await server.start("127.0.0.1", 0)
    async with aiohttp.ClientSession(f"http://127.0.0.1:{number}") as session:
        found = Port(bench, session)
        yield found
    await server.stop()


async def test_health_is_the_process_and_readiness_the_snapshot(port: Port):
    async with port.session.get("/healthz") as response:
        assert (response.status, await response.text()) == (200, "ok\n")
    async with port.session.get("/readyz") as response:
        assert response.status == 200
    port.missing = "no snapshot is out yet"
    async with port.session.get("/readyz") as response:
        assert (response.status, await response.text()) == (503, "no snapshot is out yet\n")


async def test_metrics_are_those_of_the_registry(port: Port):
    async with port.session.get("/metrics") as response:
        assert response.headers["Content-Type"].startswith("text/plain")
        assert "spillway_test 3.0" in await response.text()


async def test_objects_are_listed_with_their_status(port: Port):
    port.bench.put(backend("fast"), backend("other", namespace="ml"), route())
    port.bench.step()
    items = (await port.json("/api/v1/modelbackends"))["items"]
    assert [item["metadata"]["name"] for item in items] == ["fast", "other"]
    assert items[0]["status"]["conditions"][0]["type"] == "Accepted"
    items = (await port.json("/api/v1/modelbackends?namespace=ml"))["items"]
    assert [item["metadata"]["name"] for item in items] == ["other"]
    (item,) = (await port.json("/api/v1/modelroutes"))["items"]
    assert item["kind"] == "ModelRoute"


async def test_problems_have_file_line_path_message_and_object(port: Port):
    problem = Problem("a.yaml", 3, "spec.model", "missing", ObjectKey("ModelBackend", "default", "fast"))
    port.bench.store.set_problems("a.yaml", [problem])
    (item,) = (await port.json("/api/v1/problems"))["items"]
    assert {"file": "a.yaml", "line": 3, "path": "spec.model", "message": "missing"}.items() <= item.items()
    assert item["object"] == "ModelBackend default/fast"


async def test_the_config_is_the_snapshot_in_force(port: Port):
    port.bench.put(backend("fast"))
    port.bench.step()
    config = await port.json("/config")
    assert config["version"] == "7.1"
    assert [(resource["kind"], resource["name"]) for resource in config["resources"]] == [
        ("cluster", "default/fast"), ("endpoints", "default/fast"),
    ]  # fmt: skip
    assert set(config["hashes"]) == {"cluster/default/fast", "endpoints/default/fast"}


async def test_info_is_every_parts_info(port: Port):
    assert (await port.json("/info"))["core"]["snapshot"]["version"] == "7.0"


async def test_nothing_can_be_written(port: Port):
    async with port.session.post("/api/v1/modelroutes", json={}) as response:
        assert response.status == 405
    async with port.session.get("/nothing") as response:
        assert response.status == 404
