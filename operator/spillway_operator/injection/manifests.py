"""Finds the pod template in what users write: a Pod, or a workload that makes pods, or a List of them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from spillway_operator.injection.config import InjectionConfig
from spillway_operator.injection.decide import Decision, decide
from spillway_operator.injection.inject import injected

# Where a kind keeps its pod. Other kinds with `spec.template.spec.containers` are taken for workloads too.
TEMPLATES: Final[Mapping[str, tuple[str, ...]]] = {
    "Pod": (),
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
    "LeaderWorkerSet": ("spec", "leaderWorkerTemplate", "leaderTemplate"),
}
_WORKLOAD: Final = ("spec", "template")


@dataclass(frozen=True, slots=True)
class Look:
    """What was decided about one object. `decision` is None for what makes no pods."""

    title: str
    decision: Decision | None


@dataclass(frozen=True, slots=True)
class Result:
    """A document with sidecars in its pods, and what was decided about each object in it."""

    document: Any
    looks: tuple[Look, ...]


def inject_manifest(document: Any, config: InjectionConfig, namespace: str = "") -> Result:
    """Puts the sidecar in where pods are made. `namespace` is for objects that name none. The document itself is left as it is."""
    if not isinstance(document, Mapping):
        return Result(document, ())
    if document.get("kind") == "List" and isinstance(document.get("items"), list):
        inner = [inject_manifest(item, config, namespace) for item in document["items"]]
        items = [result.document for result in inner]
        return Result({**document, "items": items}, tuple(look for result in inner for look in result.looks))
    metadata = document.get("metadata")
    about: Mapping[str, Any] = metadata if isinstance(metadata, Mapping) else {}
    title = f"{document.get('kind', '?')}/{about.get('name') or about.get('generateName') or '?'}"
    path = TEMPLATES.get(str(document.get("kind")), _WORKLOAD)
    template = _at(document, path)
    if template is None:
        return Result(document, (Look(title, None),))
    decision = decide(template, str(about.get("namespace") or namespace), config, by_hand=True)
    if decision.engine is None:
        return Result(document, (Look(title, decision),))
    return Result(_with(document, path, injected(template, decision.engine, config)), (Look(title, decision),))


def _at(document: Any, path: tuple[str, ...]) -> Mapping[str, Any] | None:
    for name in path:
        document = document.get(name) if isinstance(document, Mapping) else None
    spec = document.get("spec") if isinstance(document, Mapping) else None
    return document if isinstance(spec, Mapping) and isinstance(spec.get("containers"), list) else None


def _with(document: Mapping[str, Any], path: tuple[str, ...], template: Any) -> Any:
    if not path:
        return template
    result = copy.copy(dict(document))
    result[path[0]] = _with(document[path[0]], path[1:], template)
    return result
