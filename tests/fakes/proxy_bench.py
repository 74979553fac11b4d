"""A proxy's listeners in this process, with their clock and sweeps in the test's hand, and a client that takes replies apart."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from spillway_sidecar.proxy.downstream import accept
from spillway_sidecar.proxy.inbound import InboundSite
from spillway_sidecar.proxy.route import RouteSite
from spillway_sidecar.proxy.swap import Swapper, request_heads
from spillway_sidecar.proxy.sweep import sweep_admission, sweep_cluster, sweep_connections
from spillway_sidecar.proxy.upstream import Target
from spillway_sidecar.scheduling.speed import ClusterSpeed
from spillway_sidecar.telemetry.decisions import DecisionRing
from spillway_wire.loads import Load
from spillway_wire.names import Provider
from spillway_wire.orca import encode_load
from spillway_wire.snapshot import (
    BackendRef,
    Cluster,
    Endpoint,
    Endpoints,
    FlowControl,
    Resource,
    ResourceKey,
    Retries,
    Route,
    Rule,
    Timeouts,
    key_of,
)

CHAT = b"/v1/chat/completions"
BODY = b'{"model":"m","messages":[]}'
STREAM_BODY = b'{"model":"m","stream":true,"messages":[]}'


def post(body: bytes = BODY, *extra: bytes, path: bytes = CHAT, version: bytes = b"1.1") -> bytes:
    """A good request; `extra` are header lines without their CRLF."""
    lines = [b"POST %b HTTP/%b" % (path, version), b"Host: proxy", b"Content-Type: application/json", *extra]
    lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


@dataclass
class Reply:
    """One reply as a strict client sees it. `whole`: it ended as its framing says."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes
    whole: bool
    interim: list[tuple[int, dict[bytes, bytes]]]
    raw_head: bytes

    def header(self, name: bytes) -> bytes | None:
        """The one value of a header."""
        values = [value for key, value in self.headers if key == name]
        assert len(values) <= 1, f"{name!r} came {len(values)} times"
        return values[0] if values else None


class Client:
    """One connection to a listener."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        """Writes."""
        self.writer.write(data)

    async def reply(self, seconds: float = 10.0) -> Reply:
        """The next reply, to its end."""
        async with asyncio.timeout(seconds):
            return await self._reply()

    async def head(self) -> bytes:
        """Bytes up to the next empty line; what there is when the connection ends before."""
        try:
            return await self.reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as error:
            return error.partial

    async def _reply(self) -> Reply:
        interim: list[tuple[int, dict[bytes, bytes]]] = []
        while True:
            head = await self.head()
            assert head.endswith(b"\r\n\r\n"), f"no whole head: {head!r}"
            line, *lines = head[:-4].split(b"\r\n")
            assert line.startswith(b"HTTP/1.1 "), line
            status = int(line.split(b" ", 2)[1])
            headers = [(name.lower(), value.strip()) for name, _, value in (text.partition(b":") for text in lines)]
            if status >= 200:
                break
            interim.append((status, dict(headers)))
        names = [name for name, _ in headers]
        lengths = [value for name, value in headers if name == b"content-length"]
        codings = [value for name, value in headers if name == b"transfer-encoding"]
        assert len(lengths) + len(codings) <= 1, names
        if status in {204, 304}:
            body, whole = b"", True
        elif lengths:
            body, whole = await self._exactly(int(lengths[0]))
        elif codings:
            assert codings == [b"chunked"]
            body, whole = await self._chunks()
        else:
            body, whole = await self._rest()
        return Reply(status, headers, body, whole, interim, head)

    async def _exactly(self, size: int) -> tuple[bytes, bool]:
        try:
            return await self.reader.readexactly(size), True
        except asyncio.IncompleteReadError as error:
            return error.partial, False
        except ConnectionError:
            return b"", False

    async def _chunks(self) -> tuple[bytes, bool]:
        body: list[bytes] = []
        try:
            while True:
                line = await self.reader.readuntil(b"\r\n")
                size = int(line[:-2].partition(b";")[0], 16)
                piece, whole = await self._exactly(size + 2)
                body.append(piece[:size])
                if not whole:
                    return b"".join(body), False
                assert piece.endswith(b"\r\n"), piece[-20:]
                if size == 0:
                    return b"".join(body), True
        except (asyncio.IncompleteReadError, ConnectionError):
            return b"".join(body), False

    async def _rest(self) -> tuple[bytes, bool]:
        data = b""
        try:
            while piece := await self.reader.read(1 << 16):
                data += piece
        except ConnectionError:
            return data, False
        return data, True

    async def ended(self, seconds: float = 5.0) -> bool:
        """Whether the proxy ends the connection, with nothing more on it."""
        async with asyncio.timeout(seconds):
            try:
                return await self.reader.read(1) == b""
            except ConnectionError:
                return True

    def leave(self) -> None:
        """Ends the connection."""
        self.writer.transport.abort()


PARSER_WORDS = (b"msgspec", b"Traceback", b"regex", b"$.", b"`", b"Errno", b"Object missing", b"byte 0", b"line 1")


def assert_error(got: Reply, status: int) -> dict[str, Any]:
    """An error in OpenAI's shape, of our own words."""
    assert got.status == status, got.body
    assert got.whole
    assert got.header(b"content-type") == b"application/json"
    assert got.header(b"x-spillway-reason")
    document = json.loads(got.body)
    assert list(document) == ["error"]
    error: dict[str, Any] = document["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert isinstance(error["message"], str)
    assert error["message"].endswith(".")
    assert isinstance(error["code"], str)
    if got.status < 500 and got.status not in {401, 403, 429}:
        assert error["type"] == "invalid_request_error"
    for word in PARSER_WORDS:
        assert word not in got.body, got.body
    return error


async def until(condition: Callable[[], Any], seconds: float = 5.0, what: str = "") -> None:
    """Waits until the condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, what or "the condition did not come to hold"
        await asyncio.sleep(0.001)


class Clock:
    """The loop's time, and what the test adds to it."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


@dataclass
class Bench:
    """Listeners and the connections to them; `async with` cleans up and checks that nothing is left over."""

    clock: Clock = field(default_factory=Clock)
    clients: list[Client] = field(default_factory=list)
    stops: list[Callable[[], Awaitable[None]]] = field(default_factory=list)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for client in self.clients:
            client.leave()
        for stop in reversed(self.stops):
            await stop()
        await asyncio.sleep(0)

    async def engine(self, script: Any) -> Any:
        """A started `RawEngine`."""
        from tests.fakes.raw_engine import RawEngine

        engine = await RawEngine(script).start()
        self.stops.append(engine.stop)
        return engine

    async def router(self, resources: Mapping[ResourceKey, Resource], **options: Any) -> Router:
        """A route listener with a configuration in force."""
        site = RouteSite(
            clock=self.clock, id_prefix="t-", decisions=DecisionRing(64), rng=random.Random(options.pop("seed", 7)), **options
        )
        swapper = Swapper(site, lambda _, ref: "the-key" if ref.key == "good" else None, lambda: None)  # type: ignore[arg-type,return-value]
        if resources:
            swapper.swap("1", resources)
        port = await self._listen(site)
        return Router(self, site, swapper, port)

    async def guard(self, engine_port: int, **options: Any) -> Inbound:
        """An inbound listener before an engine."""
        options.setdefault("connect_seconds", 30.0)  # a test machine may be busy; the limit has a test of its own
        state: dict[str, Any] = {"up": True, "failures": 0}
        target = Target("engine", "127.0.0.1", engine_port, False, ClusterSpeed())
        target.heads = request_heads("127.0.0.1", engine_port, tls=False, prefix="/v1")

        def load() -> bytes:
            limiter = site.limiter
            return encode_load(
                Load(
                    in_flight=limiter.in_flight,
                    queued=limiter.queued,
                    max_concurrency=limiter.max_concurrency,
                    engine_up=state["up"],
                    draining=site.draining,
                    waiting_tokens=site.waiting_tokens,
                    place_tokens=site.places.wait_tokens,
                )
            )

        def failed() -> None:
            state["failures"] += 1

        site = InboundSite(
            clock=self.clock,
            engine=target,
            load_header=load,
            engine_up=lambda: state["up"],
            engine_failed=failed,
            id_prefix="i-",
            **options,
        )
        return Inbound(self, site, await self._listen(site), state)

    async def _listen(self, site: Any) -> int:
        server = await asyncio.get_running_loop().create_server(lambda: accept(site), "127.0.0.1", 0, backlog=2048)

        async def stop() -> None:
            server.close()
            for client in tuple(site.connections):
                client.transport.abort()
            await until(lambda: not site.connections, what="connections are left")
            for cluster in getattr(site, "clusters", {}).values():
                for target in cluster.targets:
                    target.close_idle()
            if isinstance(site, InboundSite):
                site.engine.close_idle()

        self.stops.append(stop)
        return int(server.sockets[0].getsockname()[1])

    async def connect(self, port: int, limit: int = 1 << 25) -> Client:
        """A client's connection."""
        client = Client(*await asyncio.open_connection("127.0.0.1", port, limit=limit))
        self.clients.append(client)
        return client


@dataclass
class Router:
    """A route listener at work."""

    bench: Bench
    site: RouteSite
    swapper: Swapper
    port: int

    async def client(self) -> Client:
        """A connection to it."""
        return await self.bench.connect(self.port)

    async def ask(self, request: bytes | None = None) -> Reply:
        """One request on a connection of its own."""
        client = await self.client()
        client.send(post() if request is None else request)
        try:
            return await client.reply()
        finally:
            client.leave()

    def advance(self, seconds: float) -> None:
        """Moves the clock on and sweeps."""
        self.bench.clock.ahead += seconds
        self.sweep()

    def sweep(self) -> None:
        """What the timer does."""
        now = self.bench.clock()
        sweep_admission(self.site, now)
        sweep_connections(self.site.connections, now)
        self.site.conditions.sweep(now)
        self.site.waiting.sweep(now)
        for cluster in self.site.clusters.values():
            sweep_cluster(cluster, now)

    def idle(self) -> bool:
        """Whether nothing is under way and every count is back at zero."""
        info: Any = self.site.info()
        return (
            info["in_flight"] == 0
            and info["waiting"]["waiting"] == 0
            and all(t["in_flight"] == 0 and t["in_flight_tokens"] == 0 for targets in info["clusters"].values() for t in targets)
            and all(b["in_flight"] == 0 and b["retrying"] == 0 for b in info["retry_budgets"].values())
        )

    def target(self, index: int = 0, cluster: str = "default/a") -> Target:
        """One endpoint."""
        return self.site.clusters[cluster].targets[index]


@dataclass
class Inbound:
    """An inbound listener at work."""

    bench: Bench
    site: InboundSite
    port: int
    state: dict[str, Any]

    async def client(self) -> Client:
        """A connection to it."""
        return await self.bench.connect(self.port)

    def idle(self) -> bool:
        """Whether every count is back at zero."""
        info = self.site.limiter.info()
        return not (info["in_flight"] or info["queued"] or info["in_flight_tokens"] or info["queued_tokens"])

    def advance(self, seconds: float) -> None:
        """Moves the clock on and sweeps."""
        self.bench.clock.ahead += seconds
        sweep_connections(self.site.connections, self.bench.clock())


def config(
    *ports: int,
    inbound: bool = False,
    attempts: int = 2,
    budget: int = 100,
    hedge: int = 2,
    continues: bool = False,
    override: str | None = None,
    timeouts: Timeouts | None = None,
    flow: FlowControl | None = None,
    **cluster: Any,
) -> dict[ResourceKey, Resource]:
    """A route `m` to one backend with an endpoint at each port."""
    resources: list[Resource] = [
        Route(
            name="default/r",
            models=("m",),
            rules=(Rule(name="all", backends=(BackendRef("default/a", model_override=override),)),),
            timeouts=timeouts or Timeouts(),
            retries=Retries(max_attempts=attempts, budget_percent=budget, hedge_percent=hedge, continue_streams=continues),
            flow_control=flow or FlowControl(),
        ),
        Cluster(name="default/a", model="m", **{"provider": Provider.VLLM, **cluster}),
        Endpoints(
            name="default/a",
            endpoints=tuple(Endpoint(f"a-{i}", "127.0.0.1", port, inbound=inbound) for i, port in enumerate(ports)),
        ),
    ]
    return {key_of(resource): resource for resource in resources}


@contextlib.asynccontextmanager
async def routed(script: Any, **options: Any) -> AsyncIterator[tuple[Router, Any]]:
    """A router before one engine."""
    async with Bench() as bench:
        engine = await bench.engine(script)
        yield await bench.router(config(engine.port, **options)), engine
