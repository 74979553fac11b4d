"""From one status to the next: what is worth a Kubernetes Event. Pure.

Events tell of turns, not of states: that a route is on every proxy, that a proxy refuses it and why, that a backend is lost or back,
that another route holds the model. What merely goes on for longer is in the conditions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from spillway_operator.api import BackendStatus, Condition, RouteStatus, condition_of
from spillway_operator.policies import reasons

NORMAL: Final = "Normal"
WARNING: Final = "Warning"

BACKEND_READY: Final = "BackendReady"
BACKEND_LOST: Final = "BackendLost"
ROUTE_READY: Final = "RouteReady"
ROUTE_LOST: Final = "RouteLost"
FELL_BACK: Final = "FellBack"
FALLBACK_OVER: Final = "FallbackOver"
SPILL_BEGAN: Final = "SpillBegan"
SPILL_OVER: Final = "SpillOver"
SCALED: Final = "Scaled"

Status = BackendStatus | RouteStatus


@dataclass(frozen=True, slots=True)
class Transition:
    """One Event to be."""

    type: str
    reason: str
    action: str  # what was being done: a verb of ours, as the Events API asks for
    note: str


def transitions(before: Status | None, after: Status) -> tuple[Transition, ...]:
    """What happened between two statuses of one object."""
    looks: tuple[Callable[[Status | None, Status], Transition | None], ...]
    looks = (
        (_accepted, _resolved, _programmed, _ready, _fallen_back, _spilling)
        if isinstance(after, RouteStatus)
        else (_accepted, _ready, _guarded, _scaled, _not_scaled)
    )
    return tuple(found for look in looks if (found := look(before, after)) is not None)


def _turn(before: Status | None, after: Status, name: str) -> tuple[Condition | None, Condition | None]:
    """A condition then and now."""
    return (condition_of(before.conditions, name) if before is not None else None), condition_of(after.conditions, name)


def _accepted(before: Status | None, after: Status) -> Transition | None:
    old, new = _turn(before, after, reasons.ACCEPTED)
    if new is None:
        return None
    if new.status == "False" and (old is None or (old.status, old.reason) != (new.status, new.reason)):
        return Transition(WARNING, new.reason, "Accept", new.message)
    if new.status == "True" and old is not None and old.status == "False":
        return Transition(NORMAL, reasons.ACCEPTED, "Accept", new.message)
    return None


def _resolved(before: Status | None, after: Status) -> Transition | None:
    old, new = _turn(before, after, reasons.RESOLVED_REFS)
    if new is None or (old is not None and (old.status, old.message) == (new.status, new.message)):
        return None
    if new.status == "False":
        return Transition(WARNING, new.reason, "Resolve", new.message)
    return Transition(NORMAL, reasons.RESOLVED_REFS, "Resolve", new.message) if old is not None else None


def _programmed(before: Status | None, after: Status) -> Transition | None:
    old, new = _turn(before, after, reasons.PROGRAMMED)
    if new is None:
        return None
    if new.reason == reasons.REJECTED:
        if old is not None and (old.reason, old.message) == (new.reason, new.message):
            return None
        return Transition(WARNING, reasons.REJECTED, "Program", new.message)
    if new.status != "True" or not isinstance(after, RouteStatus):
        return None
    if old is not None and old.status == "True" and old.observed_generation == new.observed_generation:
        return None
    generation = new.observed_generation
    return Transition(NORMAL, reasons.PROGRAMMED, "Program", f"Generation {generation} runs on every connected proxy")


def _ready(before: Status | None, after: Status) -> Transition | None:
    old, new = _turn(before, after, reasons.READY)
    if new is None:
        return None
    good, lost = (ROUTE_READY, ROUTE_LOST) if isinstance(after, RouteStatus) else (BACKEND_READY, BACKEND_LOST)
    if new.status == "True" and (old is None or old.status != "True"):
        return Transition(NORMAL, good, "Serve", new.message)
    if new.status != "True" and old is not None and old.status == "True":
        return Transition(WARNING, lost, "Serve", f"{new.reason}: {new.message}")
    return None


def _fallen_back(before: Status | None, after: Status) -> Transition | None:
    return _active(before, after, reasons.FALLBACK_ACTIVE, (FELL_BACK, FALLBACK_OVER), WARNING)


def _spilling(before: Status | None, after: Status) -> Transition | None:
    return _active(before, after, reasons.SPILL_ACTIVE, (SPILL_BEGAN, SPILL_OVER), NORMAL)


def _active(before: Status | None, after: Status, name: str, told: tuple[str, str], kind: str) -> Transition | None:
    """What began or is over, of a condition that is False at rest."""
    old, new = _turn(before, after, name)
    was, now = old is not None and old.status == "True", new is not None and new.status == "True"
    if was == now or new is None:
        return None
    return Transition(kind if now else NORMAL, told[0] if now else told[1], "Route", f"{new.reason}: {new.message}")


def _guarded(before: Status | None, after: Status) -> Transition | None:
    old, new = _turn(before, after, reasons.INJECTED)
    if new is None or new.status != "False" or (old is not None and old.status == "False"):
        return None
    return Transition(WARNING, new.reason, "Inject", new.message)


def _scaled(before: Status | None, after: Status) -> Transition | None:
    if not isinstance(before, BackendStatus) or not isinstance(after, BackendStatus) or not before.replicas or not after.replicas:
        return None
    condition = condition_of(after.conditions, reasons.SCALING_ACTIVE)
    if condition is None or condition.status != "True" or before.replicas.desired == after.replicas.desired:
        return None
    text = f"From {before.replicas.desired} to {after.replicas.desired} replicas: {condition.reason}"
    return Transition(NORMAL, SCALED, "Scale", text)


def _not_scaled(before: Status | None, after: Status) -> Transition | None:
    old, new = _turn(before, after, reasons.SCALING_ACTIVE)
    if new is None or new.status != "False" or new.reason == reasons.TARGET_UNKNOWN:
        return None
    if old is not None and (old.status, old.reason) == (new.status, new.reason):
        return None
    return Transition(WARNING, new.reason, "Scale", new.message)
