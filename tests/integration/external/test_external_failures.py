"""What a provider's bad answers come to, and a local server beside a paid one."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from tests.integration.external.conftest import Outside, Start, ask, backend, route
from tests.integration.external.provider import Answer, Asked, Provider, serving
from tests.integration.standalone.conftest import ROOT, until

HTML = b"<html>502 from nginx/1.2 at 10.1.2.3</html>"


def test_a_provider_that_fails_or_asks_for_a_pause_is_spared_while_another_serves(start: Start, outside: Outside):
    first, second = outside.provider("from the first"), outside.provider("from the second")
    documents = (
        backend("first", f"https://localhost:{first.port}/v1")
        + backend("second", f"https://localhost:{second.port}/v1")
        + route("first", "second")
    )
    run = start({"all.yaml": documents}, "--ca-file", str(outside.ca_file))
    assert ask(run).text == "from the first"

    # 429 with Retry-After: the next priority takes over, and nobody asks before the time is over.
    first.says(429, b'{"error": {"message": "slow down"}}', retry_after="2")
    began = time.monotonic()
    assert ask(run).text == "from the second"
    asked = len(first.asked)
    assert [ask(run).text for _ in range(20)] == ["from the second"] * 20
    assert len(first.asked) == asked or time.monotonic() - began >= 2
    first.is_well()
    until(lambda: ask(run).text == "from the first", "the pause is over", 10)
    assert time.monotonic() - began >= 2

    # All of them: the client is told when to come back, by the one that is free first.
    first.says(429, retry_after="3600")
    second.says(429, retry_after="5")
    for _ in range(3):
        full = ask(run)
        assert (full.status, full.reason) == (429, "overloaded")
        assert 1 <= int(full.headers["retry-after"]) <= 5
        assert "rate_limit_error" in full.body
    assert len(second.asked) >= 21


# What a provider answers -> what the client is told when there is nobody else, and why.
ERRORS = {
    500: (502, "upstream_error"),
    503: (503, "upstream_error"),
    302: (502, "upstream_error"),
    401: (502, "key_refused"),
    403: (502, "upstream_error"),
}


def test_an_error_of_a_provider_goes_to_the_next_and_its_text_to_nobody(start: Start, outside: Outside):
    provider = outside.provider("from the next")

    def answer(asked: Asked) -> Answer | None:
        first = asked.path.split("/")[1]
        headers = {"content-type": "text/html", "location": "https://elsewhere.example/v1/chat/completions"}
        return (int(first), headers, HTML) if first.isdigit() else None

    provider.answer = answer
    url = f"https://localhost:{provider.port}"
    documents = backend("next", f"{url}/v1") + "".join(
        backend(f"first-{status}", f"{url}/{status}/v1")
        + backend(f"only-{status}", f"{url}/{status}/only/v1")
        + route(f"first-{status}", "next", model=f"two-{status}")
        + route(f"only-{status}", model=f"one-{status}")
        for status in ERRORS
    )
    run = start({"all.yaml": documents}, "--ca-file", str(outside.ca_file))
    for status, (told, reason) in ERRORS.items():
        assert ask(run, model=f"two-{status}").text == "from the next"
        got = ask(run, model=f"one-{status}")
        assert (got.status, got.reason) == (told, reason)
        assert "nginx" not in got.body
        assert "location" not in got.headers
    paths = [asked.path for asked in provider.asked]
    assert [paths.count(f"/{status}/v1/chat/completions") for status in ERRORS] == [1] * len(ERRORS)


def test_a_request_that_is_wrong_is_the_clients_to_mend(start: Start, outside: Outside):
    first, second = outside.provider("from the first"), outside.provider("from the second")
    first.says(400, b'{"error": {"message": "this model has no tools", "type": "invalid_request_error"}}')
    documents = (
        backend("first", f"https://localhost:{first.port}/v1")
        + backend("second", f"https://localhost:{second.port}/v1")
        + route("first", "second")
    )
    run = start({"all.yaml": documents}, "--ca-file", str(outside.ca_file))
    got = ask(run)
    assert (got.status, got.reason) == (400, "upstream_error")
    assert "this model has no tools" in got.body
    assert second.asked == []


def test_the_laptop_example_spills_to_the_provider_and_comes_back(start: Start, outside: Outside, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SPILLWAY_SECRET_PROVIDER_TOKEN", "sk-paid")
    paid, local = outside.provider("from the provider"), Provider("from this machine")
    with ExitStack() as stack:
        stack.enter_context(serving(local))
        example = (ROOT / "examples" / "laptop" / "laptop.yaml").read_text()
        run = start(
            {
                "laptop.yaml": example.replace("127.0.0.1:11434", f"127.0.0.1:{local.port}").replace(
                    "https://api.openai.com/", f"https://localhost:{paid.port}/"
                )
            },
            "--ca-file",
            str(outside.ca_file),
        )
        assert [ask(run).text for _ in range(5)] == ["from this machine"] * 5
        assert local.keys == []
        assert paid.asked == []

        # A laptop takes two at a time; the third goes to the provider.
        local.delay_seconds = 1.0
        with ThreadPoolExecutor(3) as pool:
            texts = [future.result().text for future in [pool.submit(ask, run) for _ in range(3)]]
        assert sorted(texts) == ["from the provider", "from this machine", "from this machine"]
        local.delay_seconds = 0.0

    # The local server is gone: nobody notices.
    assert [ask(run).text for _ in range(5)] == ["from the provider"] * 5
    assert set(paid.keys) == {"Bearer sk-paid"}
    with serving(local):
        until(lambda: ask(run).text == "from this machine", "the local server is asked again", 15)
