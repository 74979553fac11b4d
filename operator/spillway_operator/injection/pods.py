"""Reads pods: plain dictionaries as the API gives them. Whatever shape they have, nothing here raises for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from spillway_operator.injection.names import PORT_INBOUND

Pod = Mapping[str, Any]
Container = Mapping[str, Any]


def labels_of(pod: Pod) -> Mapping[str, str]:
    """The pod's labels."""
    return _mapping(_mapping(pod.get("metadata")).get("labels"))


def annotations_of(pod: Pod) -> Mapping[str, str]:
    """The pod's annotations."""
    return _mapping(_mapping(pod.get("metadata")).get("annotations"))


def spec_of(pod: Pod) -> Mapping[str, Any]:
    """The pod's spec."""
    return _mapping(pod.get("spec"))


def containers(pod: Pod) -> list[Container]:
    """Containers that run for the pod's life, sidecars apart."""
    return list(_each(spec_of(pod).get("containers")))


def sidecars(pod: Pod) -> list[Container]:
    """Native sidecars: init containers that are restarted always."""
    return [one for one in _each(spec_of(pod).get("initContainers")) if one.get("restartPolicy") == "Always"]


def port_named(container: Container, name: str) -> int | None:
    """The number of a container's TCP port of that name."""
    for port in _each(container.get("ports")):
        number = port.get("containerPort")
        if port.get("name") == name and port.get("protocol", "TCP") == "TCP" and isinstance(number, int):
            return number
    return None


def ports(container: Container) -> list[int]:
    """The TCP ports that a container declares."""
    return [
        port["containerPort"]
        for port in _each(container.get("ports"))
        if isinstance(port.get("containerPort"), int) and port.get("protocol", "TCP") == "TCP"
    ]


def inbound_port(pod: Pod) -> int | None:
    """Where the pod's sidecar takes requests for its engine; None: there is no sidecar.

    It is the port named `spillway`, of a native sidecar or of an ordinary container that was put there by hand.
    """
    for container in (*sidecars(pod), *containers(pod)):
        number = port_named(container, PORT_INBOUND)
        if number is not None:
            return number
    return None


def lacks_sidecar(pod: Pod) -> bool:
    """Whether a pod that a backend selects has nothing before its engine: no admission, no load, and no queue there."""
    return inbound_port(pod) is None


def matches(match_labels: Sequence[tuple[str, str]], pod: Pod) -> bool:
    """Whether the pod has all of these labels, and there are any."""
    found = labels_of(pod)
    return bool(match_labels) and all(found.get(key) == value for key, value in match_labels)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _each(value: Any) -> Iterator[Mapping[str, Any]]:
    return (one for one in value if isinstance(one, Mapping)) if isinstance(value, list) else iter(())
