"""The admin port: how the operator is, what it knows, and the objects with their status.

- `/healthz`: the process answers. `/readyz`: resources were read and a snapshot is made. `/leaderz`: proxies are served here,
  which of several replicas one does.
- `/metrics`: Prometheus text. `/info`: every part's `info()`. `/config`: the snapshot in force, as proxies have it.
- `/api/v1/modelroutes`, `/api/v1/modelbackends` (`?namespace=`), `/api/v1/problems`: what `spillway get` prints.

Read-only, and without secrets: the operator has none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from spillway_operator.snapshot.state import SnapshotState
from spillway_operator.store import BACKEND, ROUTE, Store


class AdminServer:
    """aiohttp on one port."""

    def __init__(
        self,
        *,
        store: Store,
        state: Callable[[], SnapshotState],
        ready: Callable[[], str | None],
        info: Callable[[], Mapping[str, Any]],
        registry: CollectorRegistry,
        leads: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._store = store
        self._state = state
        self._ready = ready
        self._leads = leads
        self._info = info
        self._registry = registry
        self._runner: web.AppRunner | None = None

    async def start(self, host: str, port: int) -> int:
        """Listens; returns the port (asked for with 0). Raises OSError when it is taken."""
        app = web.Application()
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/leaderz", self._leaderz)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/info", self._show_info)
        app.router.add_get("/config", self._config)
        app.router.add_get("/api/v1/modelroutes", self._objects(ROUTE))
        app.router.add_get("/api/v1/modelbackends", self._objects(BACKEND))
        app.router.add_get("/api/v1/problems", self._problems)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, keepalive_timeout=15.0, shutdown_timeout=1.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port)
        await site.start()
        bound: int = self._runner.addresses[0][1]
        return bound

    async def stop(self) -> None:
        """Stops listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        return _verdict(self._ready())

    async def _leaderz(self, _: web.Request) -> web.Response:
        return _verdict(self._leads())

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _show_info(self, _: web.Request) -> web.Response:
        return _json(self._info())

    async def _config(self, _: web.Request) -> web.Response:
        state = self._state()
        resources = [msgspec.Raw(state.resources[key].data) for key in sorted(state.resources)]
        hashes = {f"{kind}/{name}": state.resources[kind, name].hash for kind, name in sorted(state.resources)}
        return _json({"version": state.version, "epoch": state.epoch, "hashes": hashes, "resources": resources})

    def _objects(self, kind: str) -> Callable[[web.Request], Any]:
        async def handler(request: web.Request) -> web.Response:
            return _json({"items": self._store.documents(kind, request.query.get("namespace"))})

        return handler

    async def _problems(self, _: web.Request) -> web.Response:
        return _json({"items": [problem.info() for problem in self._store.problems()]})


def _verdict(missing: str | None) -> web.Response:
    return web.Response(text="ok\n") if missing is None else web.Response(status=503, text=f"{missing}\n")


def _json(data: Any) -> web.Response:
    return web.Response(body=msgspec.json.encode(data, enc_hook=str), content_type="application/json", charset="utf-8")
