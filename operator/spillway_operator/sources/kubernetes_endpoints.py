"""Endpoints of backends, from pods, EndpointSlices and Services. No I/O; one event loop.

A pod is an endpoint as soon as it has an address and until it is gone. One that is not ready, or was told to end, is *draining*: it
counts among all endpoints and is sent nothing, and its sidecar finds its backend in the snapshot before the engine is up.
Where a sidecar stands in the pod, the endpoint is the sidecar's port and its id is the proxy's (`namespace/pod`); where none does, it
is the engine's port, and nobody guards or measures it.

A Service's endpoints are those of its EndpointSlices at the port that the Service's number leads to. Where that is the port of a
sidecar, the endpoint is that sidecar's all the same.

Only what a change can touch is worked out again: backends of the changed object's namespace whose selector it meets.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from spillway_operator.api import ModelBackend
from spillway_operator.sources.kubernetes_objects import PodFacts, ServiceFacts, SliceFacts
from spillway_wire.snapshot import Endpoint

Place = tuple[str, str]  # namespace, name


def selects(backend: ModelBackend, pod: PodFacts) -> bool:
    """Whether a backend in pods means this pod."""
    pods = backend.spec.pods
    return (
        pods is not None
        and backend.metadata.namespace == pod.namespace
        and all(pod.labels.get(name) == value for name, value in pods.selector.match_labels.items())
    )


def pod_endpoint(pod: PodFacts, port: int) -> Endpoint | None:
    """The endpoint that a pod is; None for one without an address or that has ended."""
    if not pod.ip or pod.over:
        return None
    return Endpoint(
        id=pod.id,
        host=pod.ip,
        port=port if pod.inbound_port is None else pod.inbound_port,
        inbound=pod.inbound_port is not None,
        draining=pod.leaving or not pod.ready,
    )


def service_endpoints(
    port: int, service: ServiceFacts | None, slices: Iterable[SliceFacts], pods: Mapping[str, PodFacts]
) -> tuple[Endpoint, ...]:
    """The endpoints of a Service's port; `pods` are those of its namespace by name."""
    name = None if service is None else dict(service.ports).get(port)
    if service is not None and name is None:
        return ()
    listed = sorted(slices, key=lambda each: each.name)
    families = {each.family for each in listed if each.endpoints}
    family = next((each for each in ("IPv4", "IPv6", "FQDN") if each in families), None)
    found: dict[str, Endpoint] = {}
    for each in listed:
        if each.family != family:
            continue
        target = _target(each, name)
        for endpoint in each.endpoints if target is not None else ():
            pod = pods.get(endpoint.pod)
            inbound = pod is not None and pod.inbound_port == target
            one = Endpoint(
                id=pod.id if pod is not None and inbound else f"{each.namespace}/{endpoint.address}:{target}",
                host=endpoint.address,
                port=target or 0,
                inbound=inbound,
                draining=endpoint.leaving or not endpoint.ready,
            )
            known = found.get(one.id)  # an endpoint may stand in two slices for a moment
            if known is None or known.draining:
                found[one.id] = one
    return tuple(found[key] for key in sorted(found))


def _target(facts: SliceFacts, name: str | None) -> int | None:
    """The port of the slice; without knowing the Service's port by name, the only one there is."""
    if name is not None:
        return dict(facts.ports).get(name)
    return facts.ports[0][1] if len(facts.ports) == 1 else None


class EndpointBook:
    """Pods, slices, Services and backends as last seen; tells which backends are touched, and their endpoints."""

    def __init__(self) -> None:
        self._pods: dict[str, dict[str, PodFacts]] = {}
        self._slices: dict[Place, dict[str, SliceFacts]] = {}  # by Service
        self._service_of: dict[Place, str] = {}  # of each slice
        self._services: dict[Place, ServiceFacts] = {}
        self._backends: dict[str, dict[str, ModelBackend]] = {}
        self._touched: set[Place] = set()

    def set_backend(self, place: Place, backend: ModelBackend | None) -> None:
        """A backend is, or is no more."""
        backends = self._backends.setdefault(place[0], {})
        before = backends.get(place[1])
        if backend is None:
            backends.pop(place[1], None)
        else:
            backends[place[1]] = backend
        if (
            before is None
            or backend is None
            or (before.spec.pods, before.spec.service) != (backend.spec.pods, backend.spec.service)
        ):
            self._touched.add(place)

    def set_pod(self, place: Place, pod: PodFacts | None) -> None:
        """A pod is, or is gone."""
        pods = self._pods.setdefault(place[0], {})
        before = pods.get(place[1])
        if before == pod:
            return
        if pod is None:
            pods.pop(place[1], None)
        else:
            pods[place[1]] = pod
        for name, backend in self._backends.get(place[0], {}).items():
            if backend.spec.service is not None or any(each is not None and selects(backend, each) for each in (before, pod)):
                self._touched.add((place[0], name))

    def pod(self, namespace: str, name: str) -> PodFacts | None:
        """The pod as last seen."""
        return self._pods.get(namespace, {}).get(name)

    def set_slice(self, place: Place, facts: SliceFacts | None) -> None:
        """An EndpointSlice is, or is gone."""
        for service in {self._service_of.pop(place, ""), "" if facts is None else facts.service} - {""}:
            slices = self._slices.setdefault((place[0], service), {})
            if facts is not None and facts.service == service:
                slices[place[1]] = facts
                self._service_of[place] = service
            else:
                slices.pop(place[1], None)
            if not slices:
                del self._slices[place[0], service]
            self._touch_service(place[0], service)

    def set_service(self, place: Place, facts: ServiceFacts | None) -> None:
        """A Service is, or is gone."""
        if self._services.get(place) == facts:
            return
        if facts is None:
            del self._services[place]
        else:
            self._services[place] = facts
        self._touch_service(*place)

    def _touch_service(self, namespace: str, service: str) -> None:
        for name, backend in self._backends.get(namespace, {}).items():
            if backend.spec.service is not None and backend.spec.service.name == service:
                self._touched.add((namespace, name))

    def take_touched(self) -> set[Place]:
        """Backends whose endpoints may differ since the last call."""
        touched, self._touched = self._touched, set()
        return touched

    def endpoints(self, place: Place) -> tuple[Endpoint, ...] | None:
        """The endpoints of a backend; None where the source has nothing to say about it (it is gone, or outside)."""
        backend = self._backends.get(place[0], {}).get(place[1])
        if backend is None or (backend.spec.pods is None and backend.spec.service is None):
            return None
        pods = self._pods.get(place[0], {})
        if backend.spec.pods is not None:
            port = backend.spec.pods.port
            made = (pod_endpoint(pod, port) for pod in pods.values() if selects(backend, pod))
            return tuple(sorted((each for each in made if each is not None), key=lambda each: each.id))
        service = backend.spec.service
        if service is None:
            return None
        at = (place[0], service.name)
        return service_endpoints(service.port, self._services.get(at), self._slices.get(at, {}).values(), pods)

    def info(self) -> dict[str, Any]:
        """Sizes."""
        return {
            "pods": sum(len(pods) for pods in self._pods.values()),
            "slices": len(self._service_of),
            "services": len(self._services),
            "backends": sum(len(backends) for backends in self._backends.values()),
        }
