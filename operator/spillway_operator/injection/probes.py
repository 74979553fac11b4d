"""Probes that would hit the engine from outside go to the sidecar's `/health`, which answers for the engine.

The kubelet asks at the pod's address, where an engine on loopback does not listen. The sidecar asks the engine itself and
tells the result: 200 while the engine is up and the pod is not leaving. Thresholds and periods stay the user's. Probes that
run a command in the container reach loopback themselves and stay; so do those for another port.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from spillway_operator.injection.pods import Container, port_named

KINDS: Final = ("startupProbe", "livenessProbe", "readinessProbe")
HANDLERS: Final = ("httpGet", "tcpSocket", "grpc")
HEALTH_PATH: Final = "/health"


def rewritten(container: Container, targets: Collection[int], inbound_port: int) -> dict[str, Any]:
    """The container's probes that ask one of the ports `targets` (the engine's, a former sidecar's), as they are to be."""
    result = {}
    for kind in KINDS:
        probe = container.get(kind)
        if isinstance(probe, Mapping) and _handler(container, probe, targets) is not None:
            kept = {key: value for key, value in probe.items() if key not in HANDLERS}
            result[kind] = {**kept, "httpGet": {"path": HEALTH_PATH, "port": inbound_port, "scheme": "HTTP"}}
    return result


def health_path(container: Container, engine_port: int) -> str | None:
    """The path at which the user's own probes ask the engine; None: they do not, by HTTP."""
    for kind in reversed(KINDS):
        probe = container.get(kind)
        if isinstance(probe, Mapping) and _handler(container, probe, (engine_port,)) == "httpGet":
            path = probe["httpGet"].get("path", "/")
            return path if isinstance(path, str) and path.startswith("/") else None
    return None


def _handler(container: Container, probe: Mapping[str, Any], targets: Collection[int]) -> str | None:
    for name in HANDLERS:
        handler = probe.get(name)
        if isinstance(handler, Mapping) and not handler.get("host") and _number(container, handler.get("port")) in targets:
            return name
    return None


def _number(container: Container, port: Any) -> int | None:
    if isinstance(port, str):
        return int(port) if port.isdecimal() else port_named(container, port)
    return port if isinstance(port, int) else None
