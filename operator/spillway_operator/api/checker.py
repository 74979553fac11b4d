"""What is wrong with a document of a kind, all of it at once.

The kind's own schema judges (`schema.document`), with the keywords that only the API server knows made known here: list types and
a duration's range. Then the kind's rules do, on data with defaults filled in.

A misspelt field makes one fault, not three: it is read as the field that it was probably meant to be, so that nothing is called
missing because of it, and what stands below it is judged too.
"""

from __future__ import annotations

import functools
import itertools
import json
import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Final

from jsonschema import Draft202012Validator, ValidationError
from jsonschema.validators import extend

from spillway_operator.api import messages
from spillway_operator.api import schema as schemas
from spillway_operator.api.durations import RANGE_CEL, RANGE_MESSAGE, in_range
from spillway_operator.api.lists import LIST_MAP_KEYS, LIST_TYPE, repeats
from spillway_operator.api.rules import Location, violations

# Faults that are told at once; a document with more is not one that somebody puts right line by line.
MAX_ERRORS: Final = 200


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong. `location` reads every field as it should be spelt, `written` as it is."""

    location: Location
    written: Location
    message: str


def faults(kind: str, data: Any) -> list[Fault]:
    """Everything that is wrong with a document of a kind; of very many errors, the first."""
    found: list[Fault] = []
    spelt: dict[Location, Location] = {}  # a field as it should be spelt -> as it is
    while True:  # ends: each pass puts right one level of misspellings
        errors = list(itertools.islice(_flat(_validator(kind).iter_errors(data)), MAX_ERRORS))
        meant = {location: name for location, error in errors if (name := _meant(location, error))}
        if not meant:
            break
        found.extend(Fault(at, _written(at, spelt), messages.unknown_field(at, (), name, [])) for at, name in meant.items())
        spelt.update({(*at[:-1], name): _written(at, spelt) for at, name in meant.items()})
        data = without_empty(kind, _renamed(data, meant))
    found.extend(Fault(at, _written(at, spelt), _sentence(kind, at, error)) for at, error in errors)
    filled = with_defaults(schemas.structural(kind), data)
    broken = violations(schemas.KINDS[kind].rules, filled)
    found.extend(Fault(each.location, _written(each.location, spelt), each.rule.message) for each in broken)
    return found[:MAX_ERRORS]


def with_defaults(schema: Mapping[str, Any], data: Any) -> Any:
    """Data with the schema's defaults filled in as the API server does; an empty field is read as one that is not there."""
    if isinstance(data, list):
        return [with_defaults(schema.get("items", {}), entry) for entry in data]
    if not isinstance(data, dict):
        return data
    properties = schema.get("properties", {})
    filled = {name: value for name, value in data.items() if value is not None}
    for name, child in properties.items():
        if name not in filled and "default" in child:
            filled[name] = deepcopy(child["default"])
    return {name: with_defaults(properties.get(name, {}), value) for name, value in filled.items()}


def without_empty(kind: str, data: Any) -> Any:
    """A document without its empty fields, as the API server reads it; a required one stays, so that its line can be named."""
    return _pruned(schemas.document(kind), data)


def _pruned(schema: Mapping[str, Any], data: Any) -> Any:
    if isinstance(data, list):
        return [_pruned(schema.get("items", {}), entry) for entry in data]
    if not isinstance(data, dict):
        return data
    properties, required = schema.get("properties", {}), schema.get("required", ())
    return {
        name: _pruned(properties.get(name, {}), value)
        for name, value in data.items()
        if value is not None or name not in properties or name in required
    }


# Misspelt fields


def _meant(location: Location, error: Any) -> str:
    """The field that an unknown one was probably meant to be: one that its neighbours leave free."""
    if error.validator != "additionalProperties":
        return ""
    free = [field for field in error.schema["properties"] if field not in error.instance]
    return messages.closest(str(location[-1]), free)


def _renamed(data: Any, meant: Mapping[Location, str]) -> Any:
    data = deepcopy(data)
    for location, name in meant.items():
        node = data
        for part in location[:-1]:
            node = node[part]
        value = node.pop(location[-1])
        node.setdefault(name, value)  # of two that mean the same field, the first is it
    return data


def _written(location: Location, spelt: Mapping[Location, Location]) -> Location:
    """Where a part stands in the text."""
    for length in range(len(location), 0, -1):
        if (written := spelt.get(location[:length])) is not None:
            return (*written, *location[length:])
    return location


# Keywords that the API server knows and JSON Schema does not


def _list_type(_: Any, value: Any, instance: Any, schema: Mapping[str, Any]) -> Iterator[ValidationError]:
    if not isinstance(instance, list) or value == "atomic":
        return
    keys: list[str] = []
    places: list[Location] = []
    for index, entry in enumerate(instance):
        if value == "set":
            keys.append(json.dumps(entry, sort_keys=True))
            places.append((index,))
        elif isinstance(entry, dict) and isinstance(entry.get(schema[LIST_MAP_KEYS][0]), str):
            keys.append(json.dumps(entry[schema[LIST_MAP_KEYS][0]]))
            places.append((index, schema[LIST_MAP_KEYS][0]))
    for repeat in repeats(keys):
        yield ValidationError(f"{messages.short(keys[repeat])} is listed twice: remove one", path=places[repeat])


def _cel(_: Any, value: Any, instance: Any, schema: Mapping[str, Any]) -> Iterator[ValidationError]:
    ranged = any(rule["rule"] == RANGE_CEL for rule in value)
    if ranged and isinstance(instance, str) and _whole(schema["pattern"]).match(instance) and not in_range(instance):
        yield ValidationError(RANGE_MESSAGE)


def _pattern(_: Any, value: Any, instance: Any, schema: Mapping[str, Any]) -> Iterator[ValidationError]:
    """As the API server reads patterns: `$` is the end, and not the place before a last line break too."""
    if isinstance(instance, str) and not _whole(value).match(instance) and (instance or "minLength" not in schema):
        yield ValidationError("pattern")


def _enum(_: Any, value: Any, instance: Any, schema: Mapping[str, Any]) -> Iterator[ValidationError]:
    """Text only: what has another type is told so already."""
    del schema
    if isinstance(instance, str) and instance not in value:
        yield ValidationError("enum")


@functools.cache
def _whole(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern.removesuffix("$") + r"\Z")


_extend: Any = extend
_Validator: Final = _extend(
    Draft202012Validator, {LIST_TYPE: _list_type, schemas.CEL_RULES: _cel, "pattern": _pattern, "enum": _enum}
)


@functools.cache
def _validator(kind: str) -> Any:
    return _Validator(schemas.document(kind))


def _flat(errors: Iterator[Any]) -> Iterator[tuple[Location, Any]]:
    """Errors with the location that each is about: for a field that is unknown or missing, the field, and not the mapping around it."""
    for error in errors:
        location: Location = tuple(error.absolute_path)
        if error.validator == "additionalProperties":
            yield from (((*location, name), error) for name in error.instance if name not in error.schema["properties"])
        elif error.validator == "required":
            # jsonschema makes one error for each field and names the field in its message only, in quotes.
            name = next(name for name in error.validator_value if error.message.startswith(f"'{name}' "))
            yield (*location, name), error
        else:
            yield location, error


def _sentence(kind: str, location: Location, error: Any) -> str:
    name = str(location[-1]) if location else ""
    if error.validator == "required":
        return messages.missing(error.schema["properties"].get(name, {}).get("description", ""))
    if error.validator == "additionalProperties":
        elsewhere = [place for place in _places(kind) if place.rpartition(".")[2] == name]
        return messages.unknown_field(location, error.schema["properties"], "", elsewhere)
    return messages.sentence(error)


@functools.cache
def _places(kind: str) -> tuple[str, ...]:
    """Every field of a kind's spec as a path, e.g. `spec.rules[].name`."""
    found: list[str] = []

    def walk(node: Mapping[str, Any], path: str) -> None:
        for name, child in node.get("properties", {}).items():
            found.append(f"{path}.{name}")
            walk(child, f"{path}.{name}")
        if "items" in node:
            walk(node["items"], f"{path}[]")

    walk(schemas.document(kind)["properties"]["spec"], "spec")
    return tuple(found)
