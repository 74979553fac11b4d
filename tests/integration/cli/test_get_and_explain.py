"""`spillway get` and `spillway explain` against admin pages on a real socket."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import yaml

from spillway.__main__ import main
from spillway.admin import AdminError, get_json
from spillway.get import show as show_module

Pages = dict[str, Any]


def item(kind: str, name: str, namespace: str = "default", **status: object) -> dict[str, Any]:
    return {
        "apiVersion": "spillway.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": name, "namespace": namespace, "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"model": "m", "provider": "VLLM", "models": ["chat"]},
        "status": {"conditions": [{"type": "Ready", "status": "True", "reason": "BackendsReady"}], **status},
    }


@pytest.fixture
def pages() -> Pages:
    return {
        "/api/v1/modelroutes": {"items": [item("ModelRoute", "chat", summary={"models": "chat", "synced": "4/4"})]},
        "/api/v1/modelbackends": {
            "items": [item("ModelBackend", "slow"), item("ModelBackend", "fast"), item("ModelBackend", "x", "ml")]
        },
        "/api/v1/problems": {"items": [{"file": "a.yaml", "line": 12, "path": "spec.rules[0]", "message": "unknown field"}]},
        "/explain/r%2F1": {"requestId": "r/1", "attempts": [], "outcome": "ok"},
    }


@pytest.fixture
def url(pages: Pages) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            page = pages.get(self.path)
            body = page if isinstance(page, bytes) else json.dumps(page).encode()
            self.send_response(404 if page is None else 200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_routes_are_a_table_and_problems_are_told_below_it(url: str, capsys: pytest.CaptureFixture[str]):
    assert main(["get", "routes", "--admin", url]) == 0
    captured = capsys.readouterr()
    header, row = captured.out.splitlines()
    assert header.split() == ["NAME", "MODELS", "READY", "BACKENDS", "SYNCED", "RPS", "TTFT-P95", "ERR%", "AGE"]
    assert row.split()[:4] == ["chat", "chat", "True", "4/4"]
    assert captured.err == "a.yaml:12: spec.rules[0]: unknown field\n"


def test_wide_has_more_columns(url: str, capsys: pytest.CaptureFixture[str]):
    assert main(["get", "mroute", "-o", "wide", "--admin", url]) == 0
    assert "REASON" in capsys.readouterr().out


def test_a_namespace_and_a_name_select(url: str, capsys: pytest.CaptureFixture[str]):
    def names(*argv: str) -> list[str]:
        assert main(["get", "backends", "--admin", url, *argv]) == 0
        return [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]]

    assert names() == ["default", "default", "ml"]
    assert names("-n", "default") == ["fast", "slow"]
    assert names("slow") == ["slow"]


@pytest.mark.parametrize(("form", "load"), [("json", json.loads), ("yaml", yaml.safe_load)])
def test_whole_objects_are_a_list_as_in_kubectl_or_one_by_name(url: str, capsys: pytest.CaptureFixture[str], form: str, load: Any):
    assert main(["get", "backends", "-o", form, "--admin", url]) == 0
    shown = load(capsys.readouterr().out)
    assert (shown["kind"], [i["metadata"]["name"] for i in shown["items"]]) == ("List", ["slow", "fast", "x"])
    assert main(["get", "backends", "fast", "-o", form, "--admin", url]) == 0
    assert load(capsys.readouterr().out)["metadata"]["name"] == "fast"


def test_a_name_that_is_not_there_is_told_with_those_that_are(url: str, capsys: pytest.CaptureFixture[str]):
    assert main(["get", "backends", "fsat", "--admin", url]) == 1
    assert capsys.readouterr().err == "spillway get: no ModelBackend is named fsat; there are fast, slow, x\n"


def test_nothing_there_is_said_so(url: str, pages: Pages, capsys: pytest.CaptureFixture[str]):
    pages["/api/v1/modelroutes"] = {"items": []}
    assert main(["get", "routes", "--admin", url]) == 0
    captured = capsys.readouterr()
    assert (captured.out, captured.err.splitlines()[0]) == ("", "No routes found.")


@pytest.mark.parametrize("argv", [["get", "routes"], ["explain", "r"]])
def test_nobody_there_is_told_with_what_to_do(argv: list[str], capsys: pytest.CaptureFixture[str]):
    assert main([*argv, "--admin", "http://127.0.0.1:1"]) == 1
    assert capsys.readouterr().err.endswith("at http://127.0.0.1:1; is `spillway run` running?\n")


@pytest.mark.parametrize("address", ["https://127.0.0.1:1", "ftp://x", "http://", "http://h:port"])
def test_what_is_no_admin_address_is_told(address: str):
    with pytest.raises(AdminError, match="is not an admin address"):
        get_json(address, "/")


def test_an_answer_that_is_no_json_is_told(url: str, pages: Pages):
    pages["/page"] = b"<html>"
    with pytest.raises(AdminError, match="answered no JSON"):
        get_json(url, "/page")


def test_watch_prints_a_row_for_each_object_that_changes(
    url: str, pages: Pages, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    steps = iter(
        [
            lambda: None,
            lambda: pages["/api/v1/modelbackends"]["items"].__setitem__(
                0, item("ModelBackend", "slow", summary={"endpoints": "1/2"})
            ),
            lambda: pages.pop("/api/v1/modelbackends"),
        ]
    )

    def sleep(_: float) -> None:
        step = next(steps, None)
        if step is None:
            raise KeyboardInterrupt
        step()

    monkeypatch.setattr(show_module.time, "sleep", sleep)
    assert main(["get", "backends", "-n", "default", "--watch", "--admin", url]) == 130
    captured = capsys.readouterr()
    assert [line.split()[0] for line in captured.out.splitlines()] == ["NAME", "fast", "slow", "slow"]
    assert "1/2" in captured.out.splitlines()[-1]
    assert "nothing at " in captured.err


def test_a_decision_is_explained_in_text_and_json(url: str, capsys: pytest.CaptureFixture[str]):
    assert main(["explain", "r/1", "--admin", url]) == 0
    assert capsys.readouterr().out.startswith("request    r/1\n")
    assert main(["explain", "r/1", "-o", "json", "--admin", url]) == 0
    assert json.loads(capsys.readouterr().out)["requestId"] == "r/1"


def test_a_request_without_a_record_is_told(url: str, capsys: pytest.CaptureFixture[str]):
    assert main(["explain", "other", "--admin", url]) == 1
    assert "has no record of request other" in capsys.readouterr().err
