"""Keys of providers: where they come from, where they go, and that they are seen nowhere else."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

import pytest
from tests.integration.external.conftest import Outside, Start, ask, backend, condition, route, until_condition
from tests.integration.standalone.conftest import Standalone, until

KEY = "sk-live-0123456789-never-to-be-seen"
CLIENTS_KEY = "Bearer sk-of-the-client"


def everything_told(run: Standalone) -> dict[str, str]:
    """Every page, file and command line that a run leaves to be read, by where it is."""
    request_id = ask(run).headers["x-request-id"]
    pages = {
        0: ["/info", "/config", "/metrics", "/api/v1/modelbackends", "/api/v1/modelroutes", "/api/v1/problems"],
        1: ["/info", "/config", "/metrics", f"/explain/{request_id}"],
    }
    told = {}
    for offset, paths in pages.items():
        for path in paths:
            with urllib.request.urlopen(f"http://127.0.0.1:{run.admin + offset}{path}", timeout=5) as reply:
                told[f"{offset}{path}"] = reply.read().decode()
    for file in run.state.rglob("*"):
        if file.is_file():
            told[str(file)] = file.read_bytes().decode("utf-8", "replace")
    for word in ("spillway_sidecar", "spillway_operator"):
        for pid in run.pids(word):
            told[f"command line of {word}"] = Path(f"/proc/{pid}/cmdline").read_text()
    for pid in run.pids("spillway_operator"):
        told["environment of the operator"] = Path(f"/proc/{pid}/environ").read_text()
    return told


def test_a_provider_gets_our_key_and_nothing_that_is_the_clients(start: Start, outside: Outside, monkeypatch: pytest.MonkeyPatch):
    provider = outside.provider("from the provider")
    monkeypatch.setenv("SPILLWAY_SECRET_PAID_TOKEN", KEY)
    url = f"https://localhost:{provider.port}/proxy/openai/v1"
    run = start({"all.yaml": backend("paid", url, secret="paid") + route("paid")}, "--ca-file", str(outside.ca_file))
    private = {"authorization": CLIENTS_KEY, "cookie": "a=b", "x-api-key": "k", "openai-organization": "theirs", "x-mine": "1"}

    chat = ask(run, headers=private)
    assert (chat.status, chat.text) == (200, "from the provider")
    assert {"set-cookie", "openai-organization"}.isdisjoint(chat.headers)
    stream = ask(run, headers=private, stream=True)
    assert (stream.status, stream.body.count("data: "), "data: [DONE]" in stream.body) == (200, 4, True)
    assert ask(run, "/v1/completions", private, prompt="Once").status == 200
    assert ask(run, "/v1/embeddings", private, input="one").status == 200

    assert [asked.path.removeprefix("/proxy/openai/v1") for asked in provider.asked] == [
        "/chat/completions", "/chat/completions", "/completions", "/embeddings",
    ]  # fmt: skip
    for asked in provider.asked:
        assert asked.header("authorization") == [f"Bearer {KEY}"]
        assert asked.header("host") == [f"localhost:{provider.port}"]
        assert {"cookie", "x-api-key", "openai-organization", "x-mine"}.isdisjoint(name.lower() for name, _ in asked.headers)
        assert json.loads(asked.body)["model"] == "model-of-paid"
        assert "sk-of-the-client" not in str(asked)
    assert set(provider.names) == {"localhost"}

    # A provider that refuses the key repeats parts of it; that is for nobody but us.
    provider.says(401, f'{{"error": {{"message": "Incorrect API key provided: {KEY}"}}}}'.encode())
    refused = ask(run, headers=private)
    assert (refused.status, refused.reason) == (502, "key_refused")
    assert KEY not in f"{refused.headers}{refused.body}"
    message = until_condition(run, "paid", "Ready", "False", "KeyRefused")
    assert f"localhost:{provider.port}" in message
    provider.is_well()
    until(lambda: ask(run).status == 200, "the key is tried again", 15)
    until_condition(run, "paid", "Ready", "True", "EndpointsReady")

    told = everything_told(run)
    assert len([where for where in told if "last-good" in where]) == 1
    assert any("gateway" in where and where.endswith(".log") for where in told)
    assert [where for where, text in told.items() if KEY in text or "sk-of-the-client" in text] == []
    assert '"default/paid paid/token":"found"' in told["1/info"]
    assert run.stop() == 0
    assert run.process.stdout is not None
    assert KEY not in run.process.stdout.read().decode()


def test_a_key_in_a_file_is_followed_and_without_one_the_next_priority_serves(start: Start, outside: Outside, tmp_path: Path):
    paid, spare = outside.provider("from paid"), outside.provider("from spare")
    secrets = tmp_path / "secrets"
    key = secrets / "default" / "paid" / "token"
    key.parent.mkdir(parents=True)
    documents = (
        backend("paid", f"https://localhost:{paid.port}/v1", secret="paid")
        + backend("spare", f"https://localhost:{spare.port}/v1")
        + route("paid", "spare")
        + route("paid", model="paid-alone")
    )
    run = start({"all.yaml": documents}, "--ca-file", str(outside.ca_file), "--secrets-dir", str(secrets), ready=False)
    until(lambda: run.pids("spillway_sidecar") != [], "a gateway")

    # No key: the backend says where it was looked for, and requests go on to the next priority.
    until(lambda: condition(run, "paid", "Ready")[1] == "SecretMissing", "the condition")
    message = condition(run, "paid", "Ready")[2]
    for place in ("SPILLWAY_SECRET_PAID_TOKEN", "default/paid/token", "paid/token", "gateway-0"):
        assert place in message
    assert ask(run).text == "from spare"
    assert spare.keys == []
    alone = ask(run, model="paid-alone")
    assert (alone.status, alone.reason) == (503, "secret_missing")
    assert paid.asked == []

    for number in (1, 2):
        replacement = key.with_name(".new")
        replacement.write_text(f"sk-{number}\n")
        replacement.replace(key)
        until(lambda wanted=f"Bearer sk-{number}": ask(run).text == "from paid" and paid.keys[-1] == wanted, f"key {number}", 10)
        until_condition(run, "paid", "Ready", "True", "EndpointsReady")
    assert paid.keys[0] == "Bearer sk-1"

    key.unlink()
    until_condition(run, "paid", "Ready", "False", "SecretMissing")
    assert ask(run).text == "from spare"
