"""One inference engine, as a fluid between events.

An engine works in steps. In each step every decoding sequence makes one token, and what is left of the step's token budget prefills
the prompt at the head of the queue (chunked prefill, first come first served). A step with n decoding sequences and p prompt tokens takes

    ( (1 + (n - 1) / half_speed_batch) / decode_tokens_per_second  [if n > 0]  +  p / prefill_tokens_per_second ) / speed

seconds. Between events n does not change, so steps per second and prompt tokens per second are constant, and the next thing to
happen (a prompt is read, a sequence ends, the KV cache is full) is a division away. Every decoding sequence makes tokens at the same rate, so
one counter of steps serves them all: a sequence ends when the counter reaches the value that it was given at its first token.
A request costs three events however long it is.

The KV cache holds what runs and, in what is left, what ran: prefixes that later requests may share, and tails that nobody will, in one order
of last use. A prompt is admitted when it fits (what nobody uses is dropped, oldest first) and fewer than `max_running` decode;
when sequences outgrow the cache the youngest is preempted and begins again later, its prompt and output to be prefilled.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Hashable
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Final

from spillway.simulate.traffic import Request

NEVER: Final = float("inf")
_WATERMARK: Final = 0.01  # of the KV cache, kept free at admission for the growth of what runs, as vLLM does
_PREFILLED, _ENDED, _FULL = range(3)


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """What an engine can do at speed 1."""

    prefill_tokens_per_second: float = 8_000.0
    decode_tokens_per_second: float = 50.0  # of one sequence alone
    half_speed_batch: int = 64  # further sequences beside one at which each runs at half its speed
    max_running: int = 64  # vLLM's max_num_seqs
    kv_tokens: int = 160_000
    step_tokens: int = 2_048  # vLLM's max_num_batched_tokens

    def step_seconds(self, decoding: int) -> float:
        """What the decoding sequences take of a step."""
        return (1.0 + (decoding - 1) / self.half_speed_batch) / self.decode_tokens_per_second if decoding else 0.0

    def requests_per_second(self, prompt_tokens: float, output_tokens: float) -> float:
        """What it can do at most of such requests, prompts after cache hits: a full batch, never idle."""
        batch = max(1.0, min(float(self.max_running), self.kv_tokens / (prompt_tokens + output_tokens / 2.0)))
        each = prompt_tokens / self.prefill_tokens_per_second
        each += output_tokens * (1.0 + (batch - 1.0) / self.half_speed_batch) / self.decode_tokens_per_second / batch
        return 1.0 / each


USUAL: Final = EngineSpec()


class Engine:
    """Sequences of one engine. The caller calls `run` at `next_at`, and gets what happened then."""

    __slots__ = (
        "_cache", "_cached", "_decoding", "_due", "_left", "_pins", "_prefill_rate", "_private", "_steps", "_steps_rate", "at", "current",
        "finished", "hit_tokens", "in_flight_tokens", "index", "next_at", "pinned", "preempted", "prompt_tokens", "spec",
        "speed", "version", "waiting", "waiting_tokens",
    )  # fmt: skip

    def __init__(self, index: int, spec: EngineSpec, speed: float = 1.0) -> None:
        self.index = index
        self.spec = spec
        self.speed = speed
        self.at = 0.0
        self.next_at = NEVER
        self.version = 0
        self.waiting: deque[Request] = deque()
        self.current: Request | None = None  # its prompt is being read
        self.waiting_tokens = 0  # cost of those without a first token
        self.in_flight_tokens = 0  # cost of all
        self.finished = self.preempted = self.prompt_tokens = self.hit_tokens = 0
        self._decoding: list[tuple[float, int, Request]] = []  # heap by the step at which they end
        self._steps = 0.0
        self._steps_rate = 0.0
        self._left = 0.0  # prompt tokens of the current one to read
        self._prefill_rate = 0.0
        self._private = 0.0  # KV of what runs, shared prefixes left out
        self._pins: dict[Hashable, tuple[int, int]] = {}  # prefixes in use: how often, tokens
        self.pinned = 0
        self._cache: OrderedDict[Hashable, int] = OrderedDict()  # what nobody uses, oldest first
        self._cached = 0
        self._due = _PREFILLED

    # --- figures

    @property
    def running(self) -> int:
        """Sequences that decode or are being prefilled."""
        return len(self._decoding) + (self.current is not None)

    @property
    def in_flight(self) -> int:
        """All requests here."""
        return len(self._decoding) + len(self.waiting) + (self.current is not None)

    @property
    def kv_used(self) -> float:
        """Tokens that running sequences hold, at the last event."""
        return self._private + self.pinned

    @property
    def kv_ratio(self) -> float:
        """`kv_used` as a share."""
        return min(1.0, self.kv_used / self.spec.kv_tokens)

    def holds(self, prefix: Hashable) -> bool:
        """Whether that prefix need not be read again."""
        return prefix in self._pins or prefix in self._cache

    def seconds_to_first_token(self, request: Request, now: float) -> float:
        """What a request would wait if it came at this moment and nothing ended meanwhile: what an oracle knows."""
        tokens = self._left - (now - self.at) * self._prefill_rate if self.current is not None else 0.0
        met = set()
        for other in self.waiting:
            tokens += other.to_prefill
            if other.prefix_tokens and (other.prefix in met or self.holds(other.prefix)):
                tokens -= other.prefix_tokens
            met.add(other.prefix)
        tokens += request.to_prefill
        if request.prefix_tokens and (request.prefix in met or self.holds(request.prefix)):
            tokens -= request.prefix_tokens
        decoding = len(self._decoding)
        spec = self.spec
        seconds = tokens * (
            spec.step_seconds(decoding) / max(1, spec.step_tokens - decoding) + 1.0 / spec.prefill_tokens_per_second
        )
        running_over = self.in_flight + 1 - spec.max_running
        if running_over > 0 and self._decoding:  # places have to come free first
            ends = sorted(self._decoding)[min(running_over, decoding) - 1][0]
            seconds += max(0.0, ends - self._steps) * spec.step_seconds(decoding)
        return seconds / self.speed

    # --- what happens

    def submit(self, request: Request, now: float) -> bool:
        """Takes a request in; False for one that can never fit."""
        if request.input_tokens + request.output_tokens > self.spec.kv_tokens:
            return False
        self.advance(now)
        self.waiting.append(request)
        self.waiting_tokens += request.cost
        self.in_flight_tokens += request.cost
        if self.current is None:
            self._admit()
            self._plan()
        return True

    def set_speed(self, speed: float, now: float) -> None:
        """From this moment on it is so fast."""
        self.advance(now)
        self.speed = speed
        self._plan()

    def advance(self, now: float) -> None:
        """Lets the fluid flow up to `now`, which is not after `next_at`."""
        seconds = now - self.at
        if seconds > 0.0:
            self.at = now
            self._left -= seconds * self._prefill_rate
            steps = seconds * self._steps_rate
            self._steps += steps
            self._private += steps * len(self._decoding)

    def run(self, now: float) -> tuple[Request | None, Request | None]:
        """What was due at `next_at`: the request that has its first token, and the one that has ended, which may be the same."""
        self.advance(now)
        first: Request | None = None
        ended: Request | None = None
        if self._due == _PREFILLED:
            request = self.current
            assert request is not None  # noqa: S101
            self.current = None
            if request.made == 0:
                first = request
                request.made = 1
                self._private += 1
                self.waiting_tokens -= request.cost
            if request.made >= request.output_tokens:
                ended = request
                self._forget(request)
            else:
                heappush(self._decoding, (self._steps + request.output_tokens - request.made, request.id, request))
        elif self._due == _ENDED:
            self._steps, _, ended = heappop(self._decoding)
            ended.made = ended.output_tokens
            self._forget(ended)
        elif not self._drop(self.spec.step_tokens):
            self._preempt()
            self._plan()
            return None, None
        self._admit()
        self._plan()
        return first, ended

    def _admit(self) -> None:
        """Begins to read the next prompt, if there is a place and room for it."""
        if self.current is not None or not self.waiting or len(self._decoding) >= self.spec.max_running:
            return
        request = self.waiting[0]
        prefix = request.prefix
        shared = request.prefix_tokens
        hit = shared > 0 and self.holds(prefix)
        need = request.to_prefill - (shared if prefix in self._pins else 0)
        room = self.spec.kv_tokens * (1.0 - _WATERMARK if self._decoding else 1.0) - self._private - self.pinned
        if need > room:
            return
        own = self._cache.pop(prefix, 0)  # it is not to be dropped for itself
        self._cached -= own
        self._drop(need - room + self._cached)
        if own:
            self._cache[prefix] = own
            self._cached += own
        self.waiting.popleft()
        self.current = request
        if shared:
            self._pin(prefix, shared)
        self._private += request.to_prefill - shared
        self._left = float(max(1, request.to_prefill - (shared if hit else 0)))
        if request.made == 0:
            request.hit = hit
            self.prompt_tokens += request.input_tokens
            self.hit_tokens += shared if hit else 0

    def _pin(self, prefix: Hashable, tokens: int) -> None:
        users, held = self._pins.get(prefix, (0, tokens))
        if not users:
            self.pinned += held
            self._cached -= self._cache.pop(prefix, 0)
        self._pins[prefix] = (users + 1, held)

    def _unpin(self, request: Request) -> None:
        users, held = self._pins[request.prefix]
        if users > 1:
            self._pins[request.prefix] = (users - 1, held)
            return
        del self._pins[request.prefix]
        self.pinned -= held
        self._cache[request.prefix] = held
        self._cached += held

    def _forget(self, request: Request) -> None:
        """It has ended: its tail joins what nobody uses, as does its prefix if no other needs it."""
        self.finished += 1
        self.in_flight_tokens -= request.cost
        own = request.input_tokens - request.prefix_tokens + request.made
        self._private = max(0.0, self._private - own)
        if not self._decoding and self.current is None:
            self._private = 0.0
        self._cache[("tail", request.id)] = own
        self._cached += own
        if request.prefix_tokens:
            self._unpin(request)

    def _drop(self, tokens: float) -> int:
        """Drops what nobody uses, oldest first, until so many tokens are free or nothing is left; what it dropped."""
        cache = self._cache
        dropped = 0
        while dropped < tokens and cache:
            dropped += cache.popitem(last=False)[1]
        self._cached -= dropped
        return dropped

    def _preempt(self) -> None:
        """The youngest sequence gives up its room and waits at the head for being prefilled again."""
        youngest = max(self._decoding, key=lambda entry: entry[2].id)
        self._decoding.remove(youngest)
        self._decoding.sort()
        request = youngest[2]
        made = int(request.output_tokens - (youngest[0] - self._steps))
        self._private -= request.input_tokens - request.prefix_tokens + request.output_tokens - (youngest[0] - self._steps)
        request.made = max(1, made)
        if request.prefix_tokens:
            self._unpin(request)
        self.preempted += 1
        self.waiting.appendleft(request)

    def _plan(self) -> None:
        """Rates from here on, and what comes next."""
        spec = self.spec
        decoding = len(self._decoding)
        step = spec.step_seconds(decoding)
        self.version += 1
        self._prefill_rate = 0.0
        if self.current is not None:
            chunk = max(1, spec.step_tokens - decoding)
            step += chunk / spec.prefill_tokens_per_second
            self._prefill_rate = chunk / step * self.speed
        elif not decoding:
            self._steps_rate = 0.0
            self.next_at = NEVER
            return
        rate = self._steps_rate = self.speed / step
        seconds = NEVER
        if self.current is not None:
            seconds = self._left / self._prefill_rate
            self._due = _PREFILLED
        if decoding:
            ends = (self._decoding[0][0] - self._steps) / rate
            if ends < seconds:
                seconds = ends
                self._due = _ENDED
            room = spec.kv_tokens - self._private - self.pinned - self._cached
            full = room / (rate * decoding)
            if full < seconds and (self._cache or decoding > 1 or self.current is not None):
                seconds = full
                self._due = _FULL
        self.next_at = self.at + (max(0.0, seconds))
