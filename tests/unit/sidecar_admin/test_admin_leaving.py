"""The pages by which a pod's hooks tell a proxy to drain and wait until it has."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from prometheus_client import CollectorRegistry

from spillway_sidecar import admin, leave
from spillway_sidecar.admin import AdminPages, AdminServer
from spillway_sidecar.drain import drained


class Site:
    def __init__(self) -> None:
        self.draining = False
        self.connections: set = set()


class Busy:
    busy = True


class Proxy:
    def __init__(self) -> None:
        self.site = Site()
        self.seconds = 60.0
        self.clock = asyncio.get_running_loop().time

    def pages(self) -> AdminPages:
        return AdminPages(
            ready=lambda: (not self.site.draining, "draining" if self.site.draining else "ready"),
            registry=CollectorRegistry(),
            config=lambda: None,
            info=dict,
            drain=self.leave,
            drained=lambda: drained((self.site,), self.seconds, self.clock),
        )

    def leave(self) -> None:
        self.site.draining = True


@pytest.fixture
async def proxy() -> Proxy:
    return Proxy()


@pytest.fixture
async def server(proxy: Proxy) -> AsyncIterator[AdminServer]:
    server = AdminServer(proxy.pages(), "127.0.0.1", 0)
    await server.start()
    yield server
    await server.stop()


async def ask(server: AdminServer, line: str) -> tuple[int, str]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(f"{line} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return int(head.split()[1]), body.decode()


async def test_draining_begins_on_request_from_this_machine(server: AdminServer, proxy: Proxy) -> None:
    assert await ask(server, "POST /drain") == (200, "draining\n")
    assert proxy.site.draining
    assert (await ask(server, "GET /readyz"))[0] == 503


async def test_nobody_else_may_ask_for_it(server: AdminServer, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever reaches a pod's address could else take the pod out."""
    monkeypatch.setattr(admin, "_LOOPBACK", admin.re.compile("10[.].*"))  # as if this machine were another one
    assert (await ask(server, "POST /drain"))[0] == 403
    assert not proxy.site.draining


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.9.0.1", "::1", "::ffff:127.0.0.1"])
def test_loopback_has_many_names(peer: str) -> None:
    assert admin._LOOPBACK.fullmatch(peer)


@pytest.mark.parametrize("peer", ["10.0.0.1", "::ffff:10.0.0.1", "fe80::1", "128.0.0.1", "::11", "1127.0.0.1"])
def test_other_machines_are_not_loopback(peer: str) -> None:
    assert not admin._LOOPBACK.fullmatch(peer)


async def test_reading_drain_does_nothing(server: AdminServer, proxy: Proxy) -> None:
    assert (await ask(server, "GET /drain"))[0] == 404
    assert not proxy.site.draining


async def test_a_hook_waits_until_nothing_is_under_way(server: AdminServer, proxy: Proxy) -> None:
    under_way = Busy()
    proxy.site.connections.add(under_way)
    waiting = asyncio.create_task(ask(server, "GET /drained"))
    await ask(server, "POST /drain")
    assert not waiting.done(), "a request is under way"
    proxy.site.connections.clear()
    assert await waiting == (200, "drained\n")


async def test_asking_whether_it_has_drained_does_not_make_it_drain(server: AdminServer, proxy: Proxy) -> None:
    proxy.seconds = 0.0
    assert (await ask(server, "GET /drained"))[0] == 503
    assert not proxy.site.draining


async def test_an_engine_that_is_down_is_not_waited_for() -> None:
    """The kubelet runs the engine's hook also before it restarts the engine; nobody drains then."""
    clock = asyncio.get_running_loop().time
    assert await drained((Site(),), 60.0, clock, engine_up=lambda: False)


async def test_few_may_wait_so_that_probes_are_answered(server: AdminServer, proxy: Proxy) -> None:
    waiting = [asyncio.create_task(ask(server, "GET /drained")) for _ in range(admin.MAX_WAITING)]
    async with asyncio.timeout(10):
        while server._waiting < admin.MAX_WAITING:  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0)
    assert await ask(server, "GET /drained") == (503, '{"error":"enough are waiting"}')
    assert (await ask(server, "GET /healthz"))[0] == 200
    proxy.leave()
    assert [status for status, _ in await asyncio.gather(*waiting)] == [200] * admin.MAX_WAITING
    assert server._waiting == 0


async def test_the_hook_of_the_pod_tells_the_proxy(server: AdminServer, proxy: Proxy) -> None:
    assert await asyncio.to_thread(leave.main, [], {"SPILLWAY_ADMIN_PORT": str(server.port)}) == 0
    assert proxy.site.draining


async def test_a_hook_that_finds_nobody_says_so_and_ends(server: AdminServer, capsys: pytest.CaptureFixture[str]) -> None:
    await server.stop()
    assert await asyncio.to_thread(leave.main, ["--admin-port", str(server.port)], {}) == 1
    assert "could not be told" in capsys.readouterr().err
