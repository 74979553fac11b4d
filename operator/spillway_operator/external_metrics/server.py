"""The listener of the external metrics API: TLS with certificates on both sides, and only the API server's is taken.

The authority is read from the cluster at the start and each minute, and with another one the port is opened anew. Only the replica that
leads knows figures; the Service leads to it alone (`kube.leader_label`), and who does not lead says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, Final, Protocol

import msgspec
from aiohttp import web

from spillway_operator.external_metrics import answers
from spillway_operator.external_metrics.answers import RefusedError
from spillway_operator.external_metrics.front_proxy import CONFIG_MAP, FrontProxy, front_proxy
from spillway_operator.kube.api import KubeApi, KubeError
from spillway_operator.reconcile.signals import Signals

LOOK_SECONDS: Final = 60.0
RETRY_SECONDS: Final = 2.0
_BASE: Final = f"/apis/{answers.VERSION}"

_log = logging.getLogger(__name__)


class Certificate(Protocol):
    """A TLS context of its own, which follows its files."""

    context: ssl.SSLContext

    async def follow(self) -> None:
        """Follows for ever."""


class ExternalMetricsServer:
    """Listens while `run` runs. `found` tells the figures of a namespace."""

    def __init__(
        self,
        api: KubeApi,
        *,
        certificate: Callable[[], Certificate],
        host: str,
        port: int,
        found: Callable[[str], Iterable[Signals]],
        leads: Callable[[], bool],
        wall_clock: Callable[[], datetime],
    ) -> None:
        self._api = api
        self._certificate = certificate
        self._host = host
        self._port = port
        self._found = found
        self._leads = leads
        self._wall_clock = wall_clock
        self._believed: FrontProxy | None = None
        self._counts: Counter[int] = Counter()
        self._trouble = ""
        self.bound: int | None = None

    async def run(self) -> None:
        """Listens, as the cluster's authority is now, for ever. Raises OSError when the port is taken."""
        while True:
            believed = await self._read()
            certificate = self._certificate()
            certificate.context.verify_mode = ssl.CERT_REQUIRED
            certificate.context.load_verify_locations(cadata=believed.authority)
            self._believed = believed
            runner = web.AppRunner(self._app(), access_log=None, handle_signals=False, keepalive_timeout=75.0, shutdown_timeout=2.0)
            follower = asyncio.create_task(certificate.follow())
            try:
                await runner.setup()
                await web.TCPSite(runner, self._host, self._port, ssl_context=certificate.context).start()
                self.bound = runner.addresses[0][1]
                _log.info("external metrics: on port %d", self.bound)
                await self._until_another(believed)
            finally:
                follower.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await follower
                await runner.cleanup()
                self.bound = None

    async def _read(self) -> FrontProxy:
        """Whom to believe; waits for it."""
        while True:
            try:
                found = front_proxy(await self._api.request("GET", CONFIG_MAP))
            except (KubeError, ValueError) as error:
                if str(error) != self._trouble:
                    self._trouble = str(error)
                    _log.warning("external metrics: nobody can be believed yet: %s", error)
                await asyncio.sleep(RETRY_SECONDS)
                continue
            self._trouble = ""
            return found

    async def _until_another(self, believed: FrontProxy) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if await self._read() != believed:
                _log.info("external metrics: the cluster has another authority for front proxies")
                return

    def _app(self) -> web.Application:
        app = web.Application(middlewares=[self._guard])
        app.router.add_get(_BASE, self._resources)
        app.router.add_get(_BASE + "/namespaces/{namespace}/{metric}", self._values)
        return app

    @web.middleware
    async def _guard(self, request: web.Request, handler: Callable[[web.Request], Any]) -> web.StreamResponse:
        """Who asks, and what becomes of it."""
        transport = request.transport
        shown = transport.get_extra_info("peercert") if transport is not None else None
        try:
            known = self._believed is not None and self._believed.knows(shown)
            answer: web.StreamResponse = await (handler(request) if known else self._stranger(request))
        except RefusedError as error:
            answer = _json(error.document, error.status)
        except web.HTTPException as error:
            answer = _json(RefusedError(error.status, error.reason, f"{request.path}: {error.reason}").document, error.status)
        self._counts[answer.status] += 1
        return answer

    async def _stranger(self, _: web.Request) -> web.Response:
        raise RefusedError(401, "Unauthorized", "only the API server is answered here")

    async def _resources(self, _: web.Request) -> web.Response:
        return _json(answers.resources(), 200)

    async def _values(self, request: web.Request) -> web.Response:
        if not self._leads():
            raise RefusedError(503, "ServiceUnavailable", "another replica leads")
        place = request.match_info
        found = self._found(place["namespace"])
        return _json(answers.values(place["metric"], request.query.get("labelSelector", ""), found, self._wall_clock()), 200)

    def info(self) -> dict[str, Any]:
        """Answers by status, and what is in the way."""
        return {
            "port": self.bound,
            "answers": {str(status): count for status, count in sorted(self._counts.items())},
            "trouble": self._trouble,
        }


def _json(document: Any, status: int) -> web.Response:
    return web.Response(status=status, body=msgspec.json.encode(document), content_type="application/json")
