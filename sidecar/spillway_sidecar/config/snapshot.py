"""The snapshot in force: a value, swapped whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from spillway_wire.snapshot import Resource, ResourceKey


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All resources at a version, checked: references resolve, and no resource is half of one update and half of another."""

    version: str
    epoch: int
    resources: Mapping[ResourceKey, Resource]

    def info(self) -> dict[str, Any]:
        """Version and number of resources by kind."""
        kinds: dict[str, int] = {}
        for kind, _ in self.resources:
            kinds[kind] = kinds.get(kind, 0) + 1
        return {"version": self.version, "epoch": self.epoch, "resources": kinds}
