"""The real operator process: files in, updates out over real WebSockets, statuses on the admin port."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from spillway_wire.loads import BackendTraffic, ClusterProblem, Load
from spillway_wire.messages import (
    Ack,
    Bye,
    Fault,
    FromProxy,
    Hello,
    Nack,
    Node,
    Ping,
    Pong,
    Report,
    Update,
    decode_from_operator,
    encode,
)
from spillway_wire.names import DISCOVERY_PATH, Role
from spillway_wire.snapshot import Endpoints, Resource, Route, Weights, decode_resource, key_of

DEADLINE_SECONDS = 20.0

BACKEND = """\
apiVersion: spillway.dev/v1alpha1
kind: ModelBackend
metadata: {name: %s}
spec:
  provider: VLLM
  model: models/%s
  pods: {selector: {matchLabels: {app: x}}, port: 8000}
"""
ROUTE = """\
apiVersion: spillway.dev/v1alpha1
kind: ModelRoute
metadata: {name: chat}
spec:
  models: [chat]
  rules:
  - name: all
    backendRefs:
    - {name: fast, weight: %s}
    - {name: slow, weight: %s}
"""


class Operator:
    """One process, and what it says on its admin port."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.resources = folder / "resources"
        self.endpoints_file = folder / "endpoints.json"
        self.resources.mkdir(exist_ok=True)
        self.process: asyncio.subprocess.Process | None = None
        self.log: list[str] = []
        self.admin = ""
        self.discovery = ""
        self._drain: asyncio.Task[None] | None = None

    def write(self, name: str, text: str) -> None:
        """As the careful write: beside, then in place."""
        beside = self.resources / f".{name}"
        beside.write_text(text)
        beside.rename(self.resources / name)

    def write_endpoints(self, **endpoints: list[str]) -> None:
        listed = {
            f"default/{name}": [
                {"id": each, "host": "127.0.0.1", "port": 20000 + index, "inbound": True} for index, each in enumerate(ids)
            ]
            for name, ids in endpoints.items()
        }
        beside = self.endpoints_file.with_suffix(".tmp")
        beside.write_text(json.dumps({"endpoints": listed}))
        beside.rename(self.endpoints_file)

    async def start(self, *extra: str) -> None:
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "spillway_operator", "--source", "files", "--path", str(self.resources),
            "--endpoints-file", str(self.endpoints_file), "--admin-port", "0", "--discovery-port", "0", *extra,
            stderr=asyncio.subprocess.PIPE, env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
        assert self.process.stderr is not None
        async with asyncio.timeout(DEADLINE_SECONDS):
            while True:
                line = (await self.process.stderr.readline()).decode()
                assert line, f"the operator ended: {self.log}"
                self.log.append(line)
                ready = re.search(r"admin on (http://\S+), discovery on port (\d+)", line)
                if ready:
                    self.admin, self.discovery = ready[1], f"http://127.0.0.1:{ready[2]}"
                    break
        self._drain = asyncio.create_task(self._read(self.process.stderr))

    async def _read(self, stream: asyncio.StreamReader) -> None:
        while line := await stream.readline():
            self.log.append(line.decode())

    async def stop(self, number: int = signal.SIGTERM) -> int:
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)
        async with asyncio.timeout(DEADLINE_SECONDS):
            code = await self.process.wait()
            if self._drain is not None:
                await self._drain
        return code

    async def get(self, path: str) -> Any:
        async with aiohttp.ClientSession() as session, session.get(self.admin + path) as response:
            assert response.status == 200, path
            return await response.json() if response.content_type == "application/json" else await response.text()

    async def status(self, kind: str, name: str) -> dict[str, Any]:
        items = (await self.get(f"/api/v1/{kind}"))["items"]
        return next((item.get("status", {}) for item in items if item["metadata"]["name"] == name), {})

    async def condition(self, kind: str, name: str, condition: str) -> tuple[str, str, str]:
        for each in (await self.status(kind, name)).get("conditions", ()):
            if each["type"] == condition:
                return each["status"], each["reason"], each["message"]
        return "", "", ""


async def until(what: Callable[[], Any]) -> None:
    """Wait for an async condition, with a deadline."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not await what():  # noqa: ASYNC110 - another process has no event for us
            await asyncio.sleep(0.02)


class Proxy:
    """The smallest proxy: takes updates, acknowledges them unless told to refuse, reports."""

    def __init__(self, session: aiohttp.ClientSession, name: str, role: Role, boot: str = "b1") -> None:
        self.session = session
        self.node = Node(id=name, role=role, boot_id=boot)
        self.socket: aiohttp.ClientWebSocketResponse | None = None
        self.resources: dict[tuple[str, str], Resource] = {}
        self.updates: list[Update] = []
        self.refuse: Fault | None = None
        self.version: str | None = None
        self.ended = asyncio.Event()
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._sequence = 0

    async def connect(self, url: str) -> None:
        self.ended.clear()
        self.socket = await self.session.ws_connect(url + DISCOVERY_PATH)
        await self.send(Hello(node=self.node, resume_version=self.version))
        self._task = asyncio.create_task(self._run(self.socket))

    async def send(self, message: FromProxy) -> None:
        assert self.socket is not None
        await self.socket.send_str(encode(message).decode())

    async def report(self, load: Load | None = None, **fields: Any) -> None:
        self._sequence += 1
        await self.send(Report(boot_id=self.node.boot_id, sequence=self._sequence, load=load, **fields))

    async def _run(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        async for frame in socket:
            message = decode_from_operator(frame.data)
            if isinstance(message, Ping):
                await self.send(Pong(id=message.id))
                continue
            self.updates.append(message)
            if self.refuse is not None:
                await self.send(Nack(version=self.version, nonce=message.nonce, errors=(self.refuse,)))
            else:
                self._apply(message)
                await self.send(Ack(version=message.version, nonce=message.nonce))
            self._changed.set()
        self.ended.set()
        self._changed.set()

    def _apply(self, update: Update) -> None:
        if update.full:
            self.resources.clear()
        for raw in update.resources:
            resource = decode_resource(raw)
            self.resources[key_of(resource)] = resource
        for gone in update.removed:
            self.resources.pop((gone.kind, gone.name), None)
        self.version = update.version

    async def until(self, holds: Callable[[Proxy], Any]) -> None:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not holds(self):
                self._changed.clear()
                await self._changed.wait()

    def weights(self) -> list[int]:
        route = self.resources.get(("route", "default/chat"))
        return [ref.weight for ref in route.rules[0].backends] if isinstance(route, Route) else []

    def ids(self, cluster: str) -> list[str]:
        found = self.resources.get(("endpoints", f"default/{cluster}"))
        return [each.id for each in found.endpoints] if isinstance(found, Endpoints) else []

    async def close(self) -> None:
        if self.socket is not None:
            await self.socket.close()
        if self._task is not None:
            await self._task


@pytest.fixture
async def operator(tmp_path: Path) -> AsyncIterator[Operator]:
    made = Operator(tmp_path)
    made.write("backends.yaml", BACKEND % ("fast", "fast") + "---\n" + BACKEND % ("slow", "slow"))
    made.write("route.yaml", ROUTE % (90, 10))
    made.write_endpoints(fast=["fast-0"], slow=["slow-0"])
    try:
        await made.start()
        yield made
    finally:
        if made.process is not None and made.process.returncode is None:
            await made.stop(signal.SIGKILL)


@pytest.fixture
async def connect(operator: Operator) -> AsyncIterator[Callable[..., Any]]:
    proxies: list[Proxy] = []
    async with aiohttp.ClientSession() as session:

        async def make(name: str, role: Role = Role.SIDECAR, boot: str = "b1") -> Proxy:
            proxy = Proxy(session, name, role, boot)
            proxies.append(proxy)
            await proxy.connect(operator.discovery)
            return proxy

        yield make
        for proxy in proxies:
            await proxy.close()


async def test_from_files_to_proxies_to_status(operator: Operator, connect: Callable[..., Any]):
    gateway = await connect("gateway-0", Role.GATEWAY)
    await gateway.until(lambda proxy: proxy.weights() == [90, 10])
    assert gateway.updates[0].full
    assert gateway.ids("fast") == ["fast-0"]
    sidecar = await connect("fast-0")
    await sidecar.until(lambda proxy: proxy.weights() == [90, 10])
    await sidecar.report(Load(in_flight=3, max_concurrency=10, engine_running=3, tokens_per_second=120.0))
    traffic = BackendTraffic(route="default/chat", rule="all", cluster="default/fast", requests=20, errors=1)
    await gateway.report(traffic=(traffic,))

    async def shown() -> bool:
        route, fast = await operator.status("modelroutes", "chat"), await operator.status("modelbackends", "fast")
        return (
            route["summary"]["synced"] == "2/2"
            and route["summary"]["backends"] == "1/2"
            and route["traffic"].get("errorPercent") == "5.0"
            and fast["summary"]["endpoints"] == "1/1"
            and fast["load"].get("tokensPerSecond") == 120
        )

    await until(shown)
    assert (await operator.condition("modelroutes", "chat", "Programmed"))[0] == "True"
    assert (await operator.condition("modelroutes", "chat", "Ready"))[0] == "True"
    config = await operator.get("/config")
    assert config["version"] == gateway.version
    metrics = await operator.get("/metrics")
    assert 'spillway_operator_proxies{role="sidecar"} 1.0' in metrics
    assert 'spillway_operator_stream_messages_total{kind="acked"}' in metrics


async def test_edits_reach_every_proxy_as_changes_only(operator: Operator, connect: Callable[..., Any]):
    proxies = [await connect("gateway-0", Role.GATEWAY), await connect("fast-0")]
    for proxy in proxies:
        await proxy.until(lambda each: each.weights() == [90, 10])
    operator.write("route.yaml", ROUTE % (10, 90))
    for proxy in proxies:
        await proxy.until(lambda each: each.weights() == [10, 90])
        assert not proxy.updates[-1].full
        assert len(proxy.updates[-1].resources) == 1
    operator.write("more.yaml", BACKEND % ("more", "more"))
    for proxy in proxies:
        await proxy.until(lambda each: ("cluster", "default/more") in each.resources)
    (operator.resources / "more.yaml").unlink()
    for proxy in proxies:
        await proxy.until(lambda each: ("cluster", "default/more") not in each.resources)
    (operator.resources / "route.yaml").rename(operator.resources / "renamed.yaml")
    operator.write("last.yaml", BACKEND % ("last", "last"))
    for proxy in proxies:
        await proxy.until(lambda each: ("cluster", "default/last") in each.resources)
        assert proxy.weights() == [10, 90]


async def test_endpoints_that_go_are_listed_as_removed_on_purpose(operator: Operator, connect: Callable[..., Any]):
    operator.write_endpoints(fast=["fast-0", "fast-1", "fast-2"], slow=["slow-0"])
    gateway = await connect("gateway-0", Role.GATEWAY)
    await gateway.until(lambda proxy: len(proxy.ids("fast")) == 3)
    operator.write_endpoints(fast=["fast-0"], slow=["slow-0"])
    await gateway.until(lambda proxy: proxy.ids("fast") == ["fast-0"])
    (removal,) = gateway.updates[-1].removed_endpoints
    assert (removal.cluster, removal.ids) == ("default/fast", ("fast-1", "fast-2"))


async def test_a_typo_changes_nothing_else_and_is_named_by_file_line_and_path(operator: Operator, connect: Callable[..., Any]):
    gateway = await connect("gateway-0", Role.GATEWAY)
    await gateway.until(lambda proxy: proxy.weights() == [90, 10])
    operator.write("route.yaml", ROUTE % ('"ten"', 10))

    async def told() -> bool:
        return bool((await operator.get("/api/v1/problems"))["items"])

    await until(told)
    (problem,) = (await operator.get("/api/v1/problems"))["items"]
    assert problem["file"].endswith("route.yaml")
    assert (problem["line"], problem["path"]) == (9, "spec.rules[0].backendRefs[0].weight")

    async def judged() -> bool:
        return (await operator.condition("modelroutes", "chat", "Accepted"))[:2] == ("False", "Invalid")

    await until(judged)
    # A good document beside it goes through, and the route is what it was.
    operator.write("more.yaml", BACKEND % ("more", "more"))
    await gateway.until(lambda proxy: ("cluster", "default/more") in proxy.resources)
    assert gateway.weights() == [90, 10]
    operator.write("route.yaml", ROUTE % (20, 80))
    await gateway.until(lambda proxy: proxy.weights() == [20, 80])


async def test_a_refusal_shows_in_the_condition_until_it_is_overcome(operator: Operator, connect: Callable[..., Any]):
    gateway = await connect("gateway-0", Role.GATEWAY)
    await gateway.until(lambda proxy: proxy.weights() == [90, 10])
    gateway.refuse = Fault(path="route/default/chat.rules[0]", reason="Rejected", message="for the test")
    operator.write("route.yaml", ROUTE % (10, 90))

    async def refused() -> bool:
        return (await operator.condition("modelroutes", "chat", "Programmed"))[1] == "Rejected"

    await until(refused)
    message = (await operator.condition("modelroutes", "chat", "Programmed"))[2]
    assert message == "Refused by gateway-0: route/default/chat.rules[0]: Rejected: for the test"
    gateway.refuse = None
    operator.write("route.yaml", ROUTE % (50, 50))

    async def programmed() -> bool:
        return (await operator.condition("modelroutes", "chat", "Programmed"))[0] == "True"

    await until(programmed)


async def test_pressure_becomes_weights(operator: Operator, connect: Callable[..., Any]):
    fast, slow = await connect("fast-0"), await connect("slow-0")

    def shifted(proxy: Proxy) -> bool:
        found = proxy.resources.get(("weights", "default/chat"))
        return isinstance(found, Weights) and found.rules[0].weights["default/fast"] < 45

    async def press() -> None:
        while True:
            await fast.report(Load(in_flight=10, queued=10, max_concurrency=10))
            await slow.report(Load(in_flight=1, max_concurrency=10))
            await asyncio.sleep(0.2)

    pressing = asyncio.create_task(press())
    await slow.until(shifted)
    pressing.cancel()
    status = await operator.status("modelbackends", "fast")
    assert status["load"]["queueDepth"] == 10


async def test_a_proxys_problem_shows_on_its_backend(operator: Operator, connect: Callable[..., Any]):
    gateway = await connect("gateway-0", Role.GATEWAY)
    await gateway.report(problems=(ClusterProblem(cluster="default/fast", reason="SecretMissing", message="no key"),))

    async def shown() -> bool:
        return (await operator.condition("modelbackends", "fast", "Ready"))[1] == "SecretMissing"

    await until(shown)


async def test_a_proxy_that_leaves_is_gone_from_the_count(operator: Operator, connect: Callable[..., Any]):
    gateway, sidecar = await connect("gateway-0", Role.GATEWAY), await connect("fast-0")
    await sidecar.report(Load(max_concurrency=10))

    async def counted(synced: str, endpoints: str) -> bool:
        route, fast = await operator.status("modelroutes", "chat"), await operator.status("modelbackends", "fast")
        return (route["summary"]["synced"], fast["summary"]["endpoints"]) == (synced, endpoints)

    await until(lambda: counted("2/2", "1/1"))
    await sidecar.send(Bye(reason="SIGTERM"))
    await until(lambda: counted("2/2", "0/1"))
    await gateway.until(lambda proxy: proxy.resources["endpoints", "default/fast"].endpoints[0].draining)
    await sidecar.close()
    await until(lambda: counted("1/1", "0/1"))


async def test_a_restart_raises_the_epoch_and_sends_everything_anew(operator: Operator, connect: Callable[..., Any]):
    gateway = await connect("gateway-0", Role.GATEWAY)
    await gateway.until(lambda proxy: proxy.weights() == [90, 10])
    before = gateway.updates[-1]
    assert await operator.stop() == 0
    async with asyncio.timeout(DEADLINE_SECONDS):
        await gateway.ended.wait()
    assert gateway.socket is not None
    assert gateway.socket.close_code == aiohttp.WSCloseCode.GOING_AWAY
    assert any("stopping" in line for line in operator.log)
    await operator.start()
    await gateway.connect(operator.discovery)
    await gateway.until(lambda proxy: proxy.updates[-1].epoch > before.epoch)
    after = gateway.updates[-1]
    assert after.full
    assert after.settled
    assert after.version != before.version


async def test_a_port_that_is_taken_ends_the_process_with_a_message(operator: Operator, tmp_path: Path):
    taken = operator.discovery.rpartition(":")[2]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "spillway_operator", "--path", str(operator.resources), "--admin-port", "0",
        "--discovery-port", taken, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(DEADLINE_SECONDS):
        _, text = await process.communicate()
    assert process.returncode == 1
    assert b"cannot listen" in text
    assert b"Traceback" not in text
