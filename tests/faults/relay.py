"""Stands in the configuration stream between proxies and operator, and spoils what passes.

`up` and `down` turn one frame into those that pass, with the seconds each is held back: `()` loses it, twice doubles it. With
`open` False nobody gets through, as when the operator's name does not resolve; `hang_up` ends every stream at once.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import aiohttp
from aiohttp import web

from spillway_wire.names import DISCOVERY_PATH

Passing = tuple[tuple[str, float], ...]  # frames, with the seconds that each is held back
Spoil = Callable[[str], Passing]
MAX_FRAME_BYTES = 64 * 1024 * 1024


def untouched(frame: str) -> Passing:
    """Passes as it came."""
    return ((frame, 0.0),)


class Relay:
    """Listens on `port`; `upstream` is the operator's discovery URL, which may change."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.upstream = ""
        self.up: Spoil = untouched
        self.down: Spoil = untouched
        self.open = True
        self.spoiled = 0
        self._runner: web.AppRunner | None = None
        self._session: aiohttp.ClientSession | None = None
        self._streams: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listens."""
        self._session = aiohttp.ClientSession()
        app = web.Application()
        app.router.add_get(DISCOVERY_PATH, self._serve)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()

    async def stop(self) -> None:
        """Ends all."""
        self.hang_up()
        if self._runner is not None:
            await self._runner.cleanup()
        if self._session is not None:
            await self._session.close()

    def hang_up(self) -> None:
        """Ends every stream."""
        for task in tuple(self._streams):
            task.cancel()

    def heal(self) -> None:
        """Everything passes."""
        self.up = self.down = untouched
        self.open = True

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        assert self._session is not None
        if not self.open:
            raise web.HTTPServiceUnavailable
        try:
            upstream = await self._session.ws_connect(self.upstream + DISCOVERY_PATH, max_msg_size=MAX_FRAME_BYTES)
        except (aiohttp.ClientError, OSError) as error:
            raise web.HTTPBadGateway from error
        proxy = web.WebSocketResponse(max_msg_size=MAX_FRAME_BYTES)
        async with upstream:
            try:
                await proxy.prepare(request)
            except ConnectionResetError:  # it has gone meanwhile
                return proxy
            ways = [
                asyncio.create_task(self._pass(proxy, upstream, up=True)),
                asyncio.create_task(self._pass(upstream, proxy, up=False)),
            ]
            self._streams.update(ways)
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                self._streams.difference_update(ways)
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
                with contextlib.suppress(Exception):
                    await proxy.close()
        return proxy

    async def _pass(
        self,
        source: web.WebSocketResponse | aiohttp.ClientWebSocketResponse,
        sink: web.WebSocketResponse | aiohttp.ClientWebSocketResponse,
        *,
        up: bool,
    ) -> None:
        with contextlib.suppress(ConnectionError, aiohttp.ClientError):
            async for frame in source:
                if frame.type is not aiohttp.WSMsgType.TEXT:
                    break
                passing = (self.up if up else self.down)(frame.data)
                self.spoiled += passing != ((frame.data, 0.0),)
                for text, seconds in passing:
                    if seconds:
                        asyncio.get_running_loop().call_later(seconds, self._later, sink, text)
                    else:
                        await sink.send_str(text)

    def _later(self, sink: web.WebSocketResponse | aiohttp.ClientWebSocketResponse, text: str) -> None:
        async def send() -> None:
            with contextlib.suppress(ConnectionError, aiohttp.ClientError, RuntimeError):
                await sink.send_str(text)

        task = asyncio.create_task(send())
        self._streams.add(task)
        task.add_done_callback(self._streams.discard)
