"""The difference of two JSON documents as a JSON patch (RFC 6902), which is how a webhook tells what to change.

Objects are compared by key and lists by place: items that follow are added at the end, a list that got shorter is replaced.
That is as small as a patch has to be where one container and a few volumes come in.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Operation = dict[str, Any]


def json_patch(before: Any, after: Any, path: str = "") -> list[Operation]:
    """Operations that turn `before` into `after`; none where they are equal. Types count: 1 is not true, nor 1.0."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        return _objects(before, after, path)
    if isinstance(before, list) and isinstance(after, list) and len(before) <= len(after):
        return _lists(before, after, path)
    if type(before) is type(after) and before == after:
        return []
    return [{"op": "replace", "path": path, "value": after}]


def _objects(before: Mapping[str, Any], after: Mapping[str, Any], path: str) -> list[Operation]:
    operations: list[Operation] = [{"op": "remove", "path": f"{path}/{_escaped(name)}"} for name in before if name not in after]
    for name, value in after.items():
        place = f"{path}/{_escaped(name)}"
        if name in before:
            operations += json_patch(before[name], value, place)
        else:
            operations.append({"op": "add", "path": place, "value": value})
    return operations


def _lists(before: list[Any], after: list[Any], path: str) -> list[Operation]:
    operations: list[Operation] = []
    for place, (old, new) in enumerate(zip(before, after, strict=False)):
        operations += json_patch(old, new, f"{path}/{place}")
    operations += [{"op": "add", "path": f"{path}/-", "value": value} for value in after[len(before) :]]
    return operations


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")
