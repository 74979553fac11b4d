"""Lists whose entries are unlike each other, as the API server understands them.

`ListSet` marks a list of scalars without repeats, `ListMap` a list of objects with one entry per key. Both put
`x-kubernetes-list-type` into the schema, by which the API server refuses repeats and merges server-side apply by entry, and check
the same in the model. A list whose order has a meaning is `ATOMIC`: merged entry by entry, two writers would mix their order.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import PydanticCustomError, core_schema
from typing_extensions import override

LIST_TYPE: Final = "x-kubernetes-list-type"
LIST_MAP_KEYS: Final = "x-kubernetes-list-map-keys"
MAP_TYPE: Final = "x-kubernetes-map-type"


def repeats(values: Iterable[Hashable]) -> list[int]:
    """Indexes of values that stand earlier in the sequence already."""
    seen: set[Hashable] = set()
    found = []
    for index, value in enumerate(values):
        if value in seen:
            found.append(index)
        seen.add(value)
    return found


@dataclass(frozen=True, slots=True)
class _Listed:
    """Base of the annotations: adds to the schema, checks the parsed entries."""

    def extension(self) -> dict[str, Any]:
        """What the schema says of the list."""
        raise NotImplementedError

    def identities(self, entries: Sequence[Any]) -> list[Hashable]:
        """What must be unlike in the entries."""
        raise NotImplementedError

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        def check(entries: Sequence[Any]) -> Sequence[Any]:
            identities = self.identities(entries)
            if found := repeats(identities):
                repeated = str(identities[found[0]])
                raise PydanticCustomError("list_repeats", "{repeated} is listed twice: remove one", {"repeated": repr(repeated)})
            return entries

        return core_schema.no_info_after_validator_function(check, handler(source))

    def __get_pydantic_json_schema__(self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(schema), **self.extension()}


@dataclass(frozen=True, slots=True)
class ListSet(_Listed):
    """A list of scalars, each at most once."""

    @override
    def extension(self) -> dict[str, Any]:
        return {LIST_TYPE: "set"}

    @override
    def identities(self, entries: Sequence[Any]) -> list[Hashable]:
        return [str(entry) for entry in entries]


@dataclass(frozen=True, slots=True)
class ListMap(_Listed):
    """A list of objects, each `key` at most once. The key's field is named alike inside and outside."""

    key: str

    @override
    def extension(self) -> dict[str, Any]:
        return {LIST_TYPE: "map", LIST_MAP_KEYS: [self.key]}

    @override
    def identities(self, entries: Sequence[Any]) -> list[Hashable]:
        return [str(getattr(entry, self.key)) for entry in entries]


@dataclass(frozen=True, slots=True)
class _Atomic:
    """Marks a list whose order counts; replaced as a whole."""

    def __get_pydantic_json_schema__(self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(schema), LIST_TYPE: "atomic"}


ATOMIC: Final = _Atomic()
