"""The webhook's listener over TLS, and the files that it follows."""

from __future__ import annotations

import asyncio
import io
import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import trustme
from prometheus_client import CollectorRegistry, generate_latest
from tests.unit.injection.pods import CONFIG, POD
from tests.unit.webhook.test_webhook_review import review

from spillway_operator.discovery.tls import CertificateFiles, ServerCertificate
from spillway_operator.webhook import InjectionSource, WebhookServer
from spillway_operator.webhook import server as server_module

URL = "https://127.0.0.1:{}/v1/inject"


def issue(authority: trustme.CA, folder: Path) -> CertificateFiles:
    """A certificate in files, as a Secret is mounted."""
    made = authority.issue_cert("127.0.0.1")
    files = CertificateFiles(folder / "tls.crt", folder / "tls.key")
    made.cert_chain_pems[0].write_to_path(files.certificate)
    made.private_key_pem.write_to_path(files.key)
    return files


@pytest.fixture
def source(tmp_path: Path) -> InjectionSource:
    file = tmp_path / "injection.json"
    file.write_text(json.dumps({"image": CONFIG.image, "operatorURL": CONFIG.operator_url}))
    return InjectionSource(file, tmp_path / "ca.crt")


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
async def webhook(source: InjectionSource, authority: trustme.CA, tmp_path: Path) -> AsyncIterator[tuple[WebhookServer, int]]:
    certificate = ServerCertificate(issue(authority, tmp_path))
    made = WebhookServer(source=source, backends=lambda _: [], certificate=certificate)
    yield made, await made.start("127.0.0.1", 0)
    await made.stop()


async def post(port: int, authority: trustme.CA, body: bytes) -> tuple[int, str]:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    async with aiohttp.ClientSession() as client, client.post(URL.format(port), data=io.BytesIO(body), ssl=context) as reply:
        return reply.status, await reply.text()


async def test_it_answers_over_tls_and_counts(webhook: tuple[WebhookServer, int], authority: trustme.CA) -> None:
    made, port = webhook
    status, text = await post(port, authority, review(POD))
    assert status == 200
    assert json.loads(text)["response"]["patchType"] == "JSONPatch"
    assert made.info()["outcomes"] == {"injected": 1}
    registry = CollectorRegistry()
    registry.register(made)
    assert b'spillway_operator_injections_total{outcome="injected"} 1.0' in generate_latest(registry)


async def test_what_is_no_review_or_too_long_is_refused(webhook: tuple[WebhookServer, int], authority: trustme.CA) -> None:
    made, port = webhook
    assert (await post(port, authority, b"{}"))[0] == 400
    assert (await post(port, authority, b" " * (server_module.MAX_BODY_BYTES + 1)))[0] == 413
    assert made.info()["refused"] == {"400": 1, "413": 1}


async def test_a_body_that_trickles_in_is_cut_off(
    webhook: tuple[WebhookServer, int], authority: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "BODY_SECONDS", 0.05)
    context = ssl.create_default_context()
    authority.configure_trust(context)
    reader, writer = await asyncio.open_connection("127.0.0.1", webhook[1], ssl=context)
    writer.write(b"POST /v1/inject HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n{")
    assert (await reader.readline()).startswith(b"HTTP/1.1 408")
    writer.close()


async def test_older_tls_is_refused(webhook: tuple[WebhookServer, int], authority: trustme.CA) -> None:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    async with aiohttp.ClientSession() as client:
        with pytest.raises(aiohttp.ClientConnectorError):
            await client.post(URL.format(webhook[1]), data=b"{}", ssl=context)


def test_settings_and_authority_are_followed(source: InjectionSource, tmp_path: Path) -> None:
    assert source.config.operator_ca == ""
    (tmp_path / "ca.crt").write_text("PEM")
    source.refresh()
    assert source.config.operator_ca == "PEM"
    (tmp_path / "injection.json").write_text("{")
    source.refresh()
    assert source.config.operator_ca == "PEM", "what was read last stays"
    assert "injection.json" in str(source.info()["error"])


@pytest.mark.parametrize("text", ["{", "{}"])
def test_settings_that_are_wrong_at_the_start_are_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "injection.json").write_text(text)
    with pytest.raises(ValueError, match=r"injection"):
        InjectionSource(tmp_path / "injection.json")
