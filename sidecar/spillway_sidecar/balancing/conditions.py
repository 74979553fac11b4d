"""The fallbacks and spills of all rules, which outlive the tables that hold them.

What a router has learned of a priority is kept from snapshot to snapshot, for as long as the rule declares the same bound for it.
"""

from __future__ import annotations

from collections.abc import Iterator

from spillway_sidecar.balancing.diversion import Diversion
from spillway_sidecar.balancing.fallback import Fallback
from spillway_sidecar.balancing.spill import Spill
from spillway_wire import snapshot as wire

Key = tuple[str, str, int]  # route, rule, priority


class Conditions:
    """By route, rule and priority. `begin`, then `of` for each priority of a new table; `abandon` where that failed."""

    def __init__(self) -> None:
        self.fallbacks: dict[Key, Fallback] = {}
        self.spills: dict[Key, Spill] = {}
        self._before: tuple[dict[Key, Fallback], dict[Key, Spill]] = ({}, {})

    def begin(self) -> None:
        """A table is being compiled."""
        self._before = self.fallbacks, self.spills
        self.fallbacks, self.spills = {}, {}

    def abandon(self) -> None:
        """It came to nothing: what was before stands."""
        self.fallbacks, self.spills = self._before

    def of(self, route: wire.Route, rule: wire.Rule, priority: int) -> tuple[Fallback | None, Spill | None]:
        """What stands for the conditions that a rule declares, at one of its priorities."""
        key = (route.name, rule.name, priority)
        fallback: Fallback | None = None
        spill: Spill | None = None
        if rule.fallback is not None:
            percent = rule.fallback.error_rate_percent
            bounds = (None if percent is None else percent / 100, rule.fallback.latency_p95_seconds)
            fallback = self._before[0].get(key)
            if fallback is None or (fallback.error_ratio, fallback.latency_seconds) != bounds:
                fallback = Fallback(*bounds)
            self.fallbacks[key] = fallback
        if rule.spill is not None:
            spill = self._before[1].get(key)
            if spill is None or spill.max_wait_seconds != rule.spill.max_wait_seconds:
                spill = Spill(rule.spill.max_wait_seconds)
            self.spills[key] = spill
        return fallback, spill

    def sweep(self, now: float) -> None:
        """Looks for attempts that have waited for too long."""
        for fallback in self.fallbacks.values():
            fallback.sweep(now)

    def diversions(self, now: float) -> Iterator[tuple[Key, Diversion]]:
        """Every priority that requests go past at the moment, and why."""
        for key, fallback in self.fallbacks.items():
            if fallback.because is not None:
                yield key, fallback.because
        for key, spill in self.spills.items():
            because = spill.because(now)
            if because is not None:
                yield key, because

    def info(self, now: float) -> dict[str, object]:
        """State of each."""
        fallbacks = {f"{route} {rule} {priority}": each.info() for (route, rule, priority), each in self.fallbacks.items()}
        spills = {f"{route} {rule} {priority}": each.info(now) for (route, rule, priority), each in self.spills.items()}
        return {"fallbacks": fallbacks, "spills": spills}
