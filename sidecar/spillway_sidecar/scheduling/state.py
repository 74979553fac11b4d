"""One router's picture of one endpoint.

Load is counted in estimated tokens: what is before one more request until its first token. Four things meet in a predicted wait:

* **what this router has there itself**, which it knows at every moment: prompts without a first token, and a little for each request that
  runs.
* **what others have there**: the endpoint's own word, less what of it was this router's. The word has an age: it regresses to the mean of
  what others have at the cluster's endpoints. Not to nothing, by which all routers would run to the one that is silent, and it does not hold for
  ever, by which a busy one would never be tried again. Own requests stay out of the mean, or an endpoint that was never tried would look as
  busy as those are while they are asked. At least this router's own count is reckoned with for each of the R routers: a word of 0 for ever, or
  none at all, cannot attract more than that allows. A figure that stands still while requests come is no word.
* **slowness**: time to first token for the work that was ahead and its own, against the cluster's mean for requests of the same size
  and kind. 1 is ordinary; 3 is an endpoint that takes three times as long. It fades toward 1 while nothing is observed, so that a
  slow endpoint is tried again.
* **health**: the penalty after failures and the slow start, which `EndpointHealth` keeps. A probe costs a request a second attempt, so whoever
  fails is probed only after its peers have had a few turns each: many routers with a little traffic each would else send it a fair share.

Whether it is full, or has a queue, is by a report that is not older than `STALE_SECONDS`, else by this router's own count.

What changes only with time (the fading, the slow start) is folded into one `factor` by `refresh`, which the sweep calls
several times a second: a predicted wait is then a handful of additions.
"""

from __future__ import annotations

from typing import Final

from spillway_sidecar.scheduling.health import SLOW_START_SECONDS, EndpointHealth
from spillway_sidecar.scheduling.running import SHORT_QUEUE, SHORT_SHARE, RunningLimit
from spillway_sidecar.scheduling.speed import BASE_TOKENS, ClusterSpeed
from spillway_sidecar.scheduling.wait import Turn
from spillway_wire.loads import Load

UNLIMITED: Final = 1 << 30
LASTING_QUEUE_SECONDS: Final = 1.2  # more than one sample of the engine's metrics
KV_FULL_RATIO: Final = 0.95
WORD_SECONDS: Final = 1.0  # how long its word holds that it has no room
LONE_WORD_SECONDS: Final = 0.25  # and while nothing of ours is there to bring another
STALE_SECONDS: Final = 3.0  # three reporting intervals
WORD_HALF_LIFE_SECONDS: Final = 1.0
RUNNING_TOKENS: Final = 8  # what a request that runs costs the next one's prefill
PROBE_TURNS: Final = (
    4  # of each of its peers, that pass after a failure before a probe: those of many routers would add up to a fair share
)
SLOWNESS_MAX: Final = 10.0
SLOWNESS_HALF_LIFE_SECONDS: Final = 10.0
SLOWNESS_GAIN: Final = 0.1
UNARY_GAIN: Final = 0.05  # a whole reply's time says more of its length than of the engine
_WORD_KEEPS: Final = 0.5 ** (1.0 / WORD_HALF_LIFE_SECONDS)  # a second
_NEVER: Final = -1e9


class EndpointState(EndpointHealth):
    """One endpoint as this router sees it. Mutable, single-threaded; numbers only."""

    __slots__ = (
        "awaiting_tokens", "finished_since", "in_flight", "in_flight_tokens", "inbound", "kv_full", "load",
        "max_concurrency", "max_requests", "max_running", "others_tokens", "probe_from", "reported_at", "reported_requests", "reported_tokens", "reported_waiting", "running_limit", "sent_since", "sent_since_tokens",
        "slowness", "slowness_at", "speed", "suspect", "told_at", "told_tokens", "turn", "waiting_since",
    )  # fmt: skip

    def __init__(self, id_: str, inbound: bool, speed: ClusterSpeed) -> None:
        super().__init__(id_)
        self.inbound = inbound
        self.speed = speed
        self.in_flight = 0
        self.in_flight_tokens = 0
        self.awaiting_tokens = 0  # of those in flight, what has not had its first token
        self.sent_since = 0
        self.sent_since_tokens = 0
        self.finished_since = 0
        self.reported_tokens = 0
        self.reported_requests = 0
        self.reported_waiting = 0
        self.waiting_since = 0.0
        self.max_running = UNLIMITED  # learned: what the engine runs while requests wait in it
        self.running_limit = RunningLimit(UNLIMITED)
        self.kv_full = False
        self.reported_at = -1e9
        self.suspect = False
        self.turn: Turn | None = None  # the wait before it, where a rule asks for it
        self.slowness = 1.0
        self.slowness_at = 0.0
        self.max_requests = UNLIMITED
        self.max_concurrency = UNLIMITED
        self.load: Load | None = None  # the last report
        self.told_tokens = 0.0  # what is before one more request, by that report
        self.told_at = _NEVER
        self.others_tokens = 0.0  # of that, what is not this router's
        self.probe_from = 0  # the next probe, by how often its peers and it have been asked

    # --- what is known of it

    def limit(self, max_concurrency: int, max_queue: int) -> None:
        """Sets what the endpoint holds at most."""
        self.max_requests = max_concurrency + (max_queue if self.inbound else 0)
        self.running_limit.bound(max_concurrency)
        self.max_running = self.running_limit.limit
        self.max_concurrency = max_concurrency

    def report(self, load: Load, now: float, arrived_tokens: int = 0) -> None:
        """The endpoint's own word on its load. A figure that stands still while this router holds more than it is suspect.

        `arrived_tokens`: of a request whose first token comes with the word, which therefore counts it no more.
        """
        self._hear(load, now, arrived_tokens)
        tokens = load.in_flight_tokens
        self.suspect = tokens == self.reported_tokens and self.sent_since_tokens > 0 and self.in_flight_tokens > tokens
        self.reported_tokens = tokens
        self.reported_requests = load.in_flight + load.queued
        self._learn_limit(load, now)
        self.reported_at = now
        self.sent_since = 0
        self.sent_since_tokens = 0
        self.finished_since = 0
        self.kv_full = load.kv_cache_ratio is not None and load.kv_cache_ratio >= KV_FULL_RATIO
        self.says(now, away=load.draining or not load.engine_up)

    def _hear(self, load: Load, now: float, arrived_tokens: int) -> None:
        """What is before one more request, by the report."""
        waiting: float | None = load.waiting_tokens
        if waiting is None and (load.queued or load.engine_waiting is not None):  # no sidecar of ours, or one that does not tell
            waiting = (load.queued + (load.engine_waiting or 0)) * self.speed.mean_cost
        if waiting is not None:
            before, self.told_tokens = self.told_tokens, waiting + RUNNING_TOKENS * (load.in_flight + load.queued)
            if load.place_tokens:
                self.told_tokens += load.place_tokens
            still = self.told_tokens == before > 0.0 and self.sent_since_tokens > 0
            self.told_at = _NEVER if still else now
            if not still:
                own = self.awaiting_tokens - arrived_tokens + RUNNING_TOKENS * self.in_flight
                self.others_tokens = self.told_tokens - own if self.told_tokens > own else 0.0
                self.speed.told(self.told_tokens, self.others_tokens)
        self.load = load

    def _learn_limit(self, load: Load, now: float) -> None:
        """How long something has waited there, and how many the engine runs at most."""
        waiting = load.queued + (load.engine_waiting or 0)
        if not waiting or now - self.reported_at > STALE_SECONDS:
            self.waiting_since = now
        self.reported_waiting = waiting
        if load.engine_running is not None:
            self.running_limit.sample(load.engine_running, load.engine_waiting or 0, now)
            self.max_running = self.running_limit.limit

    # --- requests

    def sent(self, tokens: int) -> bool:
        """A request of `tokens` estimated tokens went out. Returns whether it is the probe of an endpoint that is half open."""
        self.in_flight += 1
        self.in_flight_tokens += tokens
        self.sent_since += 1
        self.sent_since_tokens += tokens
        if self.shut and not self.probing:
            self.probing = True
            return True
        return False

    def awaits(self, tokens: int) -> int:
        """That request waits for its first token; returns the tokens that were ahead of it."""
        ahead = self.awaiting_tokens
        self.awaiting_tokens = ahead + tokens
        return ahead

    def arrived(self, tokens: int) -> None:
        """It has had its first token, or waits no more."""
        self.awaiting_tokens -= tokens

    def done(self, tokens: int, *, probe: bool = True) -> None:
        """That request has ended, however it did. `probe`: whether it may have been the probe."""
        self.in_flight -= 1
        self.in_flight_tokens -= tokens
        self.finished_since += 1
        if probe:
            self.probing = False

    def first_token(self, stream: bool, seconds: float, prompt_tokens: int, now: float, ahead_tokens: int = 0) -> None:
        """Takes in one time to first token, with what was ahead when the request was sent. Who waits for a place tells nothing of the engine's speed."""
        if self.load is not None and self.load.place_tokens:
            return
        relative = self.speed.observe(stream, seconds, prompt_tokens, ahead_tokens)
        current = self.slowness_now(now) if self.slowness != 1.0 else 1.0
        gain = SLOWNESS_GAIN if stream else UNARY_GAIN
        self.slowness = slowness = current + gain * ((relative if relative < SLOWNESS_MAX else SLOWNESS_MAX) - current)
        self.slowness_at = now
        if self.penalty == 1.0 and now - self.returned_at > SLOW_START_SECONDS:
            self.factor = slowness
        else:
            self.refresh(now)

    def succeeded(self, now: float, sent_at: float | None = None) -> None:
        """A request ended well."""
        super().succeeded(now, sent_at)
        if self.speed.success_ratio < 0.999:
            self.speed.ended(well=True)

    def failed(self, now: float, *, hard: bool, sent_at: float | None = None) -> None:
        """An attempt failed."""
        super().failed(now, hard=hard, sent_at=sent_at)
        self.speed.ended(well=False)
        self.probe_from = 0 if hard else self.peers.asked + PROBE_TURNS * (len(self.peers.endpoints) - 1)

    # --- figures

    def slowness_now(self, now: float) -> float:
        """Slowness faded toward 1 by the time since it was last observed."""
        return 1.0 + (self.slowness - 1.0) * float(0.5 ** ((now - self.slowness_at) / SLOWNESS_HALF_LIFE_SECONDS))

    def refresh(self, now: float) -> None:
        """Folds slowness into `factor` too."""
        super().refresh(now)
        if self.slowness != 1.0:
            slowness = self.slowness_now(now)
            if abs(slowness - 1.0) < 0.02:
                self.slowness = 1.0
            else:
                self.factor *= slowness

    def wait_tokens(self, routers: int, now: float) -> float:
        """What is before one more request, in tokens; -1 where it is `full`. Asked of every candidate of every request."""
        if self.in_flight >= self.max_requests:
            return -1.0
        if (
            self.reported_requests + routers * self.sent_since >= self.max_requests
            and now - self.reported_at <= STALE_SECONDS
            and not self.suspect
        ):
            return -1.0
        own = self.awaiting_tokens + RUNNING_TOKENS * self.in_flight
        mean = self.speed.others
        others: float = mean + (self.others_tokens - mean) * _WORD_KEEPS ** (now - self.told_at)
        least = (routers - 1) * own
        return BASE_TOKENS + own + (others if others > least else least)

    def full(self, routers: int, now: float) -> bool:
        """Whether it holds all that it may, by this router's count or by the guarded report."""
        if self.in_flight >= self.max_requests:
            return True
        if now - self.reported_at > STALE_SECONDS or self.suspect:
            return False
        return self.reported_requests + routers * self.sent_since >= self.max_requests

    def open_tokens(self, routers: int, now: float) -> int:
        """`guarded_tokens`, or -1 where it is `full`: both in one look, for every candidate of every request."""
        if self.in_flight >= self.max_requests:
            return -1
        own = routers * self.in_flight_tokens
        if now - self.reported_at > STALE_SECONDS or self.suspect:
            return own
        if self.reported_requests + routers * self.sent_since >= self.max_requests:
            return -1
        hinted = self.reported_tokens + routers * self.sent_since_tokens
        return hinted if hinted > own else own

    def queue_now(self, now: float) -> int:
        """Requests that wait there by its last word and what this router has sent and seen end since; 0 of a queue that does not last."""
        lasting = self.reported_waiting > 0 and self.reported_at - self.waiting_since >= LASTING_QUEUE_SECONDS
        if not lasting or now - self.reported_at > STALE_SECONDS:
            return 0
        return max(0, self.reported_waiting + self.sent_since - self.finished_since)

    def predicted_wait_seconds(self, now: float) -> float:
        """How long one more request would wait for its turn; 0 where no rule has asked for it to be learned."""
        return self.turn.seconds(now, self.queue_now(now)) if self.turn is not None else 0.0

    def queues(self, now: float) -> bool:
        """Whether one more request would wait there: its last word, if fresh, or this router's count against the learned limit.

        A few that wait are no queue: engines take new requests between two steps.
        """
        if self.in_flight >= self.max_running:
            return True
        return (
            self.reported_waiting > max(SHORT_QUEUE, self.reported_requests // SHORT_SHARE)
            and self.reported_at - self.waiting_since >= LASTING_QUEUE_SECONDS
            and now - self.reported_at <= STALE_SECONDS
        )

    def saturated(self, routers: int, now: float) -> bool:
        """Whether it has as much as it can run: one more request would wait there, and may as well wait where it can go elsewhere.

        By this router's own count, or by the endpoint's last word with what was sent and has ended since, or for want of KV cache.
        """
        limit = self.max_running
        if self.in_flight >= limit:
            return True
        if now - self.reported_at > (WORD_SECONDS if self.in_flight else LONE_WORD_SECONDS) or self.suspect:
            return False
        if self.kv_full:
            return True
        return self.reported_requests - self.finished_since + routers * self.sent_since >= limit

    def room(self, routers: int, now: float) -> int:
        """How many more it could run at once: 0 where it is `saturated`."""
        if self.saturated(routers, now):
            return 0
        taken = self.in_flight
        if now - self.reported_at <= WORD_SECONDS and not self.suspect:
            taken = max(taken, self.reported_requests - self.finished_since + routers * self.sent_since)
        return max(1, self.max_running - taken)

    def info(self) -> dict[str, object]:
        """The picture as plain values."""
        return {
            "id": self.id,
            "in_flight": self.in_flight,
            "in_flight_tokens": self.in_flight_tokens,
            "awaiting_tokens": self.awaiting_tokens,
            "reported_requests": self.reported_requests,
            "reported_tokens": self.reported_tokens,
            "reported_waiting": self.reported_waiting,
            "max_running": self.max_running if self.max_running < UNLIMITED else None,
            "told_tokens": round(self.told_tokens) if self.told_at > _NEVER else None,
            "slowness": round(self.slowness, 3),
            "penalty": self.penalty,
            "factor": round(self.factor, 3),
            "failures": self.failures,
            "draining": self.draining,
            "probing": self.probing,
            "blocked": self.blocked,
            "limited": self.limited_until > 0.0,
            "trouble": ": ".join(self.trouble) if self.trouble else None,
            "away": self.away_until > 0.0,
            "down": self.down_until > 0.0,
            "ejected": self.ejected,
            "ejections": self.ejections,
            "suspect": self.suspect,
            "turn": self.turn.info() if self.turn is not None else None,
        }
