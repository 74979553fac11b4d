"""Rules between fields, said once for two readers.

A `Rule` stands in the table of its kind and carries the CEL expression that goes into the CRD, and the Python function that
finds what breaks it in a document read from a file. Both read the same plain data: an object as JSON, with the schema's defaults
filled in. A test runs a CEL evaluator's and the function's verdict against each other's samples.

The function answers with locations relative to the rule's node, so that a fault points at the entry that is one too many
rather than at the list.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_core import PydanticCustomError

Location = tuple[str | int, ...]
Finder = Callable[[Any], Iterable[Location]]


@dataclass(frozen=True, slots=True)
class Rule:
    """`path` addresses the nodes (`spec.rules[]`: each entry); `cel` holds for a good node, `find` yields where a bad one is wrong."""

    name: str
    path: str
    cel: str
    message: str
    find: Finder
    field: str = ""  # CRD `fieldPath`: the child of the node that a violation is about, e.g. `.health`


@dataclass(frozen=True, slots=True)
class Violation:
    """One place where a rule does not hold."""

    rule: Rule
    location: Location


def violations(rules: Sequence[Rule], document: Any) -> list[Violation]:
    """All violations in an object as plain data, which may be broken elsewhere: what a rule cannot read, it does not judge."""
    found: list[Violation] = []
    for rule in rules:
        for location, node in nodes_at(document, rule.path):
            try:
                wrong = list(rule.find(node))
            except (TypeError, KeyError, AttributeError, IndexError, ValueError):
                continue  # a part has the wrong shape, and the schema says so
            found.extend(Violation(rule, location + child) for child in wrong)
    return found


def nodes_at(document: Any, path: str) -> Iterator[tuple[Location, Any]]:
    """Nodes of plain data that a rule's path addresses, with their locations. Absent parts have none."""
    found: list[tuple[Location, Any]] = [((), document)]
    for part in path.split("."):
        name = part.removesuffix("[]")
        found = [((*at, name), node[name]) for at, node in found if isinstance(node, dict) and name in node]
        if part.endswith("[]"):
            found = [((*at, index), entry) for at, node in found if isinstance(node, list) for index, entry in enumerate(node)]
    yield from found


def render(location: Location) -> str:
    """A location as a person writes it: `spec.rules[0].backendRefs`; keys that are no plain words are quoted."""
    text = ""
    for part in location:
        if isinstance(part, int):
            text += f"[{part}]"
        elif part.isidentifier():
            text += f".{part}" if text else part
        else:
            text += f'["{part}"]'
    return text


def check_spec(rules: Sequence[Rule], spec: dict[str, Any]) -> None:
    """Raise one pydantic error that names every violation in a spec (as plain data); for use in a model's validator."""
    if found := violations(rules, {"spec": spec}):
        text = "; ".join(f"{render(each.location)}: {each.rule.message}" for each in found)
        raise PydanticCustomError("spillway_rule", "{violations}", {"violations": text})
