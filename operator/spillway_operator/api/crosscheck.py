"""What shows only when documents are seen beside each other.

Errors are what the operator refuses as well: two routes that claim one model name. Warnings are what may be right elsewhere: a
backend that is not among the files may be in the cluster, and a host may be on the operator's allow-list.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Sequence

from spillway_operator.api.backend import ModelBackend
from spillway_operator.api.documents import LoadedObject, Problem
from spillway_operator.api.messages import closest
from spillway_operator.api.meta import ObjectKey
from spillway_operator.api.route import ModelRoute


def cross_check(objects: Sequence[LoadedObject], unread: Collection[ObjectKey] = ()) -> list[Problem]:
    """Problems between objects. `unread`: objects whose documents are bad; they are there, so nobody misses them."""
    known = {each.key for each in objects} | set(unread)
    problems: list[Problem] = []
    claims: dict[tuple[str, str], LoadedObject] = {}
    for each in objects:
        if isinstance(each.model, ModelRoute):
            problems += _claims(each, each.model, claims)
            problems += _references(each, each.model, known)
        elif isinstance(each.model, ModelBackend):
            problems += _plain_http(each, each.model)
    return problems


def _claims(each: LoadedObject, route: ModelRoute, claims: dict[tuple[str, str], LoadedObject]) -> list[Problem]:
    found = []
    for index, model in enumerate(route.spec.models):
        earlier = claims.setdefault((each.namespace, model), each)
        if earlier is not each:
            where = f"{earlier.key} ({earlier.file}:{earlier.line})"
            found.append(
                each.problem(("spec", "models", index), f'"{model}" belongs to {where} already: remove it from one of the two')
            )
    return found


def _references(each: LoadedObject, route: ModelRoute, known: Collection[ObjectKey]) -> list[Problem]:
    found = []
    for number, rule in enumerate(route.spec.rules):
        for index, ref in enumerate(rule.backend_refs):
            if ObjectKey("ModelBackend", each.namespace, ref.name) in known:
                continue
            names = [key.name for key in known if key.kind == "ModelBackend" and key.namespace == each.namespace]
            meant = closest(ref.name, names)
            hint = f'did you mean "{meant}"?' if meant else f"declare it, in namespace {each.namespace}"
            location = ("spec", "rules", number, "backendRefs", index, "name")
            found.append(each.problem(location, f'no ModelBackend "{ref.name}" is among these files; {hint}', warning=True))
    return found


def _plain_http(each: LoadedObject, backend: ModelBackend) -> list[Problem]:
    external = backend.spec.external
    if external is None or external.address.tls or _loopback(external.address.host):
        return []
    message = f"plain http goes only to hosts that the operator is told to allow: use https, or allow {external.address.host} there"
    return [each.problem(("spec", "external", "url"), message, warning=True)]


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
