"""An example for every CEL rule in crds/: an object that breaks it, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from tests.fakes.resources import Document, backend, external, route, rule

from spillway_operator.api.checker import faults

CRDS = Path(__file__).resolve().parents[2] / "crds"
LONG = "25h"
CHAT = [{"requestTypes": ["Chat"]}]
WEIGHTLESS = ({"name": "a", "weight": 0}, {"name": "b", "weight": 0}, {"name": "c", "priority": 1})
ROUND_ROBIN = {"profile": "RoundRobin", "scorers": [{"name": "Load"}]}
NO_SCORER = {"scorers": [{"name": "Load", "weight": 0}]}
NO_SESSION = {"sessionHeader": "x-session", "scorers": [{"name": "Load"}]}
SCALING = {"targetRef": {"name": "llama"}, "maxReplicas": 4}
NIGHT = {"name": "night", "start": "22:00", "end": "06:00"}
LEVELS = ({"name": "a"}, {"name": "b", "priority": 1})


def _rules(*rules: Document) -> Document:
    return route(rules=list(rules))


def _match(match: Document) -> Document:
    return _rules(rule(matches=[match]))


EXAMPLES: tuple[Document, ...] = (
    backend(service={"name": "llama", "port": 80}),
    external(health={"path": "/health"}),
    external(limits={"maxQueue": 1}),
    backend(pods=None, provider="TGI", external={"url": "https://api.example.com/v1"}),
    backend(pods={"selector": {"matchLabels": {"a b": "c"}}, "port": 1}),
    external("api.example.com/v1"),
    external("https://key@api.example.com/v1"),
    external("https://api.example.com/v1?version=1"),
    external("https://api.example.com:0/v1"),
    backend(health={"interval": LONG}),
    backend(health={"timeout": LONG}),
    backend(cost={"inputPerMillionTokens": "1", "gpuHourly": "2"}),
    external(cost={"gpuHourly": "2"}),
    external(scaling=SCALING),
    backend(scaling=SCALING | {"minReplicas": 5}),
    backend(scaling=SCALING | {"replicas": 5}),
    backend(scaling=SCALING | {"idleAfter": LONG}),
    backend(scaling=SCALING | {"holdTimeout": LONG}),
    backend(scaling=SCALING | {"schedules": [NIGHT | {"minReplicas": 2}] * 2}),
    backend(scaling=SCALING | {"schedules": [NIGHT | {"minReplicas": 2, "timeZone": "Europe/Nowhere"}]}),
    backend(scaling=SCALING | {"schedules": [NIGHT | {"minReplicas": 5}]}),
    backend(scaling=SCALING | {"schedules": [NIGHT]}),
    backend(scaling=SCALING | {"schedules": [NIGHT | {"maxReplicas": 2, "lead": "5m"}]}),
    backend(scaling=SCALING | {"schedules": [NIGHT | {"minReplicas": 2, "lead": LONG}]}),
    route(schedules=[NIGHT | {"weights": {"fast": 2}}] * 2),
    route(schedules=[NIGHT | {"weights": {"fast": 2}, "timeZone": "Europe/Nowhere"}]),
    route(schedules=[NIGHT]),
    route(schedules=[NIGHT | {"weights": {"fast": 2, "slow": 1}}]),
    route(schedules=[NIGHT | {"weights": {"fast": 0}}]),
    route(schedules=[NIGHT | {"scheduling": ROUND_ROBIN}]),
    route(schedules=[NIGHT | {"scheduling": NO_SCORER}]),
    route(schedules=[NIGHT | {"scheduling": NO_SESSION}]),
    route(schedules=[NIGHT | {"scheduling": {"profile": "Balanced"}}]),
    _rules(rule("a", matches=CHAT), rule("a")),
    _rules(rule("a"), rule("b")),
    _rules(rule("a", *WEIGHTLESS)),
    _rules(rule(spill={"maxWait": "1s"})),
    _rules(rule("a", *LEVELS, fallback={})),
    _rules(rule("a", *LEVELS, fallback={"latencyP95": LONG})),
    _rules(rule("a", *LEVELS, spill={"maxWait": LONG})),
    _match({"headers": []}),
    _match({"promptTokens": {}}),
    _match({"promptTokens": {"min": 2, "max": 1}}),
    route(timeouts={"firstToken": LONG}),
    route(timeouts={"streamIdle": LONG}),
    route(timeouts={"request": LONG}),
    route(timeouts={"connect": LONG}),
    route(timeouts={"admission": LONG}),
    route(flowControl={"maxWait": LONG}),
    route(scheduling=ROUND_ROBIN),
    route(scheduling=NO_SCORER),
    route(scheduling=NO_SESSION),
    route(scheduling={"profile": "Balanced"}),
    _rules(rule(scheduling=ROUND_ROBIN)),
    _rules(rule(scheduling=NO_SCORER)),
    _rules(rule(scheduling=NO_SESSION)),
    _rules(rule(scheduling={"scorers": [{"name": "Cost"}]})),
)


class Broken(NamedTuple):
    """A rule, by where it stands and what it says."""

    kind: str
    path: str  # fields and `[]` for entries: spec.rules[].fallback
    message: str


def crd_rules() -> list[Broken]:
    """Every CEL rule of the CRDs as they are checked in."""
    found = []
    for file in sorted(CRDS.glob("*.yaml")):
        spec = yaml.safe_load(file.read_text())["spec"]
        for version in spec["versions"]:
            found += [Broken(spec["names"]["kind"], *each) for each in _walk(version["schema"]["openAPIV3Schema"], "")]
    return found


def broken_by(document: Document) -> list[Broken]:
    """What an object breaks, by the checker of `spillway validate`."""
    kind = document["kind"]
    return [Broken(kind, _path(fault.location), fault.message) for fault in faults(kind, document)]


def is_broken_by(wanted: Broken, document: Document) -> bool:
    """Whether an object breaks a rule, at its place or below it, and nothing else."""
    found = broken_by(document)
    return len(found) == 1 and found[0]._replace(path=wanted.path) == wanted and found[0].path.startswith(wanted.path)


def _path(location: tuple[str | int, ...]) -> str:
    return "".join("[]" if isinstance(part, int) else f".{part}" for part in location).removeprefix(".")


def _walk(schema: dict[str, Any], path: str) -> Iterator[tuple[str, str]]:
    for one in schema.get("x-kubernetes-validations", []):
        yield path, one["message"]
    for name, child in schema.get("properties", {}).items():
        yield from _walk(child, f"{path}.{name}".removeprefix("."))
    if "items" in schema:
        yield from _walk(schema["items"], f"{path}[]")
