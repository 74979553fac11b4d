"""Pretend proxies on real streams: they take every update, answer as they should, and keep the time of each."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp

from spillway_wire.loads import Load
from spillway_wire.messages import Ack, Hello, Node, Ping, Pong, Report, Update, decode_from_operator, encode
from spillway_wire.names import DISCOVERY_PATH, Role
from spillway_wire.snapshot import decode_resource, key_of


@dataclass(slots=True)
class PretendProxy:
    """One stream."""

    name: str
    namespace: str = ""
    updates: int = 0
    seen: dict[tuple[str, str], tuple[float, int]] = field(default_factory=dict)  # when, and the route's generation
    decode: bool = True

    async def run(self, session: aiohttp.ClientSession, url: str, report_seconds: float | None) -> None:
        """For ever: a leader that could not renew its term in time closes its streams."""
        while True:
            with contextlib.suppress(aiohttp.ClientError):
                await self._stream(session, url, report_seconds)
            await asyncio.sleep(0.5)

    async def _stream(self, session: aiohttp.ClientSession, url: str, report_seconds: float | None) -> None:
        node = Node(id=self.name, role=Role.SIDECAR, boot_id="b", namespace=self.namespace, pod=self.name)
        async with session.ws_connect(url + DISCOVERY_PATH, max_msg_size=2**26, compress=0) as socket:
            await socket.send_str(encode(Hello(node=node)).decode())
            reporter = asyncio.create_task(self._report(socket, report_seconds)) if report_seconds else None
            try:
                async for message in socket:
                    told = decode_from_operator(message.data)
                    if isinstance(told, Ping):
                        await socket.send_str(encode(Pong(id=told.id)).decode())
                    elif isinstance(told, Update):
                        self._take(told)
                        await socket.send_str(encode(Ack(version=told.version, nonce=told.nonce)).decode())
            finally:
                if reporter is not None:
                    reporter.cancel()

    def _take(self, update: Update) -> None:
        now = time.monotonic()
        self.updates += 1
        for raw in update.resources if self.decode else ():
            resource = decode_resource(raw)
            self.seen[key_of(resource)] = (now, getattr(resource, "generation", 0))

    @staticmethod
    async def _report(socket: "aiohttp.ClientWebSocketResponse[bool]", seconds: float) -> None:
        sequence = 0
        while True:
            await asyncio.sleep(seconds)
            sequence += 1
            await socket.send_str(encode(Report(boot_id="b", sequence=sequence, load=Load(max_concurrency=256))).decode())


@asynccontextmanager
async def pretend(
    url: str, names: list[str], *, namespace: str = "", report_seconds: float | None = None, decode: bool = True
) -> AsyncIterator[list[PretendProxy]]:
    """These proxies, connected until the end of the block."""
    made = [PretendProxy(name, namespace, decode=decode) for name in names]
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        tasks = [asyncio.create_task(each.run(session, url, report_seconds)) for each in made]
        try:
            yield made
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
