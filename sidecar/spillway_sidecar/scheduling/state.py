"""One router's picture of one endpoint, and of a cluster's speed.

Load is counted in estimated tokens. Three things meet in a score:

* **guarded load**, `max(reported + R * sent since the report, R * own in flight)`: a report that says 0 for ever cannot
  attract more than this router's own count allows, and R (live routers) stands for what the others did meanwhile.
* **slowness**: time to first token against the cluster's mean for requests of the same size and kind. 1 is ordinary; 3 is
  an endpoint that takes three times as long. It fades toward 1 while nothing is observed, so that a slow endpoint is
  tried again.
* **penalty**: above 1 after failures, so that failing fast never looks attractive.

A report older than `STALE_SECONDS` is not used; then the router's own view is all there is. It never counts as 0 or full.
"""

from __future__ import annotations

from typing import Final

from spillway_wire.loads import Load

STALE_SECONDS: Final = 3.0  # three reporting intervals
KNEE_SHARE: Final = 8  # queueing is felt from an eighth of the concurrency limit on
KNEE_MIN_REQUESTS: Final = 4
KNEE_MAX_REQUESTS: Final = 32
SLOWNESS_DEAD_BAND: Final = 1.25  # below this, differences are noise
SLOWNESS_MAX: Final = 100.0
SLOWNESS_HALF_LIFE_SECONDS: Final = 20.0
SLOWNESS_GAIN: Final = 0.25
SPEED_GAIN: Final = 0.05
BASE_TOKENS: Final = 256  # what a request costs an engine however short its prompt
EXPECTED_OUTPUT_TOKENS: Final = 64
PENALTY_MAX: Final = 64.0
DOWN_BASE_SECONDS: Final = 0.5
DOWN_MAX_SECONDS: Final = 10.0
SLOW_START_SECONDS: Final = 5.0
SLOW_START_FACTOR: Final = 8.0


def request_cost(prompt_tokens: int) -> int:
    """Load of one request in estimated tokens."""
    return prompt_tokens + EXPECTED_OUTPUT_TOKENS


class ClusterSpeed:
    """Mean seconds to first token per unit of work in a cluster, apart for streams and whole replies."""

    __slots__ = ("mean_cost", "stream", "unary")

    def __init__(self) -> None:
        self.stream = 0.0
        self.unary = 0.0
        self.mean_cost = float(BASE_TOKENS)

    def observe(self, stream: bool, seconds: float, prompt_tokens: int) -> float:
        """Takes one observation in; returns it relative to the mean before it (1 is ordinary)."""
        self.mean_cost += SPEED_GAIN * (prompt_tokens + EXPECTED_OUTPUT_TOKENS - self.mean_cost)
        per_work = seconds / (BASE_TOKENS + prompt_tokens)
        mean = self.stream if stream else self.unary
        if mean <= 0.0:
            if stream:
                self.stream = per_work
            else:
                self.unary = per_work
            return 1.0
        relative = per_work / mean
        # One outlier moves the mean as far as a request four times as slow would.
        moved = mean * (1.0 + SPEED_GAIN * (min(relative, 4.0) - 1.0))
        if stream:
            self.stream = moved
        else:
            self.unary = moved
        return relative


class EndpointState:
    """One endpoint as this router sees it. Mutable, single-threaded; numbers only."""

    __slots__ = (
        "blocked", "draining", "down_until", "failures", "id", "in_flight", "in_flight_tokens", "inbound", "knee_tokens", "max_requests", "penalty",
        "probing", "reported_at", "reported_requests", "reported_tokens", "returned_at", "sent_since", "sent_since_tokens", "slowness",
        "slowness_at", "speed", "suspect",
    )  # fmt: skip

    def __init__(self, id_: str, inbound: bool, speed: ClusterSpeed) -> None:
        self.id = id_
        self.inbound = inbound
        self.speed = speed
        self.in_flight = 0
        self.in_flight_tokens = 0
        self.sent_since = 0
        self.sent_since_tokens = 0
        self.reported_tokens = 0
        self.reported_requests = 0
        self.reported_at = -1e9
        self.suspect = False
        self.slowness = 1.0
        self.slowness_at = 0.0
        self.penalty = 1.0
        self.failures = 0
        self.down_until = 0.0
        self.probing = False
        self.returned_at = -1e9
        self.draining = False
        self.blocked = False  # cannot be used at all, e.g. for want of its key
        self.max_requests = 1 << 30
        self.knee_tokens = float(KNEE_MIN_REQUESTS * BASE_TOKENS)

    def limit(self, max_concurrency: int, max_queue: int) -> None:
        """Sets what the endpoint holds at most, and where queueing is felt."""
        self.max_requests = max_concurrency + (max_queue if self.inbound else 0)
        knee = min(max(max_concurrency / KNEE_SHARE, KNEE_MIN_REQUESTS), KNEE_MAX_REQUESTS)
        self.knee_tokens = knee * self.speed.mean_cost

    def sent(self, tokens: int) -> None:
        """A request of `tokens` estimated tokens went out."""
        self.in_flight += 1
        self.in_flight_tokens += tokens
        self.sent_since += 1
        self.sent_since_tokens += tokens

    def done(self, tokens: int) -> None:
        """That request has ended, however it did."""
        self.in_flight -= 1
        self.in_flight_tokens -= tokens

    def report(self, load: Load, now: float) -> None:
        """The endpoint's own word on its load. A figure frozen while this router's own count moves is suspect."""
        tokens = load.in_flight_tokens
        self.suspect = tokens == self.reported_tokens and abs(self.sent_since_tokens) > 0 and self.in_flight_tokens > tokens
        self.reported_tokens = tokens
        self.reported_requests = load.in_flight + load.queued
        self.reported_at = now
        self.sent_since = 0
        self.sent_since_tokens = 0
        self.draining = load.draining or not load.engine_up

    def succeeded(self, now: float) -> None:
        """A request ended well: the endpoint is up."""
        if self.failures or self.penalty != 1.0:
            self.failures = 0
            self.penalty = max(1.0, self.penalty / 2.0)
            if self.down_until:
                self.returned_at = now
                self.down_until = 0.0
        self.probing = False

    def failed(self, now: float, hard: bool) -> None:
        """An attempt failed. `hard`: the endpoint could not be reached at all, so it is down for a while that doubles."""
        self.failures += 1
        self.penalty = min(self.penalty * 2.0, PENALTY_MAX)
        self.probing = False
        if hard or self.failures >= 3:
            self.down_until = now + min(DOWN_BASE_SECONDS * 2.0 ** min(self.failures - 1, 10), DOWN_MAX_SECONDS)

    def first_token(self, stream: bool, seconds: float, prompt_tokens: int, now: float) -> None:
        """Takes in one time to first token."""
        relative = self.speed.observe(stream, seconds, prompt_tokens)
        current = self.slowness_now(now)
        self.slowness = min(current + SLOWNESS_GAIN * (min(relative, SLOWNESS_MAX) - current), SLOWNESS_MAX)
        self.slowness_at = now

    def slowness_now(self, now: float) -> float:
        """Slowness faded toward 1 by the time since it was last observed."""
        if self.slowness == 1.0:
            return 1.0
        return float(1.0 + (self.slowness - 1.0) * 0.5 ** ((now - self.slowness_at) / SLOWNESS_HALF_LIFE_SECONDS))

    def guarded_tokens(self, routers: int, now: float) -> int:
        """`max(reported + R * sent since, R * own in flight)`, or the latter alone when the report is stale or suspect."""
        own = routers * self.in_flight_tokens
        if self.suspect or now - self.reported_at > STALE_SECONDS:
            return own
        hinted = self.reported_tokens + routers * self.sent_since_tokens
        return hinted if hinted > own else own

    def guarded_requests(self, routers: int, now: float) -> int:
        """The same in requests: to tell whether the endpoint is full."""
        own = self.in_flight
        if self.suspect or now - self.reported_at > STALE_SECONDS:
            return own
        hinted = self.reported_requests + routers * self.sent_since
        return hinted if hinted > own else own

    def score(self, cost: int, routers: int, now: float) -> float:
        """Relative time to first token that a request of `cost` tokens would meet; lower is better."""
        load = (self.guarded_tokens(routers, now) + cost) / self.knee_tokens
        score = (1.0 + load) * self.penalty
        if self.slowness != 1.0:
            slowness = self.slowness_now(now)
            if slowness > SLOWNESS_DEAD_BAND:
                score *= slowness
        since = now - self.returned_at
        if since < SLOW_START_SECONDS:
            score *= 1.0 + SLOW_START_FACTOR * (1.0 - since / SLOW_START_SECONDS)
        return score

    def info(self) -> dict[str, object]:
        """The picture as plain values."""
        return {
            "id": self.id,
            "in_flight": self.in_flight,
            "in_flight_tokens": self.in_flight_tokens,
            "reported_requests": self.reported_requests,
            "reported_tokens": self.reported_tokens,
            "slowness": round(self.slowness, 3),
            "penalty": self.penalty,
            "failures": self.failures,
            "draining": self.draining,
            "suspect": self.suspect,
        }
