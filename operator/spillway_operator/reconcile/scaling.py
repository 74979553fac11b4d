"""The scaling loop: every two seconds, for each backend that declares scaling, what is asked of it -> how many replicas.

    observe (loads, endpoints, target) -> need -> mix -> decider -> ask the target -> what status, metrics and others show

Only the replica that leads scales. A term begins from what the targets say, never from memory; what one replica does is taken over
from the status, where the last leader left it. A target that another autoscaler sets too is left to it, and what we would have
is only shown. A backend without replicas is looked at as soon as a router holds a request for it.

What goes wrong with one backend is that one's: it is logged and shown, and the others go on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, TypeVar

from spillway_operator.api import ModelBackend, ModelRoute, condition_of
from spillway_operator.api.scaling import Forecast, Scaling
from spillway_operator.loads.figures import BackendLoad, ClusterDemand
from spillway_operator.policies import reasons
from spillway_operator.policies.conditions import Verdict
from spillway_operator.policies.facts import ScalingFacts
from spillway_operator.reconcile import throughputs
from spillway_operator.reconcile.scaled_backend import Declared, Record, policy_of, targets_of
from spillway_operator.reconcile.schedules import replica_bounds, standing
from spillway_operator.reconcile.world import Scaled, World
from spillway_operator.scaling import mix
from spillway_operator.scaling.decider import Decider, Decision, Reason, Replicas
from spillway_operator.scaling.forecast import Daily
from spillway_operator.scaling.idle import Idle
from spillway_operator.scaling.needs import BY_TOKENS, SPEED_SHARE, Need, Observed, need
from spillway_operator.scaling.ports import ScaleTargets, TargetRef, TargetState
from spillway_operator.scaling.rates import Select
from spillway_operator.scaling.schedules import Bounds
from spillway_operator.store import BACKEND, ROUTE

BY_MIX: Final = "CheapestMix"

_NOTHING: Final = Scaled(ScalingFacts(reasons.TARGET_UNKNOWN, active=False))
_T = TypeVar("_T")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Look:
    """One backend in one tick, before anything is decided."""

    cluster: str
    spec: Scaling
    state: TargetState
    record: Record
    ready: int
    there: int
    observed: Observed
    need: Need


class ScalingLoop:
    """The records of a term, and the tick. Results are in `world.scaled`."""

    def __init__(
        self,
        world: World,
        targets: ScaleTargets,
        *,
        leads: Callable[[], bool] = lambda: True,
        on_change: Callable[[str, int, int], None] = lambda _cluster, _before, _after: None,
    ) -> None:
        self._world = world
        self._targets = targets
        self._leads = leads
        self._on_change = on_change
        self._records: dict[str, Record] = {}
        self._urgent: set[str] = set()
        self.failures: dict[str, str] = {}

    def begin_term(self) -> None:
        """What was remembered is of another time."""
        self._records.clear()
        self._world.throughputs.clear()
        self._world.scaled.clear()

    def on_held(self, cluster: str) -> bool:
        """A router holds a request for a cluster; True if that is to be looked at now."""
        scaled = self._world.scaled.get(cluster)
        if scaled is None or scaled.desired > 0:
            return False
        self._urgent.add(cluster)
        return True

    @property
    def urgent(self) -> bool:
        """Whether something waits for no tick."""
        return bool(self._urgent)

    def tick_urgent(self, now: float) -> None:
        """Those that requests wait for."""
        clusters, self._urgent = self._urgent, set()
        if self._leads():
            self._run(now, clusters)

    def tick(self, now: float) -> None:
        """Every backend that declares scaling."""
        self._urgent.clear()
        if not self._leads():
            return
        declared = {each.cluster: each.ref for each in reversed(self._declared())}
        self._targets.retain({ref: cluster for cluster, ref in declared.items()})
        for kept in (self._world.scaled, self._records, self.failures):
            for gone in kept.keys() - declared.keys():
                del kept[gone]
        self._run(now, None)

    # -- one turn

    def _run(self, now: float, only: set[str] | None) -> None:
        asked = self._world.loads.asked(now)
        looks: dict[str, _Look] = {}
        for declared in self._owners():
            if only is not None and declared.cluster not in only:
                continue
            look = self._guarded(declared.cluster, partial(self._look, declared, asked, now))
            if look is not None:
                looks[declared.cluster] = look
        shared = {} if only is not None else self._mixed(looks)
        for cluster, look in looks.items():
            self._guarded(cluster, partial(self._decide, look, shared.get(look.cluster, look.need), now))

    def _guarded(self, cluster: str, act: Callable[[], _T]) -> _T | None:
        try:
            found = act()
        except Exception as error:  # noqa: BLE001 - it is this backend's trouble only
            if cluster not in self.failures:
                _log.exception("scaling: %s failed; what it has stays", cluster)
            self.failures[cluster] = f"{type(error).__name__}: {error}"
            return None
        self.failures.pop(cluster, None)
        return found

    def _declared(self) -> list[Declared]:
        """Backends that declare scaling, the oldest first."""
        found = [
            (entry.age, Declared(entry.key, backend.spec.scaling))
            for entry in self._world.store.entries(BACKEND)
            if isinstance(backend := entry.object, ModelBackend) and backend.spec.scaling is not None
        ]
        return [declared for _, declared in sorted(found, key=lambda each: (each[0], each[1].key))]

    def _owners(self) -> Iterator[Declared]:
        """Of several backends with one target the oldest; the others are told."""
        owners: dict[TargetRef, Declared] = {}
        for declared in self._declared():
            owner = owners.setdefault(declared.ref, declared)
            if owner is declared:
                yield declared
                continue
            self._records.pop(declared.cluster, None)
            note = f"ModelBackend {owner.key.name} scales {declared.ref}"
            self._world.scaled[declared.cluster] = Scaled(ScalingFacts(reasons.TARGET_TAKEN, active=False, note=note))

    def _look(self, declared: Declared, asked: dict[str, ClusterDemand] | None, now: float) -> _Look | None:
        cluster, spec = declared.cluster, declared.spec
        state = self._targets.state(declared.ref)
        if state is None or state.problem in {reasons.TARGET_NOT_FOUND, reasons.TARGET_FORBIDDEN}:
            reason = reasons.TARGET_UNKNOWN if state is None else state.problem
            before = self._world.scaled.get(cluster, _NOTHING)
            facts = ScalingFacts(reason, active=False, note="" if state is None else state.message)
            self._world.scaled[cluster] = Scaled(facts, before.current, before.desired)
            return None
        record = self._record(declared, state, now)
        there = record.there(state, now)
        watched, ready = throughputs.replicas(self._world, cluster, now)
        if state.ready is not None:
            ready = state.ready
        record.starts.observe(now, there, ready)
        observed = self._observed(cluster, record, asked, watched, ready, now)
        return _Look(cluster, spec, state, record, ready, there, observed, need(observed, targets_of(spec)))

    def _record(self, declared: Declared, state: TargetState, now: float) -> Record:
        spec, policy = declared.spec, policy_of(declared.spec)
        record = self._records.get(declared.cluster)
        if record is None or record.ref != declared.ref:
            record = Record(declared.ref, policy, Decider(now, state.replicas, policy), Idle(now))
            record.reason.shown = self._standing_reason(declared)
            self._records[declared.cluster] = record
        elif record.policy != policy:
            record.policy, record.decider = policy, Decider(now, state.replicas, policy)
        if spec.forecast is Forecast.NONE:
            record.daily = None
        elif record.daily is None:
            record.daily = Daily()
        return record

    def _standing_reason(self, declared: Declared) -> str:
        status = self._world.store.status(declared.key)
        condition = condition_of(status.conditions, reasons.SCALING_ACTIVE) if status is not None else None
        return condition.reason if condition is not None and condition.status == Verdict.TRUE.value else reasons.STEADY

    def _observed(
        self, cluster: str, record: Record, asked: dict[str, ClusterDemand] | None, watched: list[str], ready: int, now: float
    ) -> Observed:
        """What was measured; nothing where no router reports, one has fallen silent, or under half of the sidecars report."""
        load = self._world.loads.backend(watched, now)
        demand = asked.get(cluster, ClusterDemand()) if asked is not None else None
        if demand is None or demand.partial or 2 * load.known < len(watched):
            record.idle.observe(now, busy=None)
            return Observed(ready=ready, held=0 if demand is None else demand.held)
        traffic = self._world.loads.backend_traffic(cluster, now)
        served = traffic.input_tokens_per_second + traffic.output_tokens_per_second
        came = max(demand.arrived_tokens_per_second, served)
        record.idle.observe(now, busy=came > 0 or traffic.requests > 0 or _under_way(demand, load))
        throughput = throughputs.of(self._world, cluster)
        return Observed(
            ready=ready,
            tokens_per_second_asked=came,
            tokens_per_second_replica=throughput.learned,
            tokens_per_second_shown=throughput.shown,
            occupancy=max(load.in_flight / load.capacity, load.kv_cache_ratio or 0.0) if load.capacity else None,
            tokens_waiting=load.waiting_tokens + demand.held_tokens,
            waiting=load.queue_depth + demand.held,
            held=demand.held,
            gpu_ratio=load.gpu_ratio,
            kv_cache_ratio=load.kv_cache_ratio,
        )

    # -- several kinds of hardware

    def _mixed(self, looks: dict[str, _Look]) -> dict[str, Need]:
        """The needs of backends that share the requests of a rule, by what their replicas cost."""
        options = {cluster: option for cluster, look in looks.items() if (option := self._option(look)) is not None}
        sharing = []
        for entry in self._world.store.entries(ROUTE):
            if isinstance(entry.object, ModelRoute):
                sharing += [names for names in _shared(standing(self._world, entry.object)) if len(names) > 1]
        found = {}
        for group in mix.groups(sharing):
            together = [options[cluster] for cluster in sorted(group) if cluster in options]
            if len(together) > 1:
                asked = sum(looks[each.name].observed.tokens_per_second_asked or 0.0 for each in together)
                for cluster, replicas in mix.needs(together, asked).items():
                    own = looks[cluster].need
                    if own.flow_signal == BY_TOKENS:  # a declared target that asks for more is kept
                        found[cluster] = Need(flow=replicas, flow_signal=BY_MIX, backlog=own.backlog)
        return found

    def _option(self, look: _Look) -> mix.Option | None:
        backend = self._world.backend(look.cluster)
        cost = backend.spec.cost if backend is not None else None
        each = look.observed.tokens_per_second_replica
        if cost is None or cost.gpu_hourly is None or not each or look.observed.tokens_per_second_asked is None:
            return None
        most = look.spec.max_replicas if not look.state.other_writer else look.there
        return mix.Option(look.cluster, float(cost.gpu_hourly), each * SPEED_SHARE, look.ready, look.there, most)

    # -- deciding

    def _decide(self, look: _Look, needed: Need, now: float) -> None:
        record, spec, there = look.record, look.spec, look.there
        bounds = self._bounds(look, needed)
        wanted = needed.flow_signal == BY_MIX and needed.flow  # for requests that go elsewhere as yet
        stays = wanted or record.policy.down.select is Select.DISABLED
        may_be_zero = bounds.least == 0 and record.idle.seconds(now) >= spec.idle_after.seconds and not stays
        least = bounds.least if bounds.least or not there or may_be_zero else 1
        decision = record.decider.decide(now, needed, Replicas(there, look.ready, least, max(least, bounds.most)))
        desired, reason = _final(decision, spec, idle=may_be_zero)
        if look.state.other_writer:
            facts = ScalingFacts(reasons.CONFLICTING_AUTOSCALER, active=False, desired=desired, note=look.state.other_writer)
            record.asked = None
        else:
            self._ask(look, desired, now)
            shown = record.reason.settle(
                now, reason, changes=desired != there or reason == reasons.PINNED, under_way=look.ready != desired
            )
            failed = look.state.problem == reasons.SCALE_FAILED
            facts = ScalingFacts(
                reasons.SCALE_FAILED if failed else shown,
                active=not failed and shown != reasons.NO_DATA,
                desired=desired,
                note=look.state.message if failed else "",
            )
        self._world.scaled[look.cluster] = Scaled(
            facts, look.ready, desired, needed, look.observed, decision.valid, schedule=bounds.told
        )

    def _bounds(self, look: _Look, needed: Need) -> Bounds:
        """The least and the most of this moment: as declared for it, and what is expected of it by earlier days."""
        moment, start_seconds = self._world.wall_clock(), look.record.starts.seconds
        bounds = replica_bounds(look.spec, moment, start_seconds)
        daily = look.record.daily
        if daily is None:
            return bounds
        wall_seconds = moment.timestamp()
        if needed.flow is not None:
            daily.record(wall_seconds, min(needed.flow, float(look.spec.max_replicas)))  # one lie is not a week's
        ahead = daily.replicas(wall_seconds, start_seconds)
        return replace(bounds, least=max(bounds.least, min(ahead, bounds.most)))

    def _ask(self, look: _Look, desired: int, now: float) -> None:
        if desired == look.state.replicas:
            return
        if look.record.ask(look.state, desired, now):
            self._on_change(look.cluster, look.there, desired)
        self._targets.scale(look.record.ref, desired)  # again at each tick, until the target says so

    def info(self) -> dict[str, Any]:
        """What each backend is asked for and has."""
        return {
            cluster: {
                "reason": scaled.facts.reason,
                "current": scaled.current,
                "desired": scaled.desired,
                "need": {"flow": scaled.need.flow, "signal": scaled.need.flow_signal, "backlog": scaled.need.backlog},
                "throughput": found.info() if (found := self._world.throughputs.get(cluster)) is not None else None,
                "starts": record.starts.info() if (record := self._records.get(cluster)) is not None else None,
                "forecast": record.daily.info() if record is not None and record.daily is not None else None,
                "schedule": scaled.schedule,
                "failure": self.failures.get(cluster),
            }
            for cluster, scaled in sorted(self._world.scaled.items())
        }


def _under_way(demand: ClusterDemand, load: BackendLoad) -> bool:
    return demand.in_flight > 0 or demand.held > 0 or load.in_flight > 0 or load.queue_depth > 0


def _final(decision: Decision, spec: Scaling, *, idle: bool) -> tuple[int, str]:
    """What is asked for in the end, and the reason for it."""
    if spec.replicas is not None:
        return spec.replicas, reasons.PINNED
    if idle and decision.reason is not Reason.FROM_ZERO and decision.valid:
        return 0, reasons.IDLE
    return decision.desired, decision.reason.value


def _shared(route: ModelRoute) -> Iterator[list[str]]:
    """Backends of one priority of a rule, which get requests of the same kind."""
    namespace = route.metadata.namespace
    for rule in route.spec.rules:
        for priority in {ref.priority for ref in rule.backend_refs}:
            yield [f"{namespace}/{ref.name}" for ref in rule.backend_refs if ref.priority == priority and ref.weight]
