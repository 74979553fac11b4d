"""Schemas of the kinds, made from the models.

`structural` is what a CRD carries: references inlined, no `anyOf` with null, no titles, `additionalProperties` only for maps,
defaults only where they say something, and each rule of the kind's table attached as CEL to the node that it is about.
`document` is the same for a document in a file, where what the API server does besides the schema is said in the schema as well:
fields that it does not know are refused rather than pruned, and metadata is checked.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Final

from spillway_operator.api import backend, route
from spillway_operator.api.columns import COLUMNS, Column
from spillway_operator.api.fields import LABEL_KEY_PATTERN, LABEL_VALUE_PATTERN
from spillway_operator.api.lists import MAP_TYPE
from spillway_operator.api.meta import API_VERSION, GROUP, ObjectMeta, ResourceModel
from spillway_operator.api.rules import Rule

CEL_RULES: Final = "x-kubernetes-validations"

_OBJECT_META_FIELDS: Final = (
    "annotations", "creationTimestamp", "deletionGracePeriodSeconds", "deletionTimestamp", "finalizers", "generateName", "generation",
    "labels", "managedFields", "name", "namespace", "ownerReferences", "resourceVersion", "selfLink", "uid",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Kind:
    """All that there is to say about a kind."""

    model: type[ResourceModel]
    rules: Sequence[Rule]
    short_name: str
    columns: Sequence[Column]
    scale: Mapping[str, str] | None = None  # paths of the scale subresource

    @property
    def name(self) -> str:
        """E.g. `ModelBackend`."""
        return self.model.__name__

    @property
    def plural(self) -> str:
        """E.g. `modelbackends`."""
        return f"{self.name.lower()}s"


# `kubectl scale modelbackend/x --replicas=N` pins the number of replicas.
_SCALE: Final = {"specReplicasPath": ".spec.scaling.replicas", "statusReplicasPath": ".status.replicas.current"}

KINDS: Final[Mapping[str, Kind]] = {
    kind.name: kind
    for kind in (
        Kind(backend.ModelBackend, backend.RULES, "mbackend", COLUMNS["ModelBackend"], _SCALE),
        Kind(route.ModelRoute, route.RULES, "mroute", COLUMNS["ModelRoute"]),
    )
}


@functools.cache
def structural(kind: str) -> dict[str, Any]:
    """The `openAPIV3Schema` of a kind. Shared: not to be changed."""
    about = KINDS[kind]
    raw = about.model.model_json_schema(mode="validation")
    parts = raw["properties"]
    status = _plain(parts["status"], raw["$defs"])
    _without_defaults(status)
    status.pop("default", None)
    schema = {
        "description": about.model.__doc__,
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": f"{API_VERSION} for this version of the kind."},
            "kind": {"type": "string", "description": f"{kind}."},
            "metadata": {"type": "object"},
            "spec": _plain(parts["spec"], raw["$defs"]),
            "status": status,
        },
    }
    for rule in about.rules:
        _attach(schema, rule)
    return schema


@functools.cache
def document(kind: str) -> dict[str, Any]:
    """The schema of a kind's document in a file. Shared: not to be changed."""
    schema = deepcopy(structural(kind))
    properties = schema["properties"]
    properties["apiVersion"]["enum"] = [API_VERSION]
    properties["kind"]["enum"] = [kind]
    _closed(properties["spec"])
    raw = ObjectMeta.model_json_schema(mode="validation")
    metadata = _plain(raw, {})
    for field in ("labels", "annotations"):
        metadata["properties"][field] = {
            "type": "object",
            "propertyNames": {"pattern": LABEL_KEY_PATTERN},
            "additionalProperties": {"type": "string"},
        }
    metadata["properties"]["labels"]["additionalProperties"] |= {"maxLength": 63, "pattern": LABEL_VALUE_PATTERN}
    for field in _OBJECT_META_FIELDS:
        metadata["properties"].setdefault(field, {})
    for field in ("creationTimestamp", "generation", "uid", "resourceVersion"):
        metadata["properties"][field] = {}  # the server's own; a copied object may hold anything here
    metadata["additionalProperties"] = False
    properties["metadata"] = metadata
    properties["status"] = {}  # the operator's own
    schema["additionalProperties"] = False
    schema["required"] = ["apiVersion", "kind", "metadata", "spec"]
    return schema


def crd(kind: str) -> dict[str, Any]:
    """The CustomResourceDefinition of a kind."""
    about = KINDS[kind]
    group, _, version = API_VERSION.partition("/")
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{about.plural}.{GROUP}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": about.plural,
                "singular": kind.lower(),
                "shortNames": [about.short_name],
                "categories": ["spillway"],
            },
            "versions": [
                {
                    "name": version,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}, **({"scale": dict(about.scale)} if about.scale is not None else {})},
                    "additionalPrinterColumns": [
                        {
                            "name": column.name,
                            "type": column.type,
                            "jsonPath": column.path,
                            "priority": column.priority,
                            "description": column.description,
                        }
                        for column in about.columns
                    ],
                    "schema": {"openAPIV3Schema": deepcopy(structural(kind))},
                }
            ],
        },
    }


def _plain(node: Any, definitions: Mapping[str, Any]) -> Any:
    """A node of pydantic's schema as a structural one."""
    node = dict(node)
    if reference := node.pop("$ref", None):
        # What stands beside a reference says more than what it refers to.
        node = {**definitions[reference.removeprefix("#/$defs/")], **node}
    if options := node.pop("anyOf", None):
        (given,) = (option for option in options if option.get("type") != "null")
        return _plain({**given, **node}, definitions)
    node.pop("title", None)
    if not _says_something(node.get("default")):
        node.pop("default", None)
    else:
        node["default"] = _without_nulls(node["default"])
    if "properties" in node:
        node["properties"] = {name: _plain(child, definitions) for name, child in node["properties"].items()}
        node.pop("additionalProperties", None)
    if isinstance(node.get("additionalProperties"), dict):
        node["additionalProperties"] = _plain(node["additionalProperties"], definitions)
        node.setdefault(MAP_TYPE, "granular")
    if "items" in node:
        node["items"] = _plain(node["items"], definitions)
        if "description" in node:
            node["items"].pop("description", None)  # `kubectl explain` tells the list's and the entry's as one
    return node


def _says_something(default: Any) -> bool:
    """Null, the empty list and the empty text are what a missing value is read as anyway."""
    return default is not None and default not in ("", [], {})


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nulls(part) for name, part in value.items() if part is not None}
    return value


def _without_defaults(node: dict[str, Any]) -> None:
    """A status has no defaults: what the operator did not write is unknown, not zero."""
    for child in children(node):
        child.pop("default", None)
        _without_defaults(child)


def _closed(node: dict[str, Any]) -> None:
    if "properties" in node:
        node["additionalProperties"] = False
    for child in children(node):
        _closed(child)


def children(node: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Schemas right below a schema."""
    found = list(node.get("properties", {}).values())
    found.extend(node[name] for name in ("items", "additionalProperties") if isinstance(node.get(name), dict))
    return found


def _attach(schema: dict[str, Any], rule: Rule) -> None:
    node = schema
    for part in rule.path.split("."):
        node = node["properties"][part.removesuffix("[]")]
        if part.endswith("[]"):
            node = node["items"]
    entry = {"rule": rule.cel, "message": rule.message}
    if rule.field:
        entry["fieldPath"] = rule.field
    node.setdefault(CEL_RULES, []).append(entry)
