"""What an installation decides about its sidecars: plain data, from which a template hash is made."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Final

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
