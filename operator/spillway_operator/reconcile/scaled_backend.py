"""One backend that declares scaling: what it declares, as the pure parts take it, and what is remembered of it within a term."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from spillway_operator.api import ObjectKey
from spillway_operator.api.scaling import PolicyType, ScaleDown, ScaleUp, Scaling
from spillway_operator.policies import reasons
from spillway_operator.scaling.decider import Decider, Policy, Reason
from spillway_operator.scaling.forecast import Daily
from spillway_operator.scaling.idle import Idle
from spillway_operator.scaling.needs import Targets
from spillway_operator.scaling.ports import TargetRef, TargetState
from spillway_operator.scaling.rates import Rate, Rates, Select
from spillway_operator.scaling.starts import Starts
from spillway_operator.snapshot.translate import wire_name

_ASKED_SECONDS: Final = 10.0  # what was asked for counts as there for so long, while the target does not say otherwise
_REASON_SECONDS: Final = 10.0  # a reason that changes nothing is shown when it has held for so long
_CHANGES: Final = frozenset({reasons.RAISED, reasons.LOWERED, reasons.PANIC, reasons.FROM_ZERO, reasons.IDLE})


@dataclass(frozen=True, slots=True)
class Declared:
    """A backend and its `spec.scaling`."""

    key: ObjectKey
    spec: Scaling

    @property
    def cluster(self) -> str:
        """Its wire name."""
        return wire_name(self.key)

    @property
    def ref(self) -> TargetRef:
        """Its target."""
        target = self.spec.target_ref
        return TargetRef(self.key.namespace, target.name, target.api_version, target.kind)


@dataclass(frozen=True, slots=True)
class _Asked:
    replicas: int
    basis: int  # what the target said then
    at: float


@dataclass(slots=True)
class ShownReason:
    """The reason that is shown: one that goes with a change at once, another when it has held."""

    shown: str
    next: str = ""
    since: float = 0.0

    def settle(self, now: float, found: str, *, changes: bool, under_way: bool) -> str:
        """What to show. `changes`: the number is changed now; `under_way`: replicas are on their way from the last change."""
        if changes or found == reasons.PINNED:
            self.shown = self.next = found
        elif under_way and self.shown in _CHANGES:
            self.next = self.shown
        elif found == self.shown:
            self.next = found
        elif found not in {self.next, Reason.CONFIRMING.value}:
            self.next, self.since = found, now
        elif self.next != self.shown and now - self.since >= _REASON_SECONDS:
            self.shown = self.next
        return self.shown


@dataclass(slots=True)
class Record:
    """What is remembered of one backend."""

    ref: TargetRef
    policy: Policy
    decider: Decider
    idle: Idle
    reason: ShownReason = field(default_factory=lambda: ShownReason(reasons.STEADY))
    starts: Starts = field(default_factory=Starts)
    daily: Daily | None = None
    asked: _Asked | None = None

    def there(self, state: TargetState, now: float) -> int:
        """What the target says, or what was asked of it just now."""
        asked = self.asked
        if asked is not None and state.replicas == asked.basis and now - asked.at < _ASKED_SECONDS:
            return asked.replicas
        self.asked = None
        return state.replicas

    def ask(self, state: TargetState, replicas: int, now: float) -> bool:
        """So many are asked for; False if they were already."""
        if self.asked is not None and self.asked.replicas == replicas:
            return False
        self.asked = _Asked(replicas, state.replicas, now)
        return True


def targets_of(spec: Scaling) -> Targets:
    """What one replica is to be given."""
    target = spec.effective_target
    return Targets(
        queue_depth=target.queue_depth,
        gpu_ratio=None if target.gpu_utilization_percent is None else target.gpu_utilization_percent / 100,
        kv_cache_ratio=None if target.kv_cache_percent is None else target.kv_cache_percent / 100,
    )


def policy_of(spec: Scaling) -> Policy:
    """The decider's constants for what is declared."""
    behavior, usual = spec.effective_behavior, Policy()
    stable = float(spec.window_seconds)
    return Policy(
        stable_seconds=stable,
        panic_seconds=max(usual.panic_seconds, stable / 10),
        down_delay_seconds=float(behavior.scale_down.stabilization_window_seconds),
        down_spacing_seconds=min(usual.down_spacing_seconds, stable / 2),
        up_delay_seconds=float(behavior.scale_up.stabilization_window_seconds),
        up=_rates(behavior.scale_up),
        down=_rates(behavior.scale_down),
    )


def _rates(declared: ScaleUp | ScaleDown) -> Rates:
    rates = tuple(
        Rate(policy.value, float(policy.period_seconds), percent=policy.type is PolicyType.PERCENT) for policy in declared.policies
    )
    return Rates(rates, Select(declared.select_policy.value))
