"""The admin listener's pages, and what it does with clients that are slow, wrong or many."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping

import pytest
from prometheus_client import CollectorRegistry, Counter

from spillway_sidecar import admin
from spillway_sidecar.admin import AdminPages, AdminServer

CUT = (ConnectionResetError, asyncio.IncompleteReadError)


class Parts:
    def __init__(self) -> None:
        self.ready = (True, "ready")
        self.config: object = {"version": "1.7", "resources": []}
        self.registry = CollectorRegistry()
        Counter("spillway_requests", "Requests.", registry=self.registry).inc(3)

    def info(self) -> Mapping[str, object]:
        return {"uptime_seconds": 4.5}

    def explain(self, request_id: str) -> object:
        if request_id == "boom":
            raise RuntimeError("secret detail")
        return {"id": request_id} if request_id in {"req-1", "a b"} else None

    def pages(self) -> AdminPages:
        return AdminPages(
            lambda: self.ready, self.registry, lambda: self.config, self.info, self.explain, lambda: ({"id": n} for n in range(2))
        )


@pytest.fixture
def parts() -> Parts:
    return Parts()


@pytest.fixture
async def server(parts: Parts) -> AsyncIterator[AdminServer]:
    server = AdminServer(parts.pages(), "127.0.0.1", 0)
    await server.start()
    yield server
    await server.stop()
    assert server.info()["open"] == 0


@contextlib.asynccontextmanager
async def connected(server: AdminServer) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def until(server: AdminServer, **expected: int) -> None:
    async with asyncio.timeout(10):
        while not server.info().items() >= expected.items():  # noqa: ASYNC110 - the server has no event for its counters
            await asyncio.sleep(0)


async def exchange(server: AdminServer, request: bytes) -> tuple[int, dict[str, str], bytes]:
    async with connected(server) as (reader, writer):
        writer.write(request)
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    status, *headers = head.decode().split("\r\n")
    named = dict(line.split(": ", 1) for line in headers)
    assert int(named["content-length"]) == len(body)
    return int(status.split()[1]), named, body


async def get(server: AdminServer, target: str) -> tuple[int, dict[str, str], bytes]:
    return await exchange(server, f"GET {target} HTTP/1.1\r\nhost: x\r\n\r\n".encode())


async def test_health_is_ok_and_readiness_says_why_not(server: AdminServer, parts: Parts) -> None:
    assert (await get(server, "/healthz"))[::2] == (200, b"ok\n")
    assert (await get(server, "/readyz"))[::2] == (200, b"ready\n")
    parts.ready = (False, "no snapshot yet")
    assert (await get(server, "/readyz?verbose"))[::2] == (503, b"no snapshot yet\n")


async def test_metrics_are_prometheus_text(server: AdminServer) -> None:
    status, headers, body = await get(server, "/metrics")
    assert status == 200
    assert headers["content-type"].startswith("text/plain; version=0.0.4")
    assert b"spillway_requests_total 3.0\n" in body


async def test_json_pages(server: AdminServer, parts: Parts) -> None:
    for target, expected in [
        ("/config", {"version": "1.7", "resources": []}),
        ("/info", {"uptime_seconds": 4.5}),
        ("/explain/req-1", {"id": "req-1"}),
        ("/explain/a%20b", {"id": "a b"}),
    ]:
        status, headers, body = await get(server, target)
        assert (status, headers["content-type"], json.loads(body)) == (200, "application/json", expected)
    parts.config = b'{"version":"raw"}'
    assert (await get(server, "/config"))[2] == b'{"version":"raw"}'


async def test_decisions_are_given_one_a_line(server: AdminServer) -> None:
    status, headers, body = await get(server, "/decisions")
    assert (status, headers["content-type"], body) == (200, "application/x-ndjson", b'{"id":0}\n{"id":1}\n')


async def test_what_is_absent_is_a_404_in_json(server: AdminServer, parts: Parts) -> None:
    parts.config = None
    for target in ("/config", "/explain/unknown", "/explain/", "/explain", "/", "/metrics/", "/a/b/c"):
        status, headers, body = await get(server, target)
        assert (status, headers["content-type"]) == (404, "application/json")
        assert json.loads(body)["error"]


async def test_a_page_that_fails_is_logged_and_tells_the_client_nothing(
    server: AdminServer, caplog: pytest.LogCaptureFixture
) -> None:
    status, _, body = await get(server, "/explain/boom")
    assert status == 500
    assert b"secret detail" not in body
    assert "path=/explain/boom" in caplog.text


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"POST /healthz HTTP/1.1\r\n\r\n", 405),
        (b"HEAD /healthz HTTP/1.1\r\n\r\n", 405),
        (b"get /healthz HTTP/1.1\r\n\r\n", 400),
        (b"GET /healthz HTTP/2.0\r\n\r\n", 400),
        (b"GET /healthz\r\n\r\n", 400),
        (b"GET http://x/healthz HTTP/1.1\r\n\r\n", 400),
        (b"GET /a b HTTP/1.1\r\n\r\n", 400),
        (b"GET /\xc3\xa9 HTTP/1.1\r\n\r\n", 400),
        (b"\x16\x03\x01\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.0\r\n\r\n", 200),
        (b"GET /healthz HTTP/1.1\r\nx: " + b"y" * admin.MAX_HEAD_BYTES + b"\r\n\r\n", 431),
    ],
)
async def test_only_a_plain_get_is_answered(server: AdminServer, request_bytes: bytes, status: int) -> None:
    assert (await exchange(server, request_bytes))[0] == status


@contextlib.asynccontextmanager
async def impatient(parts: Parts) -> AsyncIterator[AdminServer]:
    server = AdminServer(parts.pages(), "127.0.0.1", 0, deadline_seconds=0.05)
    await server.start()
    yield server
    await server.stop()


async def test_a_client_that_never_finishes_its_head_is_cut_off(parts: Parts) -> None:
    async with impatient(parts) as server, connected(server) as (reader, writer):
        writer.write(b"GET /healthz HTT")
        with pytest.raises(CUT):
            await reader.readexactly(1)
        assert server.info()["served"] == 0


async def test_a_client_that_never_reads_its_answer_is_cut_off(parts: Parts) -> None:
    parts.config = b'"' + b"x" * 32 * 1024 * 1024 + b'"'
    async with impatient(parts) as server, connected(server) as (reader, writer):
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(b"GET /config HTTP/1.1\r\n\r\n")
        await until(server, open=0, served=1)
        writer.transport.resume_reading()  # type: ignore[attr-defined]
        with pytest.raises(CUT):
            await reader.readexactly(32 * 1024 * 1024)


async def test_a_client_that_leaves_is_no_failure(server: AdminServer, caplog: pytest.LogCaptureFixture) -> None:
    async with connected(server) as (_, writer):
        writer.write(b"GET /hea")
    assert (await get(server, "/healthz"))[0] == 200
    assert not caplog.records


async def test_connections_are_counted_and_too_many_refused(server: AdminServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin, "MAX_CONNECTIONS", 1)
    async with connected(server):
        await until(server, open=1)
        async with connected(server) as (reader, _):
            with pytest.raises(CUT):
                await reader.readexactly(1)
        assert server.info()["refused"] == 1


async def test_stopping_cuts_open_connections_and_may_be_repeated(parts: Parts) -> None:
    server = AdminServer(parts.pages(), "127.0.0.1", 0)
    await server.stop()
    await server.start()
    async with connected(server) as (reader, _):
        await until(server, open=1)
        await server.stop()
        with pytest.raises(CUT):
            await reader.readexactly(1)
    assert server.info()["open"] == 0
    await server.stop()
