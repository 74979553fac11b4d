"""Pods as users write them, and settings, for the tests of injection."""

from __future__ import annotations

import copy
from typing import Any

from spillway_operator.injection import InjectionConfig

CONFIG = InjectionConfig(
    image="spillway-sidecar:1", operator_url="https://operator:8083", operator_ca="-----CA-----\n", namespace="spillway-system"
)

POD: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "llama-0", "namespace": "ml", "labels": {"app": "llama", "spillway.dev/inject": "true"}},
    "spec": {
        "terminationGracePeriodSeconds": 30,
        "volumes": [{"name": "models", "emptyDir": {}}],
        "initContainers": [{"name": "download", "image": "loader"}],
        "containers": [
            {
                "name": "vllm",
                "image": "vllm",
                "args": ["--host", "$(SPILLWAY_ENGINE_HOST)"],
                "env": [{"name": "SPILLWAY_ENGINE_HOST", "value": "0.0.0.0"}, {"name": "HF_HOME", "value": "/models"}],
                "ports": [{"name": "http", "containerPort": 8000}],
                "startupProbe": {"tcpSocket": {"port": 8000}, "failureThreshold": 120},
                "livenessProbe": {"httpGet": {"path": "/ping", "port": 8000, "httpHeaders": [{"name": "a", "value": "b"}]}},
                "readinessProbe": {"httpGet": {"path": "/ready", "port": "http"}, "periodSeconds": 3},
                "resources": {"limits": {"nvidia.com/gpu": 1}},
            },
            {"name": "exporter", "image": "exporter", "ports": [{"containerPort": 9400}]},
        ],
    },
}


def pod(**spec: Any) -> dict[str, Any]:
    """The pod, with these fields of its spec in place of its own."""
    made = copy.deepcopy(POD)
    made["spec"].update(spec)
    return made


def noted(made: dict[str, Any], **notes: str) -> dict[str, Any]:
    """The pod with annotations: `engine_port="1"` is spillway.dev/engine-port."""
    made["metadata"]["annotations"] = {f"spillway.dev/{name.replace('_', '-')}": value for name, value in notes.items()}
    return made


def sidecar_of(made: dict[str, Any]) -> dict[str, Any]:
    """The container that was put in."""
    (found,) = [one for one in made["spec"]["initContainers"] if one["name"] == "spillway-proxy"]
    return found


def environment(container: dict[str, Any]) -> dict[str, str]:
    """A container's plain variables."""
    return {one["name"]: one["value"] for one in container["env"] if "value" in one}
