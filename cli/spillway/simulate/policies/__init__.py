"""Policies by their names on the command line. One of another file is named FILE.py:CLASS."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Final

from spillway.simulate.policies.base import Policy
from spillway.simulate.policies.oracle import Oracle
from spillway.simulate.policies.ours import Ours
from spillway.simulate.policies.plain import LeastRequest, PowerOfTwo, Random, RoundRobin
from spillway.simulate.policies.scraped import PrefixMap, QueueAndKV, QueueAndKVEachSecond

POLICIES: Final[dict[str, type[Policy]]] = {
    "round-robin": RoundRobin,
    "random": Random,
    "p2c": PowerOfTwo,
    "least-request": LeastRequest,
    "queue-kv-1s": QueueAndKVEachSecond,
    "queue-kv-50ms": QueueAndKV,
    "prefix-map": PrefixMap,
    "ours": Ours,
    "oracle": Oracle,
}


class UnknownPolicy(Exception):
    """A name that is no policy. The message says what there is; the command ends with 2."""


def find(name: str) -> type[Policy]:
    """The policy of that name, or the class of a file as `FILE.py:CLASS`. Raises `UnknownPolicy`."""
    if name in POLICIES:
        return POLICIES[name]
    path, separator, cls = name.rpartition(":")
    if separator and Path(path).is_file():
        spec = importlib.util.spec_from_file_location(Path(path).stem, path)
        if spec is not None and spec.loader is not None:
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            found = getattr(module, cls, None)
            if isinstance(found, type) and issubclass(found, Policy):
                return found
    raise UnknownPolicy(f"{name} is no policy; there are {', '.join(POLICIES)}, and FILE.py:CLASS with a subclass of Policy")
