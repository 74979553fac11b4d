"""Which endpoints of a cluster do worse than their peers: by how often they succeed, and by their silence.

**Success rate**, as Envoy's detector of that name: an endpoint is out when it succeeds less often than the mean of the others minus
`DEVIATIONS` standard deviations. The deviation is that among the others together with that of chance at this volume, and
without a gap of `MIN_GAP` nothing is an outlier: among endpoints that never fail a single failure would be one.

**Silence**: first tokens are overdue there, nothing at all has come from it meanwhile, and others do answer. An engine that
hangs is found long before a request to it runs out of time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import sqrt
from typing import Final

from spillway_sidecar.scheduling.health import EndpointHealth

FADE: Final = 0.85  # a second: the last six or seven seconds count
MIN_REQUESTS: Final = 20.0  # lately, of an endpoint that is judged or compared with
DEVIATIONS: Final = 3.0
MIN_GAP: Final = 0.15

SILENT_AFTER_SECONDS: Final = 0.5
OVERDUE: Final = 2.0  # times the time after which a first token is late
EVIDENCE: Final = 2  # overdue requests, or one that is twice overdue


def fold(endpoints: Iterable[EndpointHealth]) -> None:
    """Takes the last second's requests into what counts as lately."""
    for endpoint in endpoints:
        if endpoint.window_good or endpoint.window_bad or endpoint.recent_good or endpoint.recent_bad:
            endpoint.recent_good = _faded(endpoint.recent_good, endpoint.window_good)
            endpoint.recent_bad = _faded(endpoint.recent_bad, endpoint.window_bad)
            endpoint.window_good = endpoint.window_bad = 0


def _faded(recent: float, new: int) -> float:
    value = recent * FADE + new
    return value if value > 0.01 else 0.0


def unsuccessful(endpoints: Iterable[EndpointHealth]) -> list[EndpointHealth]:
    """Those that succeed much less often than the others, the worst first."""
    rates: list[tuple[float, float, EndpointHealth]] = []
    for endpoint in endpoints:
        volume = endpoint.recent_good + endpoint.recent_bad
        if volume >= MIN_REQUESTS and endpoint.ejected is None:
            rates.append((endpoint.recent_good / volume, volume, endpoint))
    count = len(rates) - 1
    if count < 1:
        return []
    total = sum(rate for rate, _, _ in rates)
    squares = sum(rate * rate for rate, _, _ in rates)
    found: list[tuple[float, EndpointHealth]] = []
    for rate, volume, endpoint in rates:
        mean = (total - rate) / count
        spread = max(0.0, (squares - rate * rate) / count - mean * mean)
        chance = max(0.0, mean * (1.0 - mean)) / volume
        if rate < mean - MIN_GAP and rate < mean - DEVIATIONS * sqrt(spread + chance):
            found.append((rate, endpoint))
    return [endpoint for _, endpoint in sorted(found, key=lambda pair: pair[0])]


def overdue(waited_seconds: float, late_seconds: float) -> int:
    """What a request that waits for its first token says of its endpoint's silence."""
    bound = max(SILENT_AFTER_SECONDS, OVERDUE * late_seconds)
    return 0 if waited_seconds < bound else 1 if waited_seconds < 2.0 * bound else EVIDENCE


def silent(endpoint: EndpointHealth, peers: Sequence[EndpointHealth], now: float) -> bool:
    """Whether it is silent, by the evidence that has been gathered, while another answers."""
    if endpoint.waits_overdue < EVIDENCE or now - endpoint.replied_at < SILENT_AFTER_SECONDS:
        return False
    return any(now - peer.replied_at < SILENT_AFTER_SECONDS for peer in peers if peer is not endpoint)
