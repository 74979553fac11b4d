"""From one snapshot to the next, or the reasons why not. Pure.

The *result* is checked, not the change: after an update every reference resolves, or the update is refused whole. A fault
names its resource and the place in it, `route/default/chat.rules[0].backends[1].cluster`.

More than half of a cluster's endpoints may go only in so many words: each id in `removed_endpoints`, or the cluster or its
endpoints named in `removed`, or a full update of an operator that is `settled`. The case behind it: an operator that has
just started and has read the routes but not yet the pods would take every pool away with a perfectly valid update.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from spillway_sidecar.config.snapshot import Snapshot
from spillway_wire.messages import Fault, FaultReason, Update
from spillway_wire.snapshot import Cluster, Endpoints, Resource, ResourceKey, Route, Weights, decode_resource, key_of

MAX_FAULTS: Final = 64  # what a NACK carries
_MESSAGE_BYTES: Final = 1000

_AT = re.compile(r" - at `\$(?P<path>[^`]*)`$")


class _Head(msgspec.Struct):
    """What can still be read of a resource that does not decode."""

    kind: str = "?"
    name: str = "?"


def apply_update(current: Snapshot | None, update: Update, highest_epoch: int) -> Snapshot | tuple[Fault, ...]:
    """The snapshot that follows, or at least one fault. `highest_epoch`: of all updates that this proxy has taken."""
    if update.epoch < highest_epoch:
        message = f"epoch {update.epoch} is older than {highest_epoch}, which was heard from a later leader"
        return (Fault(path="epoch", reason=FaultReason.STALE_EPOCH, message=message),)
    base: Mapping[ResourceKey, Resource] = {}
    if not update.full:
        if current is None or update.base != current.version:
            held = "nothing" if current is None else current.version
            message = f"changes since {update.base}, but {held} is in force"
            return (Fault(path="base", reason=FaultReason.BASE_MISMATCH, message=message),)
        base = current.resources
    changed: dict[ResourceKey, Resource] = {}
    faults = list(_decode(update.resources, changed))
    if not faults:
        resources = {**base, **changed}
        for gone in update.removed:
            resources.pop((gone.kind, gone.name), None)
        faults = [*_check(resources), *_losses(current, update, resources)]
        if not faults:
            return Snapshot(version=update.version, epoch=update.epoch, resources=resources)
    return tuple(faults[:MAX_FAULTS])


def _decode(raws: tuple[msgspec.Raw, ...], into: dict[ResourceKey, Resource]) -> Iterator[Fault]:
    for index, raw in enumerate(raws):
        try:
            resource = decode_resource(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            yield _undecodable(index, raw, error)
            continue
        key = key_of(resource)
        if key in into:
            yield Fault(path=_path(key), reason=FaultReason.DUPLICATE, message="twice in one update")
        into[key] = resource


def _undecodable(index: int, raw: msgspec.Raw, error: Exception) -> Fault:
    path = f"resources[{index}]"
    try:
        head = msgspec.json.decode(raw, type=_Head)
        path = f"{head.kind}/{head.name}"[:320]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    message = str(error)
    where = _AT.search(message)
    if where is not None:
        path += where["path"]
        message = message[: where.start()]
    return Fault(path=path[:2048], reason=FaultReason.UNDECODABLE, message=message[:_MESSAGE_BYTES])


def _check(resources: Mapping[ResourceKey, Resource]) -> Iterator[Fault]:
    claims: dict[tuple[str, str], str] = {}
    for key, resource in resources.items():
        match resource:
            case Route():
                yield from _check_route(resource, _path(key), resources, claims)
            case Endpoints():
                yield from _check_endpoints(resource, _path(key), resources)
            case Weights():
                yield from _check_weights(resource, _path(key), resources)
            case Cluster():
                pass


def _check_route(
    route: Route, path: str, resources: Mapping[ResourceKey, Resource], claims: dict[tuple[str, str], str]
) -> Iterator[Fault]:
    namespace = route.name.partition("/")[0]
    for index, model in enumerate(route.models):
        owner = claims.setdefault((namespace, model), route.name)
        if owner != route.name:
            message = f"model {model!r} is also claimed by route {owner}"
            yield Fault(path=f"{path}.models[{index}]", reason=FaultReason.MODEL_CLAIMED_TWICE, message=message)
    names: set[str] = set()
    for index, rule in enumerate(route.rules):
        if rule.name in names:
            message = f"two rules are named {rule.name!r}"
            yield Fault(path=f"{path}.rules[{index}].name", reason=FaultReason.DUPLICATE, message=message)
        names.add(rule.name)
        for place, backend in enumerate(rule.backends):
            if ("cluster", backend.cluster) not in resources:
                where = f"{path}.rules[{index}].backends[{place}].cluster"
                yield _dangling(where, f"there is no cluster {backend.cluster}")


def _check_endpoints(endpoints: Endpoints, path: str, resources: Mapping[ResourceKey, Resource]) -> Iterator[Fault]:
    if ("cluster", endpoints.name) not in resources:
        yield _dangling(path, f"there is no cluster {endpoints.name}")
    if len({endpoint.id for endpoint in endpoints.endpoints}) != len(endpoints.endpoints):
        yield Fault(path=f"{path}.endpoints", reason=FaultReason.DUPLICATE, message="two endpoints have one id")


def _check_weights(weights: Weights, path: str, resources: Mapping[ResourceKey, Resource]) -> Iterator[Fault]:
    route = resources.get(("route", weights.name))
    if not isinstance(route, Route):
        yield _dangling(path, f"there is no route {weights.name}")
        return
    clusters = {rule.name: {backend.cluster for backend in rule.backends} for rule in route.rules}
    for index, rule in enumerate(weights.rules):
        if rule.rule not in clusters:
            yield _dangling(f"{path}.rules[{index}].rule", f"route {weights.name} has no rule {rule.rule!r}")
            continue
        for cluster in rule.weights:
            if cluster not in clusters[rule.rule]:
                message = f"rule {rule.rule!r} of route {weights.name} has no backend {cluster}"
                yield _dangling(f"{path}.rules[{index}].weights", message)


def _losses(current: Snapshot | None, update: Update, resources: Mapping[ResourceKey, Resource]) -> Iterator[Fault]:
    if current is None or update.settled:
        return
    explicit = {removal.cluster: set(removal.ids) for removal in update.removed_endpoints}
    named = {gone.name for gone in update.removed if gone.kind in {"cluster", "endpoints"}}
    for key, before in current.resources.items():
        if not isinstance(before, Endpoints) or before.name in named:
            continue
        after = resources.get(key)
        if after is before:
            continue
        had = {endpoint.id for endpoint in before.endpoints}
        lost = had - {endpoint.id for endpoint in after.endpoints} if isinstance(after, Endpoints) else had
        unexplained = lost - explicit.get(before.name, set())
        if unexplained and len(lost) * 2 > len(had):
            message = f"{len(lost)} of {len(had)} endpoints gone, {len(unexplained)} without being named in removed_endpoints"
            yield Fault(path=_path(key), reason=FaultReason.ENDPOINTS_LOST, message=message)


def _path(key: ResourceKey) -> str:
    return f"{key[0]}/{key[1]}"


def _dangling(path: str, message: str) -> Fault:
    return Fault(path=path, reason=FaultReason.DANGLING_REFERENCE, message=message)
