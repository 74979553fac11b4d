"""`spillway get` and `explain` against an API server, as `kubectl spillway` runs them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeVar

import pytest
from tests.fakes import resources
from tests.fakes.kube_api import FakeKubeApi, fake_kube_api

from spillway.__main__ import main, plugin

T = TypeVar("T")


class Cluster:
    """A fake API server in a loop of its own, since commands run a loop themselves."""

    def __init__(self, folder: Path) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        self._stack = AsyncExitStack()
        self.api: FakeKubeApi = self.run(self._stack.enter_async_context(fake_kube_api()))
        self.kubeconfig = str(self.api.write_kubeconfig(folder / "kubeconfig"))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(10)

    def close(self) -> None:
        self.run(self._stack.aclose())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path)
    chat = resources.route("chat")
    chat["status"] = {
        "conditions": [{"type": "Ready", "status": "True", "reason": "BackendsReady"}],
        "summary": {"models": "chat", "backends": "1/1", "synced": "2/2"},
    }
    chat["metadata"]["managedFields"] = [{}]
    made.run(made.api.put("modelroutes", chat))
    other = resources.route("other")
    other["metadata"]["namespace"] = "elsewhere"
    made.run(made.api.put("modelroutes", other))
    yield made
    made.close()


def test_routes_of_a_cluster_are_a_table(cluster: Cluster, capsys: pytest.CaptureFixture[str]):
    assert main(["get", "routes", "--kubeconfig", cluster.kubeconfig]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["NAMESPACE", "NAME", "MODELS"]
    assert [line.split()[:2] for line in lines[1:]] == [["elsewhere", "other"], ["ml", "chat"]]
    assert lines[2].split()[2:6] == ["chat", "True", "1/1", "2/2"]


def test_one_object_is_shown_whole(cluster: Cluster, capsys: pytest.CaptureFixture[str]):
    assert main(["get", "mroute", "chat", "-n", "ml", "-o", "yaml", "--context", "fake", "--kubeconfig", cluster.kubeconfig]) == 0
    shown = capsys.readouterr().out
    assert "kind: ModelRoute" in shown
    assert "managedFields" not in shown


def test_the_plugin_asks_the_cluster(cluster: Cluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setenv("SPILLWAY_KUBECONFIG", cluster.kubeconfig)
    assert plugin(["get", "routes", "-n", "ml"]) == 0
    assert "chat" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("failure", "said"), [(403, "--namespace"), (500, "500"), (None, "does not answer")], ids=["forbidden", "broken", "away"]
)
def test_what_is_in_the_way_is_said(cluster: Cluster, capsys: pytest.CaptureFixture[str], failure: int | None, said: str):
    if failure is None:
        cluster.run(cluster.api.stop())
    cluster.api.failure = failure
    assert main(["get", "routes", "--kubeconfig", cluster.kubeconfig]) == 1
    assert said in capsys.readouterr().err


def test_a_kubeconfig_that_is_not_there_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["get", "routes", "--kubeconfig", str(tmp_path / "none")]) == 1
    assert "no cluster to ask" in capsys.readouterr().err


def test_the_proxy_that_has_the_record_is_found(cluster: Cluster, capsys: pytest.CaptureFixture[str]):
    pod = {
        "metadata": {"name": "gateway-1", "labels": {"app.kubernetes.io/component": "gateway"}},
        "spec": {"containers": [{"name": "gateway", "ports": [{"name": "admin", "containerPort": 8082}]}]},
        "status": {"phase": "Running"},
    }
    cluster.run(cluster.api.put("pods", pod))
    assert main(["explain", "r-1", "--kubeconfig", cluster.kubeconfig]) == 1
    assert "none of 2 proxies has a record of request r-1" in capsys.readouterr().err
    cluster.api.pages["/api/v1/namespaces/ml/pods/gateway-1:8082/proxy/explain/r-1"] = {"requestId": "r-1", "outcome": "ok"}
    assert main(["explain", "r-1", "--kubeconfig", cluster.kubeconfig]) == 0
    assert "outcome    ok" in capsys.readouterr().out
