"""`spillway.yaml`: what stands in a cluster's place on one machine.

It lies in the folder beside the resources and is none itself:

    simulate:                       # engines to simulate, by the name of their ModelBackend (namespace/name outside default)
      fast: {replicas: 2, decodeRate: 80}
      slow: 1
    allowHosts: [models.lan]        # hosts that external urls may name with plain http, beside this machine

What is wrong in it is told by line and path, and takes nothing else down with it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

import msgspec
import yaml
from msgspec import Meta, Struct

FILE_NAME = "spillway.yaml"
DEFAULT_NAMESPACE = "default"

_KEY = re.compile(r"(?:[a-z0-9]([-a-z0-9]*[a-z0-9])?/)?[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
_AT = re.compile(r"^(?P<what>.*?)(?: - at `\$(?P<path>[^`]*)`)?$", re.DOTALL)
_Rate = Annotated[float, Meta(gt=0, le=1e9)]
_Positive = Annotated[int, Meta(ge=1, le=100_000_000)]


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong in a file; `line` counts from 1."""

    file: str
    line: int
    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.path + ': ' if self.path else ''}{self.message}"


class Simulation(Struct, frozen=True, forbid_unknown_fields=True, rename="camel", omit_defaults=True):
    """Simulated engines of one backend; the options are those of `spillway sim-engine`, None leaves its default."""

    replicas: Annotated[int, Meta(ge=0, le=64)] = 1
    prefill_rate: _Rate | None = None
    decode_rate: _Rate | None = None
    half_speed_batch: _Positive | None = None
    max_running: _Positive | None = None
    kv_tokens: _Positive | None = None
    seed: int | None = None
    faults: tuple[str, ...] = ()

    def flags(self) -> list[str]:
        """Options of `spillway sim-engine`."""
        flags: list[str] = []
        for name in ("prefill_rate", "decode_rate", "half_speed_batch", "max_running", "kv_tokens", "seed"):
            if (value := getattr(self, name)) is not None:
                flags += ["--" + name.replace("_", "-"), f"{value:g}" if isinstance(value, float) else str(value)]
        return flags + [part for fault in self.faults for part in ("--fault", fault)]


@dataclass(frozen=True, slots=True)
class Standalone:
    """What the standalone files say together. Backends are keyed `namespace/name`."""

    simulate: Mapping[str, Simulation] = field(default_factory=dict)
    allow_hosts: tuple[str, ...] = ()

    def with_replicas(self, replicas: Mapping[str, int]) -> Standalone:
        """The same with these numbers of engines, as given on the command line."""
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


def parse(text: str, file: str) -> tuple[Standalone | None, list[Problem]]:
    """What a standalone file says, without its wrong parts; None if it is no YAML at all, so that the last good one can stay."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        return None, [Problem(file, mark.line + 1 if mark else 1, "", f"not YAML: {getattr(error, 'problem', None) or error}")]
    if document is None:
        return Standalone(), []
    if not isinstance(document, dict):
        return None, [Problem(file, 1, "", "expected a mapping with simulate and allowHosts")]
    problems: list[Problem] = []

    def wrong(path: list[str | int], message: str) -> None:
        problems.append(Problem(file, _line(root, path), _dotted(path), message))

    for key in document.keys() - {"simulate", "allowHosts"}:
        wrong([str(key)], "unknown field: this file has simulate and allowHosts; resources go into files of their own")
    simulate = dict(_simulations(document.get("simulate"), wrong))
    hosts = document.get("allowHosts") or []
    if not (isinstance(hosts, list) and all(isinstance(host, str) for host in hosts)):
        wrong(["allowHosts"], "expected a list of host names")
        hosts = []
    return Standalone(simulate, tuple(hosts)), problems


def _simulations(section: Any, wrong: Any) -> Iterator[tuple[str, Simulation]]:
    if section is None:
        return
    if not isinstance(section, dict):
        wrong(["simulate"], "expected a mapping from backend names to options, e.g. fast: {replicas: 2}")
        return
    for name, given in section.items():
        options = {"replicas": given} if isinstance(given, int) else {} if given is None else given
        try:
            yield backend_key(str(name)), msgspec.convert(options, Simulation)
        except msgspec.ValidationError as error:
            match = _AT.match(str(error))
            inner = match["path"] if match else None
            path: list[str | int] = ["simulate", str(name)]
            # A plain number is the number of replicas, so there is no path inside it.
            wrong(path + (_keys(inner) if inner and isinstance(given, dict) else []), match["what"] if match else str(error))
        except ValueError as error:
            wrong(["simulate", str(name)], str(error))


def _keys(path: str) -> list[str | int]:
    return [int(index) if index else name for name, index in re.findall(r"\.(\w+)|\[(\d+)\]", path)]


def _dotted(path: list[str | int]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def _line(node: yaml.Node | None, path: list[str | int]) -> int:
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
