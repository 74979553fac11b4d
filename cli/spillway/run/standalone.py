"""`spillway.yaml`: what stands in a cluster's place on one machine.

It lies in the folder beside the resources and is none itself:

    simulate:                       # engines to simulate, by the name of their ModelBackend (namespace/name outside default)
      fast: {replicas: 2, decodeRate: 80}
      elastic: {replicas: 0, coldStartSeconds: 20}    # a backend with spec.scaling: its engines are started and stopped
      slow: 1
    allowHosts: [models.lan]        # hosts that external urls may name with plain http, beside this machine

What is wrong in it is told by line and path, takes nothing else down with it, and leaves its last good version in force.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import msgspec
import yaml
from msgspec import Meta, Struct

from spillway.problems import Problem
from spillway.sim_engine.faults import parse_fault

FILE_NAME = "spillway.yaml"
DEFAULT_NAMESPACE = "default"
MAX_REPLICAS = 64  # of one backend

_KEY = re.compile(r"(?:[a-z0-9]([-a-z0-9]*[a-z0-9])?/)?[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
_AT = re.compile(r"^(?P<what>.*?)(?: - at `\$(?P<path>[^`]*)`)?$", re.DOTALL)
Steps = Sequence[str | int]
Wrong = Callable[[Steps, str], None]
_Rate = Annotated[float, Meta(gt=0, le=1e9)]
_Positive = Annotated[int, Meta(ge=1, le=100_000_000)]


class Simulation(Struct, frozen=True, forbid_unknown_fields=True, rename="camel", omit_defaults=True):
    """Simulated engines of one backend; the options are those of `spillway sim-engine`, None leaves its default."""

    replicas: Annotated[int, Meta(ge=0, le=MAX_REPLICAS)] = 1
    prefill_rate: _Rate | None = None
    decode_rate: _Rate | None = None
    half_speed_batch: _Positive | None = None
    max_running: _Positive | None = None
    kv_tokens: _Positive | None = None
    seed: int | None = None
    cold_start_seconds: Annotated[float, Meta(ge=0, le=3600)] | None = None
    faults: tuple[str, ...] = ()

    def flags(self) -> list[str]:
        """Options of `spillway sim-engine`."""
        flags: list[str] = []
        for name in ("prefill_rate", "decode_rate", "half_speed_batch", "max_running", "kv_tokens", "seed", "cold_start_seconds"):
            if (value := getattr(self, name)) is not None:
                flags += ["--" + name.replace("_", "-"), f"{value:g}" if isinstance(value, float) else str(value)]
        return flags + [part for fault in self.faults for part in ("--fault", fault)]


@dataclass(frozen=True, slots=True)
class Standalone:
    """What the standalone files say together. Backends are keyed `namespace/name`."""

    simulate: Mapping[str, Simulation] = field(default_factory=dict)
    allow_hosts: tuple[str, ...] = ()

    def scaled(self, replicas: Mapping[str, int]) -> Standalone:
        """The same with these numbers of engines, as the operator asks; of backends that are not simulated it asks nothing."""
        return self.with_replicas({key: min(count, MAX_REPLICAS) for key, count in replicas.items() if key in self.simulate})

    def with_replicas(self, replicas: Mapping[str, int]) -> Standalone:
        """The same with these numbers of engines."""
        simulate = dict(self.simulate)
        for key, count in replicas.items():
            simulate[key] = msgspec.structs.replace(simulate.get(key, Simulation()), replicas=count)
        return Standalone(simulate, self.allow_hosts)


def backend_key(name: str) -> str:
    """`namespace/name` of a backend given with or without its namespace. Raises `ValueError`."""
    if not _KEY.fullmatch(name):
        raise ValueError(f"{name!r} is not the name of a backend: NAME or NAMESPACE/NAME")
    return name if "/" in name else f"{DEFAULT_NAMESPACE}/{name}"


def merge(parts: Iterable[Standalone]) -> Standalone:
    """Several files as one; of a backend named twice the later counts."""
    simulate: dict[str, Simulation] = {}
    hosts: dict[str, None] = {}
    for part in parts:
        simulate |= part.simulate
        hosts |= dict.fromkeys(part.allow_hosts)
    return Standalone(simulate, tuple(hosts))


def parse(text: str, file: str, before: Standalone) -> tuple[Standalone, list[Problem]]:
    """What a standalone file says. Parts that are wrong stay as they were `before`, all of it if it is no YAML."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        return before, [Problem(file, mark.line + 1 if mark else 1, "", f"not YAML: {getattr(error, 'problem', None) or error}")]
    if document is None:
        return Standalone(), []
    if not isinstance(document, dict):
        return before, [Problem(file, 1, "", "expected a mapping with simulate and allowHosts")]
    problems: list[Problem] = []

    def wrong(path: Steps, message: str) -> None:
        problems.append(Problem(file, _line(root, path), _dotted(path), message))

    for key in document.keys() - {"simulate", "allowHosts"}:
        wrong([str(key)], "unknown field: this file has simulate and allowHosts; resources go into files of their own")
    simulate = dict(_simulations(document.get("simulate"), before.simulate, wrong))
    hosts = document.get("allowHosts") or []
    if not (isinstance(hosts, list) and all(isinstance(host, str) for host in hosts)):
        wrong(["allowHosts"], "expected a list of host names")
        hosts = before.allow_hosts
    return Standalone(simulate, tuple(hosts)), problems


def _simulations(section: Any, before: Mapping[str, Simulation], wrong: Wrong) -> Iterator[tuple[str, Simulation]]:
    if section is None:
        return
    if not isinstance(section, dict):
        wrong(["simulate"], "expected a mapping from backend names to options, e.g. fast: {replicas: 2}")
        yield from before.items()
        return
    for name, given in section.items():
        try:
            key = backend_key(str(name))
        except ValueError as error:
            wrong(["simulate", str(name)], str(error))
            continue
        options = {"replicas": given} if isinstance(given, int) else {} if given is None else given
        try:
            yield key, _simulation(options)
        except msgspec.ValidationError as error:
            path, message = _where_and_what(error, options)
            # A plain number is the number of replicas, so there is no path inside it.
            wrong(["simulate", str(name), *(path if isinstance(given, dict) else [])], message)
            if key in before:
                yield key, before[key]


def _simulation(options: Any) -> Simulation:
    """Raises `msgspec.ValidationError`."""
    simulation = msgspec.convert(options, Simulation)
    for index, fault in enumerate(simulation.faults):
        try:
            parse_fault(fault)
        except ValueError as error:
            raise msgspec.ValidationError(f"{error} - at `$.faults[{index}]`") from error
    return simulation


def _where_and_what(error: msgspec.ValidationError, options: Any) -> tuple[list[str | int], str]:
    """The path and the text in msgspec's message; of a field that is not there the path is its own."""
    match = _AT.match(str(error))
    if match is None:
        return [], str(error)
    path: list[str | int] = [int(index) if index else name for name, index in re.findall(r"\.(\w+)|\[(\d+)\]", match["path"] or "")]
    fields = {field.encode_name for field in msgspec.structs.fields(Simulation)}
    if (
        "unknown field" in match["what"]
        and isinstance(options, dict)
        and (unknown := [key for key in options if key not in fields])
    ):
        return [str(unknown[0])], f"unknown field; there are {', '.join(sorted(fields))}"
    return path, match["what"]


def _dotted(path: Steps) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def _line(node: yaml.Node | None, path: Steps) -> int:
    """Line of the deepest node on a path that is there."""
    line = 1
    for part in path:
        if isinstance(node, yaml.MappingNode):
            found = next(((key, value) for key, value in node.value if str(key.value) == str(part)), None)
            if found is None:
                break
            key, node = found
            line = key.start_mark.line + 1
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            break
    return line
