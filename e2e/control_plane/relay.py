"""Between an operator and its API server: passes everything on, and breaks it in the ways in which it breaks.

An aiohttp server in a thread and loop of its own. `refuse` answers everything with a status, `end_watches` puts an ERROR into
every open watch, `stall` leaves open watches open and silent, `cut` leaves everything without an answer; `mend` ends all of it.
"""

import asyncio
import json
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from spillway_operator.kube.access import KubeAccess

HOP_BY_HOP = {"host", "connection", "content-length", "transfer-encoding", "accept-encoding", "authorization"}


class Watch:
    """One that is open."""

    def __init__(self) -> None:
        self.silent = False
        self.code = 0
        self.error = asyncio.Event()


CLOSING_SECONDS = 0.1  # transports close in the turns after they were told to


class Relay:
    """A server on a free port before the API server of a kubeconfig."""

    def __init__(self, kubeconfig: Path) -> None:
        self._kubeconfig = kubeconfig
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._watches: set[Watch] = set()
        self._refusal: int | None = None
        self._passing = asyncio.Event()
        self._runner: web.AppRunner | None = None
        self._session: aiohttp.ClientSession | None = None
        self._server = ""
        self.port = 0

    # -- what a test does

    def refuse(self, status: int) -> None:
        """Everything is answered with a status, and open watches end."""
        self._do(self._refuse(status))

    def end_watches(self, code: int) -> None:
        """Every open watch gets an ERROR."""
        self._do(self._end_watches(code))

    def stall(self) -> None:
        """What is a watch at this moment stays open and brings nothing more."""
        self._do(self._stall())

    def cut(self) -> None:
        """Nothing is answered."""
        self._do(self._cut())

    def mend(self) -> None:
        """Everything passes."""
        self._do(self._mend())

    def kubeconfig(self, path: Path) -> Path:
        """One that leads here."""
        user: dict[str, Any] = {"name": "relay", "user": {"token": "none"}}
        context = {"name": "relay", "context": {"cluster": "relay", "user": "relay"}}
        cluster = {"name": "relay", "cluster": {"server": f"http://127.0.0.1:{self.port}"}}
        config = {"apiVersion": "v1", "kind": "Config", "current-context": "relay"}
        path.write_text(json.dumps({**config, "clusters": [cluster], "contexts": [context], "users": [user]}))
        return path

    # -- on its loop

    def _do(self, what: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(what, self._loop).result(10)

    async def _refuse(self, status: int) -> None:
        self._refusal = status
        await self._end_watches(410)

    async def _end_watches(self, code: int) -> None:
        for watch in self._watches:
            watch.code = code
            watch.error.set()

    async def _stall(self) -> None:
        for watch in self._watches:
            watch.silent = True

    async def _cut(self) -> None:
        self._passing.clear()
        await self._stall()

    async def _mend(self) -> None:
        self._refusal = None
        self._passing.set()

    async def _start(self) -> None:
        access = await KubeAccess.load(self._kubeconfig)
        self._session, self._server = access.session(), access.server
        self._passing.set()
        app = web.Application(client_max_size=2**24)
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.port = self._runner.addresses[0][1]

    async def _stop(self) -> None:
        self._passing.set()
        await self._end_watches(410)
        if self._runner is not None and self._session is not None:
            await self._runner.cleanup()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            await self._session.close()
            await self._loop.shutdown_asyncgens()
            await asyncio.sleep(CLOSING_SECONDS)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        await self._passing.wait()
        if self._refusal is not None:
            status = {
                "kind": "Status",
                "apiVersion": "v1",
                "status": "Failure",
                "code": self._refusal,
                "message": "the test says so",
            }
            return web.json_response(status, status=self._refusal)
        assert self._session is not None
        headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP_BY_HOP}
        async with self._session.request(
            request.method,
            self._server + request.path_qs,
            data=await request.read() or None,
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=None),
            read_bufsize=2**22,
        ) as answer:
            response = web.StreamResponse(status=answer.status, headers={"Content-Type": answer.headers.get("Content-Type", "")})
            if "watch" not in request.query:
                data = await answer.read()
                await self._passing.wait()
                return web.Response(status=answer.status, body=data, headers=response.headers)
            await response.prepare(request)
            await self._pass_watch(answer, response)
            return response

    async def _pass_watch(self, answer: aiohttp.ClientResponse, response: web.StreamResponse) -> None:
        watch = Watch()
        self._watches.add(watch)
        lines = asyncio.create_task(self._pass_lines(watch, answer, response))
        error = asyncio.create_task(watch.error.wait())
        try:
            await asyncio.wait({lines, error}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._watches.discard(watch)
            lines.cancel()
            error.cancel()
            await asyncio.wait({lines, error})
        if watch.error.is_set():
            status = {"kind": "Status", "code": watch.code, "reason": "Test", "message": "the test says so"}
            with suppress(ConnectionError):
                await response.write(json.dumps({"type": "ERROR", "object": status}).encode() + b"\n")

    async def _pass_lines(self, watch: Watch, answer: aiohttp.ClientResponse, response: web.StreamResponse) -> None:
        async for line in answer.content:
            if not watch.silent:
                await response.write(line)
        if watch.silent:
            await asyncio.Event().wait()

    def start(self) -> None:
        self._thread.start()
        self._do(self._start())

    def stop(self) -> None:
        self._do(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()


@contextmanager
def relay(kubeconfig: Path) -> Iterator[Relay]:
    """A relay for the time of a block."""
    made = Relay(kubeconfig)
    made.start()
    try:
        yield made
    finally:
        made.stop()
