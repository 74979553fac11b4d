"""The discovery port: `GET /v1/discovery` upgrades to a WebSocket; the hub does the rest.

aiohttp accepts, upgrades and parses frames (no compression: updates are shared bytes, and reports are small). Writing goes
to the socket's transport directly: the hub hands complete frames that all proxies share, and because a connection has at
most one update and one ping under way nothing has to wait for it to drain. A connection that has not become a stream within
the hello deadline is dropped, whatever it sends or does not send.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable, Iterable
from random import Random
from typing import Any, Final

from aiohttp import WSCloseCode, WSMsgType, web

from spillway_operator.discovery.auth import Authenticator, Identity, UnauthenticatedError
from spillway_operator.discovery.hub import Hub
from spillway_operator.discovery.session import CloseReason, Limits
from spillway_operator.discovery.updates import close_frame
from spillway_operator.snapshot.ports import NodeSync, StreamListener, Synced
from spillway_operator.snapshot.state import SnapshotState
from spillway_wire.messages import MAX_FRAME_FROM_PROXY_BYTES
from spillway_wire.names import DISCOVERY_PATH
from spillway_wire.snapshot import ResourceKey

TICK_SECONDS: Final = 0.25
LINGER_SECONDS: Final = 2.0  # for a close frame to leave; a peer that does not read is cut off then
IDENTIFY_SECONDS: Final = 5.0  # a token review may ask the API server

_CLOSE_CODES: Final = {
    CloseReason.SHUTDOWN: WSCloseCode.GOING_AWAY,
    CloseReason.BAD_FRAME: WSCloseCode.INVALID_TEXT,
    CloseReason.FLOOD: WSCloseCode.TRY_AGAIN_LATER,
}

_log = logging.getLogger(__name__)


class _Socket:
    """A hub's transport over one asyncio transport."""

    __slots__ = ("_transport",)

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport

    def send(self, wire: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(wire)

    def close(self, reason: CloseReason) -> None:
        self.send(close_frame(_CLOSE_CODES.get(reason, WSCloseCode.POLICY_VIOLATION), reason))
        self._transport.close()
        asyncio.get_running_loop().call_later(LINGER_SECONDS, self._transport.abort)


class DiscoveryServer:
    """Carries snapshots to proxies over WebSockets. `clock` is monotonic and the one that the core uses.

    `settle_seconds`: how long after the first publication a full update vouches for what it leaves out; a source that reads
    everything before it publishes needs none.
    """

    def __init__(
        self,
        *,
        authenticator: Authenticator,
        clock: Callable[[], float],
        rng: Random,
        limits: Limits | None = None,
        settle_seconds: float = 2.0,
        max_connections: int = 5000,
    ) -> None:
        self._authenticator = authenticator
        self._limits = limits or Limits()
        self._max_connections = max_connections
        self._hub = Hub(clock=clock, schedule=self._later, rng=rng, limits=self._limits, settle_seconds=settle_seconds)
        self._refused = {"full": 0, "unauthenticated": 0, "not_a_stream": 0}
        self._sockets = 0
        self._streams: set[web.RequestHandler] = set()
        self._runner: web.AppRunner | None = None
        self._server: asyncio.Server | None = None
        self._ticker: asyncio.Task[None] | None = None

    @staticmethod
    def _later(delay_seconds: float, callback: Callable[[], None]) -> object:
        return asyncio.get_running_loop().call_later(delay_seconds, callback)

    # The carrier's side, see `snapshot.ports`.

    def attach(self, listener: StreamListener) -> None:
        """Name the core; before `start`."""
        self._hub.attach(listener)

    def publish(self, state: SnapshotState) -> None:
        """`state` is current from here on."""
        self._hub.publish(state)

    def nodes(self) -> tuple[NodeSync, ...]:
        """Every connected proxy that has said hello."""
        return self._hub.nodes()

    def synced(self, keys: Iterable[ResourceKey]) -> Synced:
        """Who runs the current content of all `keys`."""
        return self._hub.synced(keys)

    # The socket's side.

    async def start(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> int:
        """Listens; returns the port (asked for with 0). Raises OSError when it is taken. May follow a `stop`."""
        app = web.Application()
        app.router.add_get(DISCOVERY_PATH, self._upgrade)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, keepalive_timeout=1.0, shutdown_timeout=1.0)
        await self._runner.setup()
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            self._accept,
            host,
            port,
            backlog=4096,
            reuse_address=True,
            ssl=tls,
            ssl_handshake_timeout=None if tls is None else self._limits.hello_seconds,
        )
        self._ticker = loop.create_task(self._tick(), name="discovery-tick")
        bound: int = self._server.sockets[0].getsockname()[1]
        return bound

    async def stop(self) -> None:
        """Tells every proxy and closes; they come back with jitter."""
        if self._ticker is not None:
            self._ticker.cancel()
            await asyncio.wait({self._ticker})
        if self._server is not None:
            self._server.close()
        self._hub.close_all()
        if self._runner is not None:
            await self._runner.cleanup()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            try:
                self._hub.tick()
            except Exception:  # noqa: BLE001 - whatever a tick meets, the next one must come
                _log.exception("discovery: tick failed")

    def _accept(self) -> asyncio.Protocol:
        if self._runner is None or self._runner.server is None:
            raise AssertionError("accepting before the start")
        handler: web.RequestHandler = self._runner.server()
        asyncio.get_running_loop().call_later(self._limits.hello_seconds, self._drop_unless_stream, handler)
        return handler

    def _drop_unless_stream(self, handler: web.RequestHandler) -> None:
        if handler not in self._streams and handler.transport is not None:
            self._refused["not_a_stream"] += 1
            handler.transport.abort()

    async def _upgrade(self, request: web.Request) -> web.StreamResponse:
        if self._sockets >= self._max_connections:
            self._refused["full"] += 1
            return web.Response(status=503, text="too many streams\n", headers={"Retry-After": "5"})
        self._sockets += 1
        try:
            return await self._stream(request)
        finally:
            self._sockets -= 1

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        try:
            async with asyncio.timeout(IDENTIFY_SECONDS):
                identity = await self._authenticator.identify(request.headers, request.remote or "")
        except (UnauthenticatedError, TimeoutError) as error:
            self._refused["unauthenticated"] += 1
            _log.info("discovery: refused %s: %s", request.remote, str(error) or "no answer about its token")
            return web.Response(status=401, text="unauthenticated\n")
        socket: web.WebSocketResponse[bool] = web.WebSocketResponse(
            compress=False, max_msg_size=MAX_FRAME_FROM_PROXY_BYTES, decode_text=False
        )
        await socket.prepare(request)
        transport = request.transport
        if transport is None:
            return socket
        self._streams.add(request.protocol)
        try:
            await self._receive(socket, transport, identity)
        finally:
            self._streams.discard(request.protocol)
        return socket

    async def _receive(self, socket: web.WebSocketResponse[bool], transport: asyncio.Transport, identity: Identity) -> None:
        hub = self._hub
        link = hub.open(_Socket(transport), identity)
        try:
            while link.open:
                message = await socket.receive()
                if message.type is WSMsgType.TEXT:
                    hub.frame(link, message.data)
                elif message.type is WSMsgType.BINARY:
                    hub.close(link, CloseReason.BAD_FRAME)
                else:  # closed by the peer, or a frame that breaks the protocol or is too large: aiohttp has answered it
                    if message.type is WSMsgType.ERROR:
                        hub.close(link, CloseReason.BAD_FRAME)
                    break
        finally:
            hub.closed(link)

    def info(self) -> dict[str, Any]:
        """The hub's, and connections that did not become streams."""
        return {**self._hub.info(), "sockets": self._sockets, "refused_total": dict(self._refused)}
