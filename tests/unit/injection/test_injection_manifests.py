"""`spillway inject`: what people write, with sidecars in it."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.unit.injection.pods import CONFIG, POD, pod

from spillway.__main__ import main
from spillway_operator.injection import inject_manifest, lacks_sidecar

TEMPLATE = {"metadata": {"labels": {"app": "x"}}, "spec": pod()["spec"]}
SETTINGS = ["--image", "spillway-sidecar:1", "--operator-url", "https://operator:8083"]


def workload(kind: str) -> dict[str, Any]:
    made = {"kind": kind, "metadata": {"name": "x", "namespace": "ml"}, "spec": {"replicas": 2, "template": TEMPLATE}}
    if kind == "CronJob":
        made["spec"] = {"jobTemplate": {"spec": {"template": TEMPLATE}}}
    return made


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet", "DaemonSet", "Job", "ReplicaSet", "Rollout"])
def test_workloads_have_it_in_their_template(kind: str) -> None:
    result = inject_manifest(workload(kind), CONFIG)
    assert not lacks_sidecar(result.document["spec"]["template"])
    assert {**result.document, "spec": {**result.document["spec"], "template": TEMPLATE}} == workload(kind)
    assert result.looks[0].title == f"{kind}/x"


def test_a_cron_job_has_it_deeper() -> None:
    document = inject_manifest(workload("CronJob"), CONFIG).document
    assert not lacks_sidecar(document["spec"]["jobTemplate"]["spec"]["template"])


def test_a_list_is_gone_through() -> None:
    result = inject_manifest({"kind": "List", "items": [POD, {"kind": "Service", "metadata": {"name": "s"}}]}, CONFIG)
    assert not lacks_sidecar(result.document["items"][0])
    assert [(look.title, look.decision is None) for look in result.looks] == [("Pod/llama-0", False), ("Service/s", True)]


@pytest.mark.parametrize("document", [None, 3, [], {"kind": "ConfigMap"}, {"kind": "Deployment", "spec": None}, {"kind": "Pod"}])
def test_what_makes_no_pods_stays(document: Any) -> None:
    assert inject_manifest(document, CONFIG).document == document


def test_the_command_prints_what_can_be_applied(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    service = {"kind": "Service", "metadata": {"name": "s"}}
    file = tmp_path / "engine.yaml"
    file.write_text(yaml.safe_dump_all([workload("Deployment"), service]))
    assert main(["inject", "-f", str(file), *SETTINGS]) == 0
    out, err = capsys.readouterr()
    deployment, other = yaml.safe_load_all(out)
    assert not lacks_sidecar(deployment["spec"]["template"])
    assert other == service
    assert err == "Deployment/x: injected\n"
    file.write_text(out)
    assert main(["inject", "-f", str(file), *SETTINGS]) == 0
    assert capsys.readouterr().out == out, "twice is once"


def test_the_command_takes_the_installations_settings(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, ca = tmp_path / "injection.json", tmp_path / "ca.crt"
    settings.write_text(json.dumps({"image": "a:1", "operatorURL": "https://o", "adminPort": 7002}))
    ca.write_text("PEM")
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(POD)))
    assert main(["inject", "-f", "-", "--config", str(settings), "--image", "b:1", "--ca-file", str(ca)]) == 0
    made = yaml.safe_load(capsys.readouterr().out)
    assert made["spec"]["initContainers"][1]["image"] == "b:1"
    assert made["spec"]["containers"][0]["lifecycle"]["preStop"]["httpGet"]["port"] == 7002
    assert made["metadata"]["annotations"]["spillway.dev/operator-ca"] == "PEM"


def test_the_command_tells_what_it_cannot_do(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "pod.yaml"
    file.write_text(yaml.safe_dump(pod(hostNetwork=True)))
    assert main(["inject", "-f", str(file), *SETTINGS]) == 1
    out, err = capsys.readouterr()
    assert yaml.safe_load(out) == pod(hostNetwork=True)
    assert "Pod/llama-0: this pod gets no sidecar" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-f", "{}/gone.yaml", *SETTINGS], "No such file"),
        (["-f", "{}/bad.yaml", *SETTINGS], "bad.yaml"),
        (["-f", "{}/ok.yaml"], "--config"),
        (["-f", "{}/ok.yaml", "--config", "{}/bad.yaml"], "bad.yaml"),
        (["-f", "{}/ok.yaml", "--config", "{}/ok.yaml"], "missing: image"),
    ],
)
def test_a_wrong_command_line_ends_with_two(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "bad.yaml").write_text("a: [")
    (tmp_path / "ok.yaml").write_text("{}")
    assert main(["inject", *(part.format(tmp_path) for part in arguments)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err
