"""What injection adds to a pod: one native sidecar and its volumes.

The container runs `python -m spillway_sidecar` with its settings as `SPILLWAY_*` variables, which an older image ignores where
it does not know them. It is restricted as Pod Security asks, starts before the engine (its start-up probe asks nothing
but the process, so that an engine starts also while the operator is away), and is ready when the engine is.

The token that shows the operator which pod speaks and the operator's CA are one projected volume. The CA travels in an
annotation of the pod and reaches the file through the downward API: no ConfigMap has to be kept in users' namespaces, for
which the operator would need to write everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from spillway_operator.injection.config import InjectionConfig
from spillway_operator.injection.names import (
    ANNOTATION_OPERATOR_CA,
    CONTAINER,
    MOUNT_OPERATOR,
    MOUNT_SECRETS,
    MOUNT_STATE,
    PORT_ADMIN,
    PORT_INBOUND,
    PORT_ROUTE,
    VOLUME_OPERATOR,
    VOLUME_SECRETS,
    VOLUME_STATE,
)
from spillway_operator.injection.probes import HEALTH_PATH


def container(
    config: InjectionConfig, engine_port: int, *, health: str | None, secrets: Sequence[str], guaranteed: bool
) -> dict[str, Any]:
    """The sidecar. `health`: path at which the engine is asked before a snapshot says; `guaranteed`: the pod's QoS class is."""
    return {
        "name": CONTAINER,
        "image": config.image,
        "imagePullPolicy": config.image_pull_policy,
        "restartPolicy": "Always",
        "args": ["--role", "sidecar"],
        "env": _environment(config, engine_port, health, secrets),
        "ports": [
            {"name": name, "containerPort": number, "protocol": "TCP"}
            for name, number in (
                (PORT_INBOUND, config.inbound_port),
                (PORT_ROUTE, config.route_port),
                (PORT_ADMIN, config.admin_port),
            )
        ],
        "startupProbe": _probe("/healthz", config.admin_port, period=1, failures=60),
        "livenessProbe": _probe("/healthz", config.admin_port, period=10, failures=3),
        "readinessProbe": _probe(HEALTH_PATH, config.inbound_port, period=2, failures=2),
        # Runs when the pod is deleted, beside the engine's own hook; SIGTERM comes to a native sidecar only after the engine ended.
        "lifecycle": {"preStop": {"exec": {"command": ["python", "-m", "spillway_sidecar.leave"]}}},
        "resources": _resources(config, guaranteed=guaranteed),
        "securityContext": security_context(config.run_as_user),
        "volumeMounts": [
            {"name": VOLUME_OPERATOR, "mountPath": MOUNT_OPERATOR, "readOnly": True},
            {"name": VOLUME_STATE, "mountPath": MOUNT_STATE},
            *(
                {"name": f"{VOLUME_SECRETS}-{place}", "mountPath": f"{MOUNT_SECRETS}/{name}", "readOnly": True}
                for place, name in enumerate(secrets)
            ),
        ],
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }


def volumes(config: InjectionConfig, secrets: Sequence[str]) -> list[dict[str, Any]]:
    """The sidecar's volumes. A Secret that is not there yet holds nothing up: the proxy reads it when it comes."""
    sources: list[dict[str, Any]] = [
        {
            "serviceAccountToken": {
                "path": "token",
                "audience": config.token_audience,
                "expirationSeconds": config.token_expiration_seconds,
            }
        }
    ]
    if config.operator_ca:
        reference = {"apiVersion": "v1", "fieldPath": f"metadata.annotations['{ANNOTATION_OPERATOR_CA}']"}
        sources.append({"downwardAPI": {"items": [{"path": "ca.crt", "fieldRef": reference}]}})
    result: list[dict[str, Any]] = [
        {"name": VOLUME_OPERATOR, "projected": {"sources": sources, "defaultMode": 0o444}},
        {"name": VOLUME_STATE, "emptyDir": {"sizeLimit": "64Mi"}},
    ]
    result += [
        {"name": f"{VOLUME_SECRETS}-{place}", "secret": {"secretName": name, "optional": True, "defaultMode": 0o444}}
        for place, name in enumerate(secrets)
    ]
    return result


def security_context(user: int) -> dict[str, Any]:
    """What Pod Security's level `restricted` asks of a container, and a read-only root."""
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "privileged": False,
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "runAsUser": user,
        "runAsGroup": user,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def is_guaranteed(containers: Sequence[Mapping[str, Any]]) -> bool:
    """Whether these containers make a pod of QoS class Guaranteed: each has limits for CPU and memory, and requests no less."""
    return bool(containers) and all(_has_equal_limits(one.get("resources")) for one in containers)


def _has_equal_limits(resources: Any) -> bool:
    limits = resources.get("limits") if isinstance(resources, Mapping) else None
    if not isinstance(limits, Mapping):
        return False
    requests = resources.get("requests") or {}
    return all(name in limits and requests.get(name, limits[name]) == limits[name] for name in ("cpu", "memory"))


def _resources(config: InjectionConfig, *, guaranteed: bool) -> dict[str, Any]:
    """In a Guaranteed pod the sidecar has limits as well, equal to its requests, lest the engine lose its exclusive CPUs."""
    given = config.resources
    if guaranteed:
        equal = {"cpu": given.cpu_limit or given.cpu_request, "memory": given.memory_limit or given.memory_request}
        if all(equal.values()):
            return {"requests": equal, "limits": dict(equal)}
    requests = {"cpu": given.cpu_request, "memory": given.memory_request}
    limits = {"cpu": given.cpu_limit, "memory": given.memory_limit}
    parts = {"requests": requests, "limits": limits}
    filled = {part: {name: text for name, text in values.items() if text} for part, values in parts.items()}
    return {part: values for part, values in filled.items() if values}


def _environment(config: InjectionConfig, engine_port: int, health: str | None, secrets: Sequence[str]) -> list[dict[str, Any]]:
    values: dict[str, str] = {
        "SPILLWAY_NODE_ID": "$(SPILLWAY_NAMESPACE)/$(SPILLWAY_POD)",
        "SPILLWAY_OPERATOR": config.operator_url,
        "SPILLWAY_OPERATOR_TOKEN_FILE": f"{MOUNT_OPERATOR}/token",
        "SPILLWAY_HOST": config.listen_host,
        "SPILLWAY_INBOUND_PORT": str(config.inbound_port),
        "SPILLWAY_PORT": str(config.route_port),
        "SPILLWAY_ADMIN_HOST": config.listen_host,
        "SPILLWAY_ADMIN_PORT": str(config.admin_port),
        "SPILLWAY_ENGINE": f"http://{config.engine_host}:{engine_port}",
        "SPILLWAY_STATE_DIR": MOUNT_STATE,
        "SPILLWAY_DRAIN_SECONDS": str(config.drain_seconds),
        "SPILLWAY_LOG_LEVEL": config.log_level,
    }
    if config.operator_ca:
        values["SPILLWAY_OPERATOR_CA_FILE"] = f"{MOUNT_OPERATOR}/ca.crt"
    if health is not None:
        values["SPILLWAY_ENGINE_HEALTH"] = health.replace("$(", "$$(")  # the kubelet expands $(NAME) in values
    if secrets:
        values["SPILLWAY_SECRETS_DIR"] = MOUNT_SECRETS
    values.update(config.env)
    return [
        _field("SPILLWAY_NAMESPACE", "metadata.namespace"),
        _field("SPILLWAY_POD", "metadata.name"),
        *({"name": name, "value": value} for name, value in values.items()),
    ]


def _field(name: str, path: str) -> dict[str, Any]:
    return {"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}}


def _probe(path: str, port: int, *, period: int, failures: int) -> dict[str, Any]:
    get = {"path": path, "port": port, "scheme": "HTTP"}
    return {"httpGet": get, "periodSeconds": period, "timeoutSeconds": 1, "failureThreshold": failures}
