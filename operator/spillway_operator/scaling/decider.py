"""Needs over time -> how many replicas there should be. After Knative's autoscaler, with what simulations of ours added.

Each tick gives one need, and two windows smooth it: a stable one of a minute, and a panic one of six seconds. When the panic window
asks for twice what is ready, the backend panics: it goes up by the panic window, and not down, until a minute has passed without that.
Within the panic the need is the mean of what came since the alarm: six seconds of requests of very unlike sizes are a tenth or two above or
below the demand, and by the highest of ten such means a rise overshot by a quarter.

Going up is quick and going down is slow. Downwards counts the highest recommendation of the last five minutes, so that a lull takes
nothing away; a step down takes at most half, and the next one waits. A tick without a measurement recommends what there is, so that an
outage of metrics lowers nothing, neither while it lasts nor by being over.

Between `band_ratio` below and above what there is nothing happens: with 25 % of noise on each tick the mean of a minute stays within
15 %, and a need at the edge of a whole number (4.0 with 4 replicas) does not go to and fro. Two ticks have to agree on a direction.

While replicas start, a backlog asks for none beyond them (see `needs`). An operator that starts takes nothing away for a minute if there
is more than one replica, since it does not know what has been; and until the stable window has been filled to a half, at a start or
after an outage, it raises nothing but in panic, since the mean of a few ticks is noise.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from typing import Any, Final

from spillway_operator.scaling.needs import Need
from spillway_operator.scaling.rates import FREE, Changes, Rates, highest, lowest
from spillway_operator.scaling.windows import Highest, Mean


class Reason(enum.StrEnum):
    """Why a decision is as it is. All but `CONFIRMING` are reasons of the condition ScalingActive."""

    NO_DATA = "NoData"  # nothing was measured: what there is stays
    STEADY = "Steady"  # within the band
    CONFIRMING = "Confirming"  # another tick has to agree
    PANIC = "Panic"  # going up on the panic window, or not going down because of it
    RAISED = "Raised"
    LOWERED = "Lowered"
    DELAYED = "Delayed"  # lower, once the recommendations of the last minutes are
    FROM_ZERO = "FromZero"
    AT_LEAST = "AtMinReplicas"
    AT_MOST = "AtMaxReplicas"
    LIMITED = "ScalingLimited"  # by a declared rate


_MOOT: Final = frozenset({Reason.CONFIRMING, Reason.DELAYED})


@dataclass(frozen=True, slots=True)
class Policy:
    """The decider's constants."""

    stable_seconds: float = 60.0
    panic_seconds: float = 6.0  # three ticks
    panic_ratio: float = 2.0
    down_delay_seconds: float = 300.0
    down_spacing_seconds: float = 30.0  # between two steps down
    down_ratio: float = 0.5  # of what there is, at most, in a step; at least one replica
    up_ratio: float = 10.0  # times what there is, at most, in a step
    band_ratio: float = 0.15
    confirming_ticks: int = 2
    up_delay_seconds: float = 0.0  # the lowest recommendation of so long counts on the way up
    up: Rates = FREE  # declared rates; on the way down they stand in place of the ratio and the spacing
    down: Rates = FREE


@dataclass(frozen=True, slots=True)
class Replicas:
    """What there is, and the bounds of this moment (declared, scheduled, forecast)."""

    asked_for: int  # as the target says
    ready: int
    least: int
    most: int

    @property
    def pending(self) -> int:
        """Replicas that were asked for and are not ready."""
        return max(0, self.asked_for - self.ready)


@dataclass(frozen=True, slots=True)
class Decision:
    """How many there should be. Not `valid`: nothing was measured, and `desired` is what there is, within the bounds."""

    desired: int
    valid: bool
    reason: Reason
    panic: bool = False


class Decider:
    """One backend's history. Call `decide` once a tick (2 s), with `now` rising."""

    def __init__(self, now: float, replicas: int, policy: Policy | None = None) -> None:
        self._policy = policy or Policy()
        self._stable = Mean(self._policy.stable_seconds)
        self._brief = Mean(self._policy.panic_seconds)
        self._rush = Mean(self._policy.stable_seconds)  # since a rise alarmed us
        self._recommended = Highest(self._policy.down_delay_seconds)
        self._recommended.record(now, replicas)
        self._risen = Highest(self._policy.up_delay_seconds)  # of the negated recommendations: the lowest
        self._changes = Changes(max(self._policy.up.span_seconds, self._policy.down.span_seconds))
        self._there = replicas
        self._panic_until = now + self._policy.stable_seconds if replicas > 1 else -math.inf
        self._panic_floor = replicas
        self._alarmed = False  # the panic was begun by demand, and not by a start
        self._lowered_at = -math.inf
        self._direction = 0
        self._agreed = 0

    def decide(self, now: float, need: Need, replicas: Replicas) -> Decision:
        """How many replicas there should be."""
        self._changes.record(now, replicas.asked_for - self._there)
        self._there = replicas.asked_for
        found = self._found(now, need, replicas)
        if found.reason is not Reason.FROM_ZERO:
            found = self._at_the_rate(now, found, replicas.asked_for)
        desired = min(max(found.desired, replicas.least), replicas.most)
        if desired == found.desired:
            return found if found.reason not in _MOOT else self._moot(found, replicas)
        reason = Reason.AT_LEAST if desired > found.desired else Reason.AT_MOST
        return Decision(desired, found.valid, reason if found.valid else found.reason, found.panic)

    def _moot(self, found: Decision, replicas: Replicas) -> Decision:
        """What is about to be decided is out of bounds: the bound is the reason already."""
        if self._direction < 0 and replicas.asked_for == replicas.least:
            return Decision(found.desired, found.valid, Reason.AT_LEAST, found.panic)
        if self._direction > 0 and replicas.asked_for == replicas.most:
            return Decision(found.desired, found.valid, Reason.AT_MOST, found.panic)
        return found

    def _at_the_rate(self, now: float, found: Decision, there: int) -> Decision:
        """No further than the declared rates allow."""
        desired = found.desired
        if desired > there and (most := highest(self._policy.up, self._changes, now, there)) is not None:
            desired = min(desired, most)
        elif desired < there and (least := lowest(self._policy.down, self._changes, now, there)) is not None:
            desired = max(desired, least)
        return found if desired == found.desired else Decision(desired, found.valid, Reason.LIMITED, found.panic)

    def _found(self, now: float, need: Need, replicas: Replicas) -> Decision:
        there = replicas.asked_for
        wanted = _wanted(need, replicas)
        if wanted is not None:
            self._stable.record(now, wanted)
            self._brief.record(now, wanted)
            self._rush.record(now, wanted)
        stable, brief = self._stable.at(now), self._brief.at(now)
        if wanted is None or stable is None or brief is None:
            self._recommended.record(now, there)
            self._direction = 0
            return Decision(there, valid=False, reason=Reason.NO_DATA)
        if there == 0:
            self._recommended.record(now, 1 if wanted > 0 else 0)
            return Decision(1, valid=True, reason=Reason.FROM_ZERO) if wanted > 0 else Decision(0, valid=True, reason=Reason.STEADY)
        panic = self._panics(now, brief, replicas)
        aimed = self._aimed(max(stable, self._risen_to(now, brief)) if self._alarmed else stable, there)
        if not self._alarmed and not self._stable.reaches_back(now, self._policy.stable_seconds / 2):
            aimed = min(aimed, there)
        if panic:
            self._panic_floor = aimed = max(aimed, self._panic_floor, there)
        self._recommended.record(now, aimed)
        self._risen.record(now, -aimed)
        if aimed > there:
            delayed = self._risen.at(now)
            aimed = aimed if delayed is None else max(there, -delayed)
        return self._step(now, aimed, there, panic=panic)

    def _panics(self, now: float, brief: float, replicas: Replicas) -> bool:
        if brief >= self._policy.panic_ratio * max(1, replicas.ready) and brief > replicas.asked_for * (
            1 + self._policy.band_ratio
        ):
            self._panic_until = now + self._policy.stable_seconds
            if not self._alarmed:
                self._alarmed, self._rush = True, Mean(self._policy.stable_seconds)
        panic = now < self._panic_until
        if not panic:
            self._panic_floor = 0
            self._alarmed = False
        return panic

    def _risen_to(self, now: float, brief: float) -> float:
        """The need since the alarm: by the panic window at first, and then by all that came since, whose noise grows less."""
        rush = self._rush.at(now)
        return brief if rush is None or not self._rush.reaches_back(now, self._policy.panic_seconds) else rush

    def _aimed(self, need: float, there: int) -> int:
        """Whole replicas for a need; what there is where that is near enough."""
        band = self._policy.band_ratio
        if need > there * (1 + band):
            return min(math.ceil(need), math.ceil(there * self._policy.up_ratio))
        return min(there, math.ceil(need / (1 - band) - 1e-9))

    def _step(self, now: float, aimed: int, there: int, *, panic: bool) -> Decision:
        if aimed > there:
            if not self._confirmed(1):
                return Decision(there, valid=True, reason=Reason.CONFIRMING, panic=panic)
            return Decision(aimed, valid=True, reason=Reason.PANIC if panic else Reason.RAISED, panic=panic)
        if aimed == there:
            self._confirmed(0)
            return Decision(there, valid=True, reason=Reason.PANIC if panic else Reason.STEADY, panic=panic)
        own = not self._policy.down.bounding
        step = max(1, math.floor(there * self._policy.down_ratio)) if own else there
        least = max(self._recommended.at(now) or 0, there - step)
        if least >= there or (own and now - self._lowered_at < self._policy.down_spacing_seconds):
            self._confirmed(-1)
            return Decision(there, valid=True, reason=Reason.DELAYED)
        if not self._confirmed(-1):
            return Decision(there, valid=True, reason=Reason.CONFIRMING)
        self._lowered_at = now
        return Decision(least, valid=True, reason=Reason.LOWERED)

    def _confirmed(self, direction: int) -> bool:
        self._agreed = self._agreed + 1 if direction == self._direction else 1
        self._direction = direction
        return self._agreed >= self._policy.confirming_ticks

    def info(self, now: float) -> dict[str, Any]:
        """The windows and the mode."""
        return {
            "stable_need": self._stable.at(now),
            "panic_need": self._brief.at(now),
            "recommended": self._recommended.at(now),
            "panic_seconds_left": round(max(0.0, self._panic_until - now), 1),
        }


def _wanted(need: Need, replicas: Replicas) -> float | None:
    """The highest need; of a backlog no more than has been asked for while some of that starts."""
    backlog = need.backlog
    if backlog is not None and replicas.pending:
        backlog = min(backlog, float(replicas.asked_for))
    known = [each for each in (need.flow, backlog) if each is not None]
    return max(known) if known else None
