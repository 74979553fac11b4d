"""The two real ends over real sockets: the discovery server and the discovery client on one loop."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from random import Random
from typing import Self

import aiohttp
import pytest
from aiohttp import web

from spillway_operator.discovery.auth import LoopbackAuthenticator
from spillway_operator.discovery.server import DiscoveryServer
from spillway_operator.discovery.session import Limits
from spillway_operator.snapshot.state import EncodedResource, SnapshotState, encode
from spillway_sidecar.config.client import Deadlines, DiscoveryClient
from spillway_sidecar.config.last_good import LastGoodStore
from spillway_sidecar.config.snapshot import Snapshot
from spillway_wire.loads import Load
from spillway_wire.messages import Hello, Node, Report
from spillway_wire.messages import encode as encode_message
from spillway_wire.names import DISCOVERY_PATH, Provider, Role
from spillway_wire.snapshot import BackendRef, Cluster, Endpoint, Endpoints, Resource, Route, Rule, key_of


class Core:
    """Takes what the carrier tells."""

    def __init__(self) -> None:
        self.reports: list[tuple[Node, Report]] = []
        self.changes = 0

    def on_report(self, node: Node, report: Report, received_at: float) -> None:
        self.reports.append((node, report))

    def on_node_change(self) -> None:
        self.changes += 1


def resources(*, cluster: str = "fast", endpoints: int = 2) -> list[Resource]:
    return [
        Route(name="default/chat", models=("m",), rules=(Rule(name="all", backends=(BackendRef(cluster=f"default/{cluster}"),)),)),
        Cluster(name="default/fast", provider=Provider.VLLM, model="m"),
        Endpoints(
            name="default/fast",
            endpoints=tuple(Endpoint(id=f"fast-{n}", host="127.0.0.1", port=20000 + n, inbound=True) for n in range(endpoints)),
        ),
    ]


def state(version: str, items: list[Resource], epoch: int = 1) -> SnapshotState:
    return SnapshotState(version=version, epoch=epoch, resources={key_of(item): encode(item, {}) for item in items})


def node(name: str = "gateway-0") -> Node:
    return Node(id=name, role=Role.GATEWAY, boot_id="boot-1")


async def until(condition: Callable[[], object], seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def serving(port: int = 0, **options: object) -> AsyncIterator[tuple[DiscoveryServer, Core, int]]:
    server = DiscoveryServer(authenticator=LoopbackAuthenticator(), clock=time.monotonic, rng=Random(1), **options)  # type: ignore[arg-type]
    core = Core()
    server.attach(core)
    port = await server.start("127.0.0.1", port)
    try:
        yield server, core, port
    finally:
        await server.stop()


class Eager(Random):
    """Reconnects at the short end of the jitter."""

    def uniform(self, a: float, b: float) -> float:
        return min(b, a + 0.02)


class Proxy:
    """A running client and what it has put in force."""

    def __init__(
        self, port: int, store: LastGoodStore | None = None, name: str = "gateway-0", deadlines: Deadlines | None = None
    ) -> None:
        self.applied: list[Snapshot] = []
        self.routers: list[int] = []
        self.client = DiscoveryClient(
            f"http://127.0.0.1:{port}",
            node(name),
            self.applied.append,
            self.routers.append,
            store,
            Eager(),
            time.monotonic,
            deadlines=deadlines,
        )

    async def __aenter__(self) -> Self:
        self.task = asyncio.create_task(self.client.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self.task.cancel()
        await asyncio.wait({self.task})

    @property
    def version(self) -> str | None:
        return self.client.snapshot.version if self.client.snapshot else None


async def test_changes_reach_the_proxy_and_reports_reach_the_core() -> None:
    """First contact is a full update, the next one carries the difference, and both sides agree on who is in step."""
    async with serving() as (server, core, port), Proxy(port) as proxy:
        server.publish(state("1.1", resources()))
        await until(lambda: proxy.version == "1.1")
        server.publish(state("1.2", resources(endpoints=3)))
        await until(lambda: proxy.version == "1.2")
        endpoints = proxy.client.snapshot.resources["endpoints", "default/fast"]  # type: ignore[union-attr]
        assert isinstance(endpoints, Endpoints)
        assert len(endpoints.endpoints) == 3
        await until(lambda: server.synced([("endpoints", "default/fast")]).synced == ("gateway-0",))
        assert server.info()["updates_full_total"] == 1
        assert server.info()["updates_total"] == 2
        proxy.client.send_report(Report(boot_id="", sequence=0, load=Load(in_flight=3)))
        await until(lambda: core.reports)
        sender, report = core.reports[0]
        assert (sender.id, report.boot_id, report.load) == ("gateway-0", "boot-1", Load(in_flight=3))
        assert core.changes > 0


async def test_changes_within_the_batch_are_one_update() -> None:
    """Ten publications in one turn cost one frame."""
    async with serving() as (server, _, port), Proxy(port) as proxy:
        server.publish(state("1.0", resources()))
        await until(lambda: proxy.version == "1.0")
        for number in range(1, 11):
            server.publish(state(f"1.{number}", resources(endpoints=2 + number)))
        await until(lambda: proxy.version == "1.10")
        assert [snapshot.version for snapshot in proxy.applied] == ["1.0", "1.10"]


async def test_an_inconsistent_snapshot_is_refused_with_path_and_reason_and_the_old_one_goes_on() -> None:
    """A route to a cluster that is not there: NACK, nothing put in force; the next good version is taken."""
    async with serving() as (server, _, port), Proxy(port) as proxy:
        server.publish(state("1.1", resources()))
        await until(lambda: proxy.version == "1.1")
        server.publish(state("1.2", resources(cluster="slow")))
        await until(lambda: server.nodes()[0].refusal)
        (refused,) = server.nodes()
        assert refused.refusal is not None
        assert refused.refusal.version == "1.2"
        assert refused.refusal.errors[0].path == "route/default/chat.rules[0].backends[0].cluster"
        assert refused.refusal.errors[0].reason == "DanglingReference"
        assert refused.acked_version == proxy.version == "1.1"
        assert server.synced([("route", "default/chat")]).lagging == ("gateway-0",)
        assert server.synced([("cluster", "default/fast")]).synced == ("gateway-0",)
        server.publish(state("1.3", resources(endpoints=3)))
        await until(lambda: proxy.version == "1.3")
        await until(lambda: server.nodes()[0].refusal is None)
        assert [snapshot.version for snapshot in proxy.applied] == ["1.1", "1.3"]


async def test_corrupted_bytes_are_refused_with_path_and_reason() -> None:
    """A resource whose bytes say something impossible is named; the snapshot in force stays."""
    async with serving() as (server, _, port), Proxy(port) as proxy:
        good = state("1.1", resources())
        server.publish(good)
        await until(lambda: proxy.version == "1.1")
        key = ("endpoints", "default/fast")
        broken = EncodedResource(
            key=key,
            resource=good.resources[key].resource,
            data=good.resources[key].data.replace(b"20001", b"99999"),
            hash="0" * 16,
        )
        server.publish(SnapshotState(version="1.2", epoch=1, resources={**good.resources, key: broken}))
        await until(lambda: server.nodes()[0].refusal)
        refusal = server.nodes()[0].refusal
        assert refusal is not None
        assert refusal.errors[0].path == "endpoints/default/fast.endpoints[1].port"
        assert refusal.errors[0].reason == "Undecodable"
        assert proxy.version == "1.1"


async def test_a_lost_stream_resumes_with_the_difference_only() -> None:
    """After a cut connection the hello names the version, and what comes is what changed since."""
    async with serving() as (server, _, port), Proxy(port) as proxy:
        server.publish(state("1.1", resources()))
        await until(lambda: proxy.version == "1.1")
        await proxy.client._socket.close()  # type: ignore[union-attr]
        await until(lambda: not server.nodes())
        server.publish(state("1.2", resources(endpoints=3)))
        await until(lambda: proxy.version == "1.2")
        assert server.info()["updates_full_total"] == 1
        assert len(proxy.applied) == 2


async def test_an_operator_that_restarts_is_found_again_and_sends_everything() -> None:
    """Another process with another epoch on the same port: reconnect within the jitter, full update, no gap in force."""
    async with serving() as (server, _, port):
        server.publish(state("1.1", resources()))
        async with Proxy(port) as proxy:
            await until(lambda: proxy.version == "1.1")
            await server.stop()
            await until(lambda: not proxy.client.connected)
            assert proxy.version == "1.1"
            async with serving(port) as (second, _, _):
                second.publish(state("2.1", resources(endpoints=3), epoch=2))
                await until(lambda: proxy.version == "2.1")
                assert second.info()["updates_full_total"] == 1
                # The first one, come back, is from an older epoch.
                second.publish(state("1.9", resources(endpoints=4), epoch=1))
                await until(lambda: second.nodes()[0].refusal)
                assert second.nodes()[0].refusal.errors[0].reason == "StaleEpoch"  # type: ignore[union-attr]
                assert proxy.version == "2.1"


async def test_a_fresh_operator_that_lacks_endpoints_is_not_believed_until_it_settles() -> None:
    """An operator that has not read the pods yet takes no pool away; when it still says so later, it is believed."""
    async with serving() as (server, _, port):
        server.publish(state("1.1", resources(endpoints=4)))
        async with Proxy(port) as proxy:
            await until(lambda: proxy.version == "1.1")
            await server.stop()
            async with serving(port, settle_seconds=0.5) as (second, _, _):
                second.publish(state("2.1", resources(endpoints=1), epoch=2))
                await until(lambda: second.nodes() and second.nodes()[0].refusal)
                assert second.nodes()[0].refusal.errors[0].reason == "EndpointsLost"  # type: ignore[union-attr]
                assert proxy.version == "1.1"
                await until(lambda: proxy.version == "2.1")


async def test_a_proxy_starts_from_its_last_good_snapshot_while_the_operator_is_away(tmp_path: Path) -> None:
    """What was in force is in force again within a second; a corrupt file is no start, and says why."""
    store = LastGoodStore(tmp_path / "last-good", lambda: 1_800_000_000.0)
    async with serving() as (server, _, port), Proxy(port, store) as proxy:
        server.publish(state("1.1", resources()))
        await until(lambda: proxy.version == "1.1")
    before = proxy.client.snapshot
    started = time.monotonic()
    async with Proxy(port, store) as again:
        await until(lambda: again.client.ready, 1.0)
        assert time.monotonic() - started < 1.0
        assert again.client.snapshot == before == again.applied[0]
        assert not again.client.connected
        async with serving(port) as (second, _, _):
            second.publish(state("2.1", resources(endpoints=3), epoch=2))
            await until(lambda: again.version == "2.1")
    content = bytearray(store.path.read_bytes())
    content[-20] ^= 1
    store.path.write_bytes(content)
    async with Proxy(port, store) as third:
        await until(lambda: third.client.info()["counts"].get("failures"))
        assert not third.client.ready
        assert third.client.info()["started_from"] == "Corrupt"


async def test_the_newer_connection_of_a_node_wins() -> None:
    """A second stream of the same node ends the first; routers are counted by node."""
    async with serving() as (server, _, port), aiohttp.ClientSession() as session:
        server.publish(state("1.1", resources()))
        url = f"http://127.0.0.1:{port}{DISCOVERY_PATH}"
        async with session.ws_connect(url) as first, session.ws_connect(url) as second:
            await first.send_bytes(b"")  # a binary frame is no message; this one dies alone
            assert (await first.receive()).type is aiohttp.WSMsgType.CLOSE
            await second.send_str(encode_message(Hello(node=node())).decode())
            assert json.loads((await second.receive()).data)["type"] == "update"
            async with session.ws_connect(url) as third:
                await third.send_str(encode_message(Hello(node=node())).decode())
                await third.receive()
                while (message := await second.receive()).type is aiohttp.WSMsgType.TEXT:
                    pass
                assert message.extra == "superseded by a newer connection of the same node"
                assert server.info()["routers"] == 1


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        ('{"type":"pong","id":1}', "hello expected"),
        ("{", "bad frame"),
        ('{"type":"hello","node":{"id":"","role":"gateway","boot_id":"b"}}', "bad frame"),
    ],
)
async def test_a_bad_first_frame_closes_the_stream_with_a_reason(frame: str, reason: str) -> None:
    """The peer reads why; the counters say so too."""
    async with serving() as (server, _, port), aiohttp.ClientSession() as session:
        async with session.ws_connect(f"http://127.0.0.1:{port}{DISCOVERY_PATH}") as socket:
            await socket.send_str(frame)
            message = await socket.receive()
            assert (message.type, message.extra) == (aiohttp.WSMsgType.CLOSE, reason)
        assert server.info()["closed_total"] == {reason.replace(" ", "_"): 1}


async def test_a_frame_beyond_the_limit_closes_the_stream() -> None:
    """256 KiB is the most that a proxy may say at once."""
    async with serving() as (server, _, port), aiohttp.ClientSession() as session:
        async with session.ws_connect(f"http://127.0.0.1:{port}{DISCOVERY_PATH}") as socket:
            await socket.send_str(" " * (256 * 1024 + 1))
            message = await socket.receive()
            assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, 1009)
        await until(lambda: server.info()["closed_total"] == {"bad_frame": 1})


async def test_connections_that_do_not_become_streams_are_dropped() -> None:
    """Neither silence before the request nor silence before the hello holds a slot beyond the deadline."""
    async with serving(limits=Limits(hello_seconds=0.2)) as (server, _, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /v1/discovery HTTP/1.1\r\n")
        async with asyncio.timeout(3):
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
        writer.close()
        assert server.info()["refused_total"]["not_a_stream"] == 1
        async with aiohttp.ClientSession() as session, session.ws_connect(f"http://127.0.0.1:{port}{DISCOVERY_PATH}") as socket:
            message = await socket.receive(timeout=3)
            assert message.extra == "hello timeout"


async def test_connections_are_bounded() -> None:
    """One more than the bound is told to come back later."""
    async with serving(max_connections=1) as (_, _, port), aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{port}{DISCOVERY_PATH}"
        async with session.ws_connect(url):
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await session.ws_connect(url)
            assert refused.value.status == 503


async def test_a_proxy_that_never_answers_is_closed_and_holds_up_nobody() -> None:
    """An update without an ACK within the deadline ends that stream; others go on."""
    async with (
        serving(limits=Limits(ack_seconds=0.3)) as (server, _, port),
        Proxy(port) as proxy,
        aiohttp.ClientSession() as session,
        session.ws_connect(f"http://127.0.0.1:{port}{DISCOVERY_PATH}") as silent,
    ):
        await silent.send_str(encode_message(Hello(node=node("silent"))).decode())
        await until(lambda: len(server.nodes()) == 2)
        server.publish(state("1.1", resources()))
        await until(lambda: proxy.version == "1.1")
        server.publish(state("1.2", resources(endpoints=3)))
        await until(lambda: proxy.version == "1.2")
        frames = 0
        while (message := await silent.receive(timeout=3)).type is aiohttp.WSMsgType.TEXT:
            frames += json.loads(message.data)["type"] == "update"
        assert frames == 1  # the second version waited for an answer to the first
        assert message.extra == "ack timeout"


async def test_draining_is_said_and_said_again_after_a_reconnect() -> None:
    """A draining proxy is no router; the stream stays up while it finishes."""
    async with serving() as (server, _, port), Proxy(port) as proxy, Proxy(port, name="gateway-1") as other:
        server.publish(state("1.1", resources()))
        await until(lambda: server.info()["routers"] == 2)
        await proxy.client.drain("SIGTERM")
        await until(lambda: server.info()["routers"] == 1)
        assert [sync.draining for sync in server.nodes()] == [True, False]
        await proxy.client._socket.close()  # type: ignore[union-attr]
        await until(lambda: proxy.client.info()["counts"]["connections"] == 2 and len(server.nodes()) == 2)
        await until(lambda: server.nodes()[0].draining)
        assert other.client.connected


async def test_pings_carry_the_router_count() -> None:
    """A proxy learns that another came without any change of the snapshot."""
    async with serving(limits=Limits(ping_seconds=0.2)) as (server, _, port), Proxy(port) as proxy:
        server.publish(state("1.1", resources()))
        await until(lambda: proxy.version == "1.1")
        async with Proxy(port, name="gateway-1"):
            await until(lambda: proxy.routers == [2])
        await until(lambda: proxy.routers == [2, 1])


async def test_a_silent_operator_is_given_up() -> None:
    """A connection that brings nothing within the silence deadline is closed and tried anew."""

    async def mute(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for _ in socket:
            pass
        return socket

    async with foreign_server(mute) as port, Proxy(port, deadlines=Deadlines(silence_seconds=0.1)) as proxy:
        await until(lambda: proxy.client.info()["counts"].get("connections", 0) >= 2)
        assert proxy.client.info()["last_error"].startswith("TimeoutError")


async def test_redirects_are_not_followed() -> None:
    """The operator's address is the only one that is asked."""
    asked: list[str] = []

    async def redirect(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.Response(status=302, headers={"Location": "/elsewhere"})

    async with foreign_server(redirect) as port, Proxy(port) as proxy:
        await until(lambda: "redirects" in proxy.client.info()["last_error"])
    assert set(asked) == {DISCOVERY_PATH}


@contextlib.asynccontextmanager
async def foreign_server(handler: Callable[[web.Request], object]) -> AsyncIterator[int]:
    app = web.Application()
    app.router.add_get("/{path:.*}", handler)  # type: ignore[arg-type]
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()
