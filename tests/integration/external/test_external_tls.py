"""TLS to providers: whom we believe, and what happens to those that we do not."""

from __future__ import annotations

import trustme
from tests.integration.external.conftest import Outside, Start, ask, backend, condition, route, until_condition
from tests.integration.standalone.conftest import until


def test_a_server_that_is_not_trusted_is_told_and_the_next_priority_serves(start: Start, outside: Outside):
    other_name = outside.provider("from another", name="other.example")
    stranger = outside.provider("from a stranger", authority=trustme.CA())
    trusted = outside.provider("from the trusted one")
    documents = (
        backend("other", f"https://localhost:{other_name.port}/v1")
        + backend("stranger", f"https://localhost:{stranger.port}/v1")
        + backend("trusted", f"https://localhost:{trusted.port}/v1")
        + route("other", "stranger", "trusted", attempts=3)
        + route("stranger", model="stranger-alone")
    )
    run = start({"all.yaml": documents}, "--ca-file", str(outside.ca_file))
    got = ask(run)
    assert (got.status, got.text) == (200, "from the trusted one")
    record = run.page(f"/explain/{got.headers['x-request-id']}", gateway=True)
    assert [(attempt["backend"], attempt["failure"]) for attempt in record["attempts"]] == [
        ("default/other", "tls_failed"), ("default/stranger", "tls_failed"), ("default/trusted", None),
    ]  # fmt: skip
    alone = ask(run, model="stranger-alone")
    assert alone.status == 503
    assert alone.reason in {"tls_failed", "no_endpoint"}  # the latter while it is left alone after the first failure
    assert "retry-after" in alone.headers
    assert other_name.asked == stranger.asked == []
    assert other_name.names[0] == stranger.names[0] == "localhost"

    message = until_condition(run, "other", "Ready", "False", "CertificateRefused")
    assert "Hostname mismatch" in message
    message = until_condition(run, "stranger", "Ready", "False", "CertificateRefused")
    assert f"localhost:{stranger.port}" in message
    assert condition(run, "trusted", "Ready")[:2] == ("True", "EndpointsReady")


def test_without_the_authority_nobody_is_trusted_and_nothing_is_sent(start: Start, outside: Outside):
    provider = outside.provider("from the provider")
    run = start({"all.yaml": backend("paid", f"https://localhost:{provider.port}/v1") + route("paid")})
    got = ask(run)
    assert (got.status, got.reason) == (503, "tls_failed")
    assert "certificate" not in got.body  # the client is told what it can use
    assert provider.asked == []
    until(lambda: "local issuer" in str(run.page("/info", gateway=True)["route"]["clusters"]), "the reason on the page", 5)


def test_plain_http_goes_only_to_hosts_that_are_allowed(start: Start, outside: Outside):
    provider = outside.provider("from the provider")
    documents = (
        backend("lan", "http://models.lan:9/v1")
        + backend("paid", f"https://localhost:{provider.port}/v1")
        + route("lan", "paid", attempts=2)
    )
    run = start({"all.yaml": documents}, "--ca-file", str(outside.ca_file))
    message = until_condition(run, "lan", "Accepted", "False", "HostNotAllowed")
    assert "models.lan" in message
    assert "allowHosts" in message
    assert ask(run).text == "from the provider"

    (run.folder / "spillway.yaml").write_text("allowHosts: [models.lan]\n")
    until_condition(run, "lan", "Accepted", "True", "Accepted")
