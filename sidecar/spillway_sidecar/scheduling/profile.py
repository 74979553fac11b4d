"""Profiles: how a request's endpoint is found among those of a backend, and its backend among those of a priority.

| profile | among endpoints | among the backends of a priority |
| --- | --- | --- |
| `Default` | shortest predicted wait, with the prompt's prefix where it is cached | by weight |
| `Balanced` | as `Default` | Latency 40, SuccessRate 30, Cost 30 |
| `NodeLoad` | GPUUtilization 40, KVCache 30, QueueDepth 30 | by weight |
| `LeastRequest` | InFlight 1 | by weight |
| `RoundRobin` | one after the other | by weight |

A route's own scorers change the profile's weights. Without a profile they are all there is where they apply, and the default holds where
none does. What was not asked for costs nothing: a profile is compiled when a snapshot is swapped in.

Among backends the share of each is its weight times the fourth power of its score: a draw and not the best alone, so that all routers do
not run to one backend at once, and so that each is still tried and known.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, Protocol, TypeVar

from spillway_sidecar.scheduling.filters.eligible import Candidate
from spillway_sidecar.scheduling.pickers.best import best
from spillway_sidecar.scheduling.pickers.in_turn import in_turn
from spillway_sidecar.scheduling.pickers.soonest import soonest
from spillway_sidecar.scheduling.pool import Pool
from spillway_sidecar.scheduling.request import Request, View
from spillway_sidecar.scheduling.scorers import AMONG_BACKENDS, AMONG_ENDPOINTS, BackendScorer, EndpointScorer, lora_affinity
from spillway_sidecar.scheduling.state import EndpointState
from spillway_wire.names import SchedulingProfile, Scorer
from spillway_wire.snapshot import Scheduling

SHARPNESS: Final = 4
KEYS_FROM_BYTES: Final = 1536  # of a body: shorter prompts are not worth keeping together
NEVER: Final = 1 << 62

E = TypeVar("E", bound=EndpointState)

WEIGHTS: Final[Mapping[SchedulingProfile, Mapping[Scorer, int]]] = {
    SchedulingProfile.BALANCED: {Scorer.LATENCY: 40, Scorer.SUCCESS_RATE: 30, Scorer.COST: 30},
    SchedulingProfile.NODE_LOAD: {Scorer.GPU_UTILIZATION: 40, Scorer.KV_CACHE: 30, Scorer.QUEUE_DEPTH: 30},
    SchedulingProfile.LEAST_REQUEST: {Scorer.IN_FLIGHT: 1},
}


class Weighted(Protocol):
    """A backend of a rule: its weight, its endpoints."""

    @property
    def weight(self) -> float:
        """Its effective weight."""
        raise NotImplementedError

    @property
    def cluster(self) -> Any:
        """Its `Pool`."""
        raise NotImplementedError


class Profile:
    """What is declared, compiled."""

    __slots__ = (
        "_adapters",
        "_among_backends",
        "_among_endpoints",
        "_in_turn",
        "keys_from",
        "name",
        "parts",
        "prefixes",
        "session_header",
    )

    def __init__(self, name: str, weights: Mapping[Scorer, int], session_header: str = "", *, turns: bool = False) -> None:
        self.name = name
        self._in_turn = turns
        among = [(scorer, weight) for scorer, weight in weights.items() if weight and scorer in AMONG_ENDPOINTS]
        total = sum(weight for _, weight in among)
        self._among_endpoints: list[tuple[EndpointScorer, float]] = [(AMONG_ENDPOINTS[s], w / total) for s, w in among]
        backends = [(scorer, weight) for scorer, weight in weights.items() if weight and scorer in AMONG_BACKENDS]
        total = sum(weight for _, weight in backends)
        self._among_backends: list[tuple[BackendScorer, float]] = [(AMONG_BACKENDS[s], w / total) for s, w in backends]
        self.parts = tuple(scorer.value for scorer, _ in among)  # of an endpoint's score, in a decision record; none: of a wait
        default = not among and not turns
        sessions = any(scorer is Scorer.SESSION_AFFINITY for scorer, _ in among)
        self._adapters = any(scorer is Scorer.LORA_AFFINITY for scorer, _ in among)
        self.prefixes = default or any(scorer is Scorer.PREFIX_AFFINITY for scorer, _ in among)
        self.session_header = session_header.lower().encode("ascii") if sessions else b""
        self.keys_from = 0 if sessions else KEYS_FROM_BYTES if self.prefixes else NEVER

    @property
    def by_wait(self) -> bool:
        """Whether endpoints are compared by their predicted waits, of which the least wins, and not by scores."""
        return not self._among_endpoints and not self._in_turn

    def pick(
        self, pool: Pool[E], request: Request, view: View, tried: Collection[E] = (), candidates: list[Candidate] | None = None
    ) -> E | None:
        """The endpoint to take, or None when every one is eliminated. Appends what it looked at to `candidates`."""
        if self._among_endpoints:
            keys = (request.prefix, request.session, lora_affinity.key_of(request) if self._adapters else 0)
            return best(self._among_endpoints, pool, request, view, tried, candidates, keys)
        if self._in_turn:
            return in_turn(pool, request, view, tried, candidates)
        return soonest(pool, request, view, tried, candidates)

    def shares(self, backends: Sequence[Weighted], request: Request, view: View) -> list[float]:
        """The share of each backend of a priority in such requests, in no particular unit."""
        weights = [backend.weight for backend in backends]
        if not self._among_backends:
            return weights
        pools = [backend.cluster for backend in backends]
        sums = [0.0] * len(pools)
        for score, share in self._among_backends:
            for index, value in enumerate(score(pools, request, view)):
                sums[index] += share * value
        return [weight * float(total**SHARPNESS) for weight, total in zip(weights, sums, strict=True)]


DEFAULT: Final = Profile(SchedulingProfile.DEFAULT.value, {})


def compile_profile(declared: Scheduling | None) -> Profile:
    """The profile that is declared; the default one where nothing is."""
    if declared is None or (declared.profile is SchedulingProfile.DEFAULT and not declared.scorers):
        return DEFAULT
    own = {scorer.name: scorer.weight for scorer in declared.scorers}
    weights = {**WEIGHTS.get(declared.profile, {}), **own}
    return Profile(
        declared.profile.value, weights, declared.session_header, turns=declared.profile is SchedulingProfile.ROUND_ROBIN
    )
