"""The external metrics API's listener: only who has the cluster's own certificate is answered, also after it is another."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme

from spillway_operator.discovery.tls import CertificateFiles, ServerCertificate
from spillway_operator.external_metrics import server as listener
from spillway_operator.external_metrics.server import ExternalMetricsServer
from spillway_operator.kube.api import ApiError
from spillway_operator.kube.leader_label import LeaderLabel
from spillway_operator.reconcile.signals import Signals

WAITING = "spillway_operator_backend_waiting_requests"
BASE = "/apis/external.metrics.k8s.io/v1beta1"


class Cluster:
    """The ConfigMap that names the authority, and the operator's own pod."""

    def __init__(self) -> None:
        self.front = trustme.CA()
        self.denied = 0
        self.patches: list[Any] = []

    async def request(self, method: str, path: str, body: Any = None, **_: Any) -> Any:
        if self.denied:
            self.denied -= 1
            raise ApiError(403, "Forbidden", "not yet")
        if method == "PATCH":
            self.patches.append((path, body))
            return {}
        data = {
            "requestheader-client-ca-file": self.front.cert_pem.bytes().decode(),
            "requestheader-allowed-names": '["front-proxy-client"]',
        }
        return {"data": data}


class Bench:
    def __init__(self, folder: Path) -> None:
        self.cluster = Cluster()
        self.serving = trustme.CA()
        issued = self.serving.issue_cert("localhost")
        files = CertificateFiles(folder / "tls.crt", folder / "tls.key")
        issued.cert_chain_pems[0].write_to_path(files.certificate)
        issued.private_key_pem.write_to_path(files.key)
        self.leads = True
        self.server = ExternalMetricsServer(
            self.cluster,  # type: ignore[arg-type]
            certificate=lambda: ServerCertificate(files),
            host="127.0.0.1",
            port=0,
            found=lambda namespace: [Signals(f"{namespace}/fast", {WAITING: 3.0})],
            leads=lambda: self.leads,
            wall_clock=lambda: datetime(2026, 1, 31, tzinfo=UTC),
        )
        self.task = asyncio.create_task(self.server.run())

    async def port(self) -> int:
        async with asyncio.timeout(20):
            while True:
                if self.server.bound is not None:
                    return self.server.bound
                await asyncio.sleep(0.01)

    async def get(self, path: str, name: str | None = "front-proxy-client", authority: trustme.CA | None = None) -> tuple[int, Any]:
        context = ssl.create_default_context()
        self.serving.configure_trust(context)
        if name is not None:
            (authority or self.cluster.front).issue_cert(common_name=name).configure_cert(context)
        url = f"https://localhost:{await self.port()}{path}"
        async with (
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session,
            session.get(url, timeout=aiohttp.ClientTimeout(10)) as answer,
        ):
            return answer.status, await answer.json()


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.task.cancel()
    await asyncio.wait({made.task})


async def test_the_api_server_is_answered(bench: Bench):
    status, found = await bench.get(f"{BASE}/namespaces/ml/{WAITING}?labelSelector=backend%3Dfast")
    assert (status, found["items"][0]["value"]) == (200, "3")
    status, found = await bench.get(BASE)
    assert (status, found["kind"]) == (200, "APIResourceList")
    status, found = await bench.get("/openapi/v2")
    assert (status, found["kind"], found["code"]) == (404, "Status", 404)


async def test_nobody_else_is(bench: Bench):
    status, found = await bench.get(BASE, "kubelet")
    assert (status, found["reason"]) == (401, "Unauthorized")
    for name, authority in ((None, None), ("front-proxy-client", trustme.CA())):
        with pytest.raises(aiohttp.ClientError):
            await bench.get(BASE, name, authority)


async def test_who_does_not_lead_has_no_figures(bench: Bench):
    bench.leads = False
    status, found = await bench.get(f"{BASE}/namespaces/ml/{WAITING}")
    assert (status, found["message"]) == (503, "another replica leads")


async def test_another_authority_takes_the_place_of_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(listener, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(listener, "RETRY_SECONDS", 0.01)
    bench = Bench(tmp_path)
    bench.cluster.denied = 3
    assert (await bench.get(BASE))[0] == 200
    before, bench.cluster.front = bench.cluster.front, trustme.CA()
    async with asyncio.timeout(20):
        while True:
            try:
                assert (await bench.get(BASE))[0] == 200
                break
            except aiohttp.ClientError:
                await asyncio.sleep(0.01)
    with pytest.raises(aiohttp.ClientError):
        await bench.get(BASE, authority=before)
    bench.task.cancel()
    await asyncio.wait({bench.task})


async def test_the_leaders_pod_has_the_label_and_no_other():
    cluster, leads = Cluster(), False
    label = LeaderLabel(cluster, namespace="spillway-system", pod="operator-0", leads=lambda: leads)  # type: ignore[arg-type]
    cluster.denied = 1
    for leads in (False, False, False, True, True, False):  # noqa: B007 - the label looks at it
        await label.look()
    path = "/api/v1/namespaces/spillway-system/pods/operator-0/status"
    wanted = [None, "true", None]
    assert cluster.patches == [(path, {"metadata": {"labels": {"spillway.dev/leads": value}}}) for value in wanted]
