"""Pod in, pod with the sidecar out. Putting it in twice is putting it in once.

Beside the sidecar and its volumes a pod gets: the engine's address as `SPILLWAY_ENGINE_HOST` and `SPILLWAY_ENGINE_PORT` in the
engine's container, probes that ask the sidecar, a grace period long enough for the drain, and for the engine a `preStop`
hook. The hook is what keeps the engine alive while its requests finish: on deletion the kubelet signals the engine
at once and the sidecar last, so the engine's hook waits at the sidecar's `/drained` until nothing is under way.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from typing import Any, Final

from spillway_operator.injection import template
from spillway_operator.injection.config import InjectionConfig
from spillway_operator.injection.decide import Engine
from spillway_operator.injection.names import (
    ANNOTATION_ENGINE_HEALTH,
    ANNOTATION_HASH,
    ANNOTATION_OPERATOR_CA,
    ANNOTATION_SECRETS,
    CONTAINER,
    ENV_ENGINE_HOST,
    ENV_ENGINE_PORT,
    LABEL_SIDECAR,
    LABEL_SIDECAR_VALUE,
    VOLUME_OPERATOR,
    VOLUME_SECRETS,
    VOLUME_STATE,
)
from spillway_operator.injection.pods import Pod, annotations_of, inbound_port
from spillway_operator.injection.probes import health_path, rewritten

DRAINED_PATH: Final = "/drained"
DEFAULT_GRACE_SECONDS: Final = 30  # Kubernetes' own
MAX_SECRETS: Final = 16

_SECRET_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")


def injected(pod: Pod, engine: Engine, config: InjectionConfig) -> dict[str, Any]:
    """The pod with the sidecar before `engine`, which `decide` found. The pod that came in is left as it is."""
    result: dict[str, Any] = copy.deepcopy(dict(pod))
    spec = result["spec"]
    served = spec["containers"][engine.index]
    health = annotations_of(pod).get(ANNOTATION_ENGINE_HEALTH) or health_path(served, engine.port)
    secrets = _secrets(annotations_of(pod).get(ANNOTATION_SECRETS, ""))

    _probes(spec, {engine.port, inbound_port(pod) or engine.port}, config)
    _engine(served, engine, config)
    others = [one for one in spec.get("initContainers") or [] if one.get("name") != CONTAINER]
    guaranteed = template.is_guaranteed([*others, *spec["containers"]])
    sidecar = template.container(config, engine.port, health=health, secrets=secrets, guaranteed=guaranteed)
    spec["initContainers"] = [*others, sidecar]
    spec["volumes"] = [*(one for one in spec.get("volumes") or [] if not _ours(one)), *template.volumes(config, secrets)]
    least = config.drain_seconds + config.grace_margin_seconds
    grace = spec.get("terminationGracePeriodSeconds")
    spec["terminationGracePeriodSeconds"] = max(least, DEFAULT_GRACE_SECONDS if grace is None else grace)
    _pull_secrets(spec, config.image_pull_secrets)
    _mark(result, health, config)
    return result


def _engine(container: dict[str, Any], engine: Engine, config: InjectionConfig) -> None:
    ours = {ENV_ENGINE_HOST: config.engine_host, ENV_ENGINE_PORT: str(engine.port)}
    given = container.get("env") or []
    # First, so that the values of those after them may refer to these.
    container["env"] = [
        *({"name": name, "value": value} for name, value in ours.items()),
        *(one for one in given if one.get("name") not in ours),
    ]
    lifecycle = container.setdefault("lifecycle", {})
    if "preStop" not in lifecycle or _is_our_hook(lifecycle["preStop"]):
        lifecycle["preStop"] = {"httpGet": {"path": DRAINED_PATH, "port": config.admin_port, "scheme": "HTTP"}}


def _is_our_hook(hook: Any) -> bool:
    return isinstance(hook, dict) and (hook.get("httpGet") or {}).get("path") == DRAINED_PATH


def _probes(spec: dict[str, Any], targets: set[int], config: InjectionConfig) -> None:
    for container in spec["containers"]:
        container.update(rewritten(container, targets, config.inbound_port))


def _pull_secrets(spec: dict[str, Any], names: Sequence[str]) -> None:
    given = spec.get("imagePullSecrets") or []
    known = {one.get("name") for one in given}
    wanted = [{"name": name} for name in names if name not in known]
    if wanted:
        spec["imagePullSecrets"] = [*given, *wanted]


def _mark(pod: dict[str, Any], health: str | None, config: InjectionConfig) -> None:
    metadata = pod.setdefault("metadata", {})
    metadata["labels"] = {**(metadata.get("labels") or {}), LABEL_SIDECAR: LABEL_SIDECAR_VALUE}
    notes = {**(metadata.get("annotations") or {}), ANNOTATION_HASH: config.hash}
    if health is not None:
        notes[ANNOTATION_ENGINE_HEALTH] = health
    if config.operator_ca:
        notes[ANNOTATION_OPERATOR_CA] = config.operator_ca
    metadata["annotations"] = notes


def _ours(volume: dict[str, Any]) -> bool:
    name = str(volume.get("name", ""))
    return name in {VOLUME_OPERATOR, VOLUME_STATE} or re.fullmatch(rf"{VOLUME_SECRETS}-[0-9]+", name) is not None


def _secrets(text: str) -> tuple[str, ...]:
    """Names of Secrets from the annotation; what is no such name is left out."""
    names = dict.fromkeys(part.strip() for part in text.split(","))
    return tuple(name for name in names if _SECRET_NAME.fullmatch(name))[:MAX_SECRETS]
