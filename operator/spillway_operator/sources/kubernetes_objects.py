"""What is read off objects as the API server gives them: small facts, and nothing else is kept. Pure; a strange shape raises nothing.

Pods and EndpointSlices are kept in full numbers, so each becomes the few fields that endpoints are made of. Our own kinds become
store entries: the API server's schema has refused most of what is wrong with them, and what passes it and fails our models all
the same (an object from a newer release, a rule that an older CRD does not have) is a problem of the entry, whose last good version
stays.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import ValidationError

from spillway_operator.api import API_VERSION, BackendStatus, ModelBackend, ModelRoute, ObjectKey, RouteStatus
from spillway_operator.api.checker import faults
from spillway_operator.api.documents import Problem
from spillway_operator.api.rules import render
from spillway_operator.injection.pods import inbound_port
from spillway_operator.scaling import victims
from spillway_operator.store import BACKEND, ROUTE, Entry, Status

SERVICE_LABEL: Final = "kubernetes.io/service-name"
_LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"
_MODELS: Final[Mapping[str, type[ModelBackend | ModelRoute]]] = {BACKEND: ModelBackend, ROUTE: ModelRoute}
_STATUSES: Final[Mapping[str, type[BackendStatus | RouteStatus]]] = {BACKEND: BackendStatus, ROUTE: RouteStatus}

Raw = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class PodFacts:
    """A pod as a place that requests can go to."""

    namespace: str
    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    ip: str = ""
    inbound_port: int | None = None  # where its sidecar listens; None: it has none
    ready: bool = False
    leaving: bool = False  # it was told to end
    over: bool = False  # it has ended
    deletion_cost: int = 0  # what a ReplicaSet goes by when it takes pods away

    @property
    def id(self) -> str:
        """Of its endpoint and of its proxy."""
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class SliceEndpoint:
    """One address of an EndpointSlice."""

    address: str
    ready: bool
    leaving: bool
    pod: str  # name, empty where none is told


@dataclass(frozen=True, slots=True)
class SliceFacts:
    """An EndpointSlice."""

    namespace: str
    name: str
    service: str
    family: str  # IPv4, IPv6 or FQDN
    ports: tuple[tuple[str, int], ...] = ()  # by the name of the Service's port
    endpoints: tuple[SliceEndpoint, ...] = ()


@dataclass(frozen=True, slots=True)
class ServiceFacts:
    """A Service: the names of its ports by number."""

    namespace: str
    name: str
    ports: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True, slots=True)
class ObjectFacts:
    """One of our kinds: its entry, and what stands beside it on the API server."""

    entry: Entry
    status: Status | None


def uid_of(raw: Raw) -> str:
    """The object's uid."""
    return str(_mapping(raw.get("metadata")).get("uid") or "")


def place_of(raw: Raw) -> tuple[str, str]:
    """Namespace and name."""
    metadata = _mapping(raw.get("metadata"))
    return str(metadata.get("namespace") or ""), str(metadata.get("name") or "")


def pod_facts(raw: Raw) -> PodFacts:
    """Of a Pod."""
    metadata, status = _mapping(raw.get("metadata")), _mapping(raw.get("status"))
    namespace, name = place_of(raw)
    return PodFacts(
        namespace=namespace,
        name=name,
        labels=_texts(metadata.get("labels")),
        ip=str(status.get("podIP") or ""),
        inbound_port=inbound_port(raw),
        ready=any(each.get("type") == "Ready" and each.get("status") == "True" for each in _each(status.get("conditions"))),
        leaving=bool(metadata.get("deletionTimestamp")),
        over=status.get("phase") in {"Succeeded", "Failed"},
        deletion_cost=_whole(_mapping(metadata.get("annotations")).get(victims.ANNOTATION)),
    )


def slice_facts(raw: Raw) -> SliceFacts:
    """Of an EndpointSlice. A condition that is not there counts as the API says: ready, not terminating."""
    namespace, name = place_of(raw)
    labels = _texts(_mapping(raw.get("metadata")).get("labels"))
    endpoints = []
    for each in _each(raw.get("endpoints")):
        conditions, target = _mapping(each.get("conditions")), _mapping(each.get("targetRef"))
        leaving = conditions.get("terminating") is True
        addresses = each.get("addresses")
        if isinstance(addresses, list) and addresses:
            endpoints.append(
                SliceEndpoint(
                    address=str(addresses[0]),  # all of them are the same endpoint
                    ready=conditions.get("ready") is not False and not leaving,
                    leaving=leaving,
                    pod=str(target.get("name") or "") if target.get("kind") == "Pod" else "",
                )
            )
    return SliceFacts(
        namespace=namespace,
        name=name,
        service=labels.get(SERVICE_LABEL, ""),
        family=str(raw.get("addressType") or "IPv4"),
        ports=tuple(
            (str(port.get("name") or ""), port["port"])
            for port in _each(raw.get("ports"))
            if isinstance(port.get("port"), int) and port.get("protocol", "TCP") == "TCP"
        ),
        endpoints=tuple(endpoints),
    )


def service_facts(raw: Raw) -> ServiceFacts:
    """Of a Service."""
    namespace, name = place_of(raw)
    ports = _each(_mapping(raw.get("spec")).get("ports"))
    return ServiceFacts(
        namespace=namespace,
        name=name,
        ports=tuple((port["port"], str(port.get("name") or "")) for port in ports if isinstance(port.get("port"), int)),
    )


def object_facts(kind: str, raw: Raw, before: Entry | None) -> ObjectFacts:
    """Of a ModelBackend or ModelRoute; `before` has its last good version."""
    namespace, name = place_of(raw)
    key = ObjectKey(kind, namespace, name)
    created = str(_mapping(raw.get("metadata")).get("creationTimestamp") or "")
    document = {
        "apiVersion": raw.get("apiVersion") or API_VERSION,
        "kind": kind,
        "metadata": _metadata(raw),
        **{part: raw[part] for part in ("spec",) if part in raw},
    }
    good, problems = _loaded(kind, key, document)
    standing = before.object if before is not None else None
    entry = Entry(key=key, object=good or standing, age=(created, "", 0), origin=str(key), problems=problems)
    return ObjectFacts(entry=entry, status=_status(kind, raw))


def _loaded(kind: str, key: ObjectKey, document: dict[str, Any]) -> tuple[ModelBackend | ModelRoute | None, tuple[Problem, ...]]:
    try:
        return _MODELS[kind].model_validate(document), ()
    except ValidationError as error:
        told = faults(kind, document)
        problems = [Problem("", 0, render(fault.location), fault.message, key) for fault in told] or [
            Problem("", 0, render(tuple(each["loc"])), each["msg"], key) for each in error.errors()
        ]
        return None, tuple(problems)


def _metadata(raw: Raw) -> dict[str, Any]:
    """What is ours to know. Without the resource version, which every write of a status changes."""
    metadata = _mapping(raw.get("metadata"))
    kept = {
        name: metadata[name]
        for name in ("name", "namespace", "labels", "generation", "uid", "creationTimestamp")
        if metadata.get(name)
    }
    annotations = {name: text for name, text in _texts(metadata.get("annotations")).items() if name != _LAST_APPLIED}
    return {**kept, **({"annotations": annotations} if annotations else {})}


def _status(kind: str, raw: Raw) -> Status | None:
    """The status that stands on the API server; None where there is none, or none that we could have written."""
    status = raw.get("status")
    if not isinstance(status, Mapping) or not status:
        return None
    try:
        return _STATUSES[kind].model_validate(status)
    except ValidationError:
        return None


def _whole(text: Any) -> int:
    try:
        return int(text)
    except (TypeError, ValueError):
        return 0


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _texts(value: Any) -> dict[str, str]:
    return {str(name): str(text) for name, text in _mapping(value).items()}


def _each(value: Any) -> Iterator[Mapping[str, Any]]:
    return (one for one in value if isinstance(one, Mapping)) if isinstance(value, list) else iter(())
