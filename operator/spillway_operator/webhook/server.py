"""The webhook's listener: HTTPS, one path, answers in about a millisecond and never says no.

The API server waits for it while a pod is made (2 s in the chart), so nothing here waits for anything: the settings and the
backends are in memory. Every replica serves it, leader or not. A body over 3 MiB, which is the most that an API server
takes itself, or one that trickles in, is cut off.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final, Protocol

import msgspec
from aiohttp import web
from prometheus_client.core import CounterMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from spillway_operator.webhook.review import Backends, NotAReviewError, answer
from spillway_operator.webhook.source import InjectionSource

_log = logging.getLogger(__name__)

PATH: Final = "/v1/inject"
MAX_BODY_BYTES: Final = 3 * 1024 * 1024
BODY_SECONDS: Final = 2.0
REFRESH_SECONDS: Final = 10.0


class Certificate(Protocol):
    """A TLS context, and what there is to say of it. Its owner keeps it up to date."""

    context: ssl.SSLContext

    def info(self) -> dict[str, Any]:
        """Where it is from."""


class WebhookServer(Collector):
    """Listens from `start` to `stop`. Without a `certificate` it speaks plain HTTP, which an API server does not."""

    def __init__(self, *, source: InjectionSource, backends: Backends, certificate: Certificate | None) -> None:
        self._source = source
        self._backends = backends
        self._certificate = certificate
        self._outcomes: Counter[str] = Counter()
        self._refused: Counter[int] = Counter()
        self._runner: web.AppRunner | None = None
        self._refresher: asyncio.Task[None] | None = None

    async def start(self, host: str, port: int) -> int:
        """Listens; returns the port (asked for with 0). Raises OSError when it is taken."""
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app.router.add_post(PATH, self._inject)
        app.router.add_get("/healthz", self._healthz)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, keepalive_timeout=75.0, shutdown_timeout=2.0)
        await self._runner.setup()
        context = self._certificate.context if self._certificate is not None else None
        await web.TCPSite(self._runner, host, port, ssl_context=context).start()
        self._refresher = asyncio.create_task(self._refresh(), name="webhook-refresh")
        bound: int = self._runner.addresses[0][1]
        return bound

    async def stop(self) -> None:
        """Stops listening; reviews under way are answered."""
        if self._refresher is not None:
            self._refresher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._refresher
        if self._runner is not None:
            await self._runner.cleanup()

    def info(self) -> dict[str, Any]:
        """Outcomes so far, and the files that it lives from."""
        return {
            "outcomes": dict(self._outcomes),
            "refused": {str(status): count for status, count in self._refused.items()},
            "injection": self._source.info(),
            "certificate": self._certificate.info() if self._certificate is not None else None,
        }

    def collect(self) -> Iterator[Metric]:
        """Prometheus families."""
        family = CounterMetricFamily("spillway_operator_injections", "Pods reviewed, by what became of them.", labels=("outcome",))
        for outcome, count in self._outcomes.items():
            family.add_metric((outcome,), count)
        yield family

    async def _refresh(self) -> None:
        while True:
            await asyncio.sleep(REFRESH_SECONDS)
            await asyncio.to_thread(self._source.refresh)

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _inject(self, request: web.Request) -> web.Response:
        try:
            async with asyncio.timeout(BODY_SECONDS):
                body = await request.read()
            answered = answer(body, self._source.config, self._backends)
        except TimeoutError:
            return self._refuse(408, "the body did not come in time")
        except web.HTTPRequestEntityTooLarge:
            return self._refuse(413, f"a review is at most {MAX_BODY_BYTES} bytes")
        except NotAReviewError as error:
            return self._refuse(400, str(error))
        if answered.error is not None:
            _log.error("injection: a pod was admitted as it is: %s", answered.error, exc_info=answered.error)
        self._outcomes[answered.outcome] += 1
        return web.Response(body=msgspec.json.encode(answered.document), content_type="application/json")

    def _refuse(self, status: int, text: str) -> web.Response:
        self._refused[status] += 1
        return web.Response(status=status, text=f"{text}\n")
