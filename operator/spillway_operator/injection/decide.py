"""Whether a pod gets a sidecar, and before which port of which container.

Injection is asked for (`spillway.dev/inject: "true"`) and never guessed. What it cannot do safely it leaves alone and says
so: a pod that is admitted as it was and a warning at `kubectl apply` beat a pod that does not start.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from spillway_operator.injection.config import BackendPods, InjectionConfig
from spillway_operator.injection.names import (
    ANNOTATION_ENGINE_CONTAINER,
    ANNOTATION_ENGINE_PORT,
    ANNOTATION_HASH,
    CONTAINER,
    LABEL_INJECT,
    SYSTEM_NAMESPACES,
)
from spillway_operator.injection.pods import (
    Pod,
    annotations_of,
    containers,
    inbound_port,
    labels_of,
    matches,
    ports,
    sidecars,
    spec_of,
)


class Outcome(enum.StrEnum):
    """What becomes of a pod; a metric's label."""

    INJECTED = "injected"
    NOT_ASKED = "not_asked"
    REFUSED = "refused"  # by the pod's label
    EXCLUDED_NAMESPACE = "excluded_namespace"
    HAS_SIDECAR = "has_sidecar"
    HOST_NETWORK = "host_network"
    NOT_LINUX = "not_linux"
    NO_CONTAINER = "no_container"
    NO_PORT = "no_port"
    PORT_TAKEN = "port_taken"


@dataclass(frozen=True, slots=True)
class Engine:
    """The container that serves the model, by its place, and the port on which it does."""

    index: int
    port: int


@dataclass(frozen=True, slots=True)
class Decision:
    """`engine` is there where `outcome` is INJECTED. `warning` is for who applies the pod; empty where nothing is amiss."""

    outcome: Outcome
    engine: Engine | None = None
    warning: str = ""


def decide(
    pod: Pod, namespace: str, config: InjectionConfig, backends: Sequence[BackendPods] = (), *, by_hand: bool = False
) -> Decision:
    """What to do with a pod that is made in `namespace`. `by_hand`: a person asked for this pod, so its label need not."""
    asked = labels_of(pod).get(LABEL_INJECT)
    if namespace in SYSTEM_NAMESPACES or (namespace and namespace == config.namespace):
        return Decision(Outcome.EXCLUDED_NAMESPACE)
    if asked == "false" or (asked != "true" and not by_hand):
        return Decision(Outcome.REFUSED if asked == "false" else Outcome.NOT_ASKED)
    if inbound_port(pod) is not None and not _may_renew(pod, config, by_hand=by_hand):
        return Decision(Outcome.HAS_SIDECAR)
    if spec_of(pod).get("hostNetwork") is True:
        return _not(Outcome.HOST_NETWORK, "it is on its node's network, where loopback is shared: remove hostNetwork")
    system = spec_of(pod).get("os")
    if isinstance(system, dict) and system.get("name", "linux") != "linux":
        return _not(Outcome.NOT_LINUX, "the sidecar's image is for Linux")
    return _engine(pod, config, backends)


def _may_renew(pod: Pod, config: InjectionConfig, *, by_hand: bool) -> bool:
    """A sidecar of ours is made anew from the same template (which changes nothing), or from another one by hand."""
    ours = any(container.get("name") == CONTAINER for container in sidecars(pod))
    return ours and (by_hand or annotations_of(pod).get(ANNOTATION_HASH) == config.hash)


def _engine(pod: Pod, config: InjectionConfig, backends: Sequence[BackendPods]) -> Decision:
    served = containers(pod)
    name = annotations_of(pod).get(ANNOTATION_ENGINE_CONTAINER)
    if not served or (name is not None and all(container.get("name") != name for container in served)):
        return _not(Outcome.NO_CONTAINER, f"it has no container {name}" if name else "it has no containers")
    index = next((place for place, container in enumerate(served) if container.get("name") == name), None)
    port = _port(pod, backends, ports(served[index or 0]))
    if port is None:
        return _not(
            Outcome.NO_PORT, f"the engine's port is not known: declare a containerPort, or annotate {ANNOTATION_ENGINE_PORT}"
        )
    if index is None:
        index = next((place for place, container in enumerate(served) if port in ports(container)), 0)
    ours = {config.inbound_port, config.route_port, config.admin_port}
    taken = sorted(ours & {port, *(number for container in served for number in ports(container))})
    if taken:
        return _not(Outcome.PORT_TAKEN, f"the sidecar listens on port {taken[0]}, which a container of the pod has too")
    return Decision(Outcome.INJECTED, Engine(index, port))


def _port(pod: Pod, backends: Sequence[BackendPods], declared: list[int]) -> int | None:
    """By annotation, else what the backends that select the pod agree on, else the only port that the container declares."""
    annotated = annotations_of(pod).get(ANNOTATION_ENGINE_PORT)
    if annotated is not None:
        return (
            int(annotated)
            if annotated.isascii() and annotated.isdecimal() and len(annotated) <= 5 and 0 < int(annotated) < 65536
            else None
        )
    selecting = {backend.port for backend in backends if matches(backend.match_labels, pod)}
    if selecting:
        return selecting.pop() if len(selecting) == 1 else None
    return declared[0] if len(declared) == 1 else None


def _not(outcome: Outcome, why: str) -> Decision:
    return Decision(outcome, warning=f"spillway: this pod gets no sidecar: {why}")
