"""What an installation decides about its sidecars: plain data, from which a template hash is made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import Any, Final

from spillway_operator.injection.names import LOOPBACK
from spillway_wire.names import TOKEN_AUDIENCE

# Goes up with every change of what injection writes for the same settings.
TEMPLATE_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Resources:
    """Kubernetes quantities; an empty one is left out."""

    cpu_request: str = "100m"
    memory_request: str = "64Mi"
    cpu_limit: str = ""  # a throttled proxy adds latency to a GPU that waits
    memory_limit: str = "256Mi"


@dataclass(frozen=True, slots=True)
class InjectionConfig:
    """One installation's sidecars."""

    image: str
    operator_url: str  # e.g. https://spillway-operator.spillway-system.svc:8083
    image_pull_policy: str = "IfNotPresent"
    image_pull_secrets: tuple[str, ...] = ()
    operator_ca: str = ""  # PEM; empty trusts what the image trusts
    namespace: str = ""  # our own, where nothing is injected
    listen_host: str = "0.0.0.0"  # the pod's address is not known when the pod is made
    # Away from what engines use: 8000 vLLM, 8080 llama.cpp and TGI, 30000 SGLang.
    inbound_port: int = 19080
    route_port: int = 19081
    admin_port: int = 19082
    engine_host: str = LOOPBACK
    run_as_user: int = 65532  # has a line in the image's passwd
    drain_seconds: int = 30  # most generations end within it; a longer grace period of the pod is left as it is
    grace_margin_seconds: int = 15  # after the drain: for the engine to end, then the proxy
    token_audience: str = TOKEN_AUDIENCE
    token_expiration_seconds: int = 3600  # the kubelet renews it at four fifths
    log_level: str = "INFO"
    resources: Resources = field(default_factory=Resources)
    env: tuple[tuple[str, str], ...] = ()  # further variables of the proxy, e.g. SPILLWAY_DCGM_URL

    @property
    def hash(self) -> str:
        """Same settings and template, same hash: tells which pods have an old sidecar."""
        text = json.dumps([TEMPLATE_VERSION, asdict(self)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class BackendPods:
    """A backend with pods in one namespace: its name, labels and the engine's port."""

    name: str
    match_labels: tuple[tuple[str, str], ...]
    port: int


def from_document(document: Any) -> InjectionConfig:
    """The settings from JSON data with the fields of `InjectionConfig` in camelCase, as the chart writes them.

    Raises `ValueError` that names what is missing, unknown or of another type.
    """
    values = _values(document, InjectionConfig, "injection settings")
    if "resources" in values:
        values["resources"] = Resources(**_values(values["resources"], Resources, "resources"))
    if "env" in values:
        env = values["env"]
        if not isinstance(env, Mapping) or not all(isinstance(each, str) for pair in env.items() for each in pair):
            raise ValueError("env: texts by name are expected")
        values["env"] = tuple(env.items())
    if "image_pull_secrets" in values:
        values["image_pull_secrets"] = tuple(map(str, values["image_pull_secrets"]))
    return InjectionConfig(**values)


def _values(document: Any, made: type[InjectionConfig | Resources], title: str) -> dict[str, Any]:
    if not isinstance(document, Mapping):
        raise ValueError(f"{title}: an object is expected")  # noqa: TRY004 - one error for whatever a file holds
    known = {_camel(each.name): each for each in fields(made)}
    unknown = sorted(set(document) - set(known))
    if unknown:
        raise ValueError(f"{title}: unknown: {', '.join(unknown)}; known are {', '.join(known)}")
    missing = [name for name, each in known.items() if each.default is MISSING and each.default_factory is MISSING]
    if lacking := [name for name in missing if not document.get(name)]:
        raise ValueError(f"{title}: missing: {', '.join(lacking)}")
    for name, value in document.items():
        kind = {"int": int, "str": str}.get(str(known[name].type))
        if kind is not None and type(value) is not kind:
            raise ValueError(f"{title}: {name}: {'a whole number' if kind is int else 'a text'} is expected")
    return {known[name].name: value for name, value in document.items()}


def _camel(name: str) -> str:
    if name == "operator_ca":
        return "operatorCA"
    if name == "operator_url":
        return "operatorURL"
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)
