"""Continuous batching, as a state machine that is told the time.

An engine works in steps. In each step every decoding sequence makes one output token, and what is left of the step's token
budget prefills prompts in the order of their admission (chunked prefill); the step that completes a prompt also makes its
first output token. With n decoding sequences and p prompt tokens a step takes

    slowdown * ( (1 + (n - 1) / half_speed_batch) / decode_tokens_per_second  [if n > 0]  +  p / prefill_tokens_per_second )

seconds, so a sequence alone decodes at the full rate, and at `1 + half_speed_batch` sequences each runs at half of it, while
together they still make more tokens. Between steps requests are admitted first come, first served, while fewer than
`max_running` run and the KV cache has room for the head's prompt *and* output. The room is reserved at admission, so nothing
is ever preempted, and a large request at the head holds back those behind it.

A request that arrives during a step joins at its end, even if that step is accounted for only later: `advance(now)` may be
called as rarely as one likes. Runs of steps with the same composition are taken at once, which makes a coarse `advance`
cheap; `next_step_at()` is when to call for token-by-token streaming, `next_change_at()` when to call for first tokens and
ends alone. A cancelled request gives its place and its KV room back at once.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from itertools import islice


class TooLargeError(ValueError):
    """The request's prompt and output can never fit the KV cache."""


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """What an engine can do. Raises `ValueError` where a figure makes no sense."""

    prefill_tokens_per_second: float = 8_000.0
    decode_tokens_per_second: float = 50.0  # of one sequence alone
    half_speed_batch: int = 64  # further sequences beside one at which each runs at half its speed
    max_running: int = 64
    kv_tokens: int = 131_072
    step_tokens: int = 2_048  # most tokens in one step, prefill and decode together

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, not {getattr(self, name)}")

    def step_seconds(self, decoding: int, prefill_tokens: int) -> float:
        """Length of a step at full speed; see the module's formula."""
        seconds = prefill_tokens / self.prefill_tokens_per_second
        if decoding:
            seconds += (1 + (decoding - 1) / self.half_speed_batch) / self.decode_tokens_per_second
        return seconds


@dataclass(frozen=True, slots=True)
class Progress:
    """New output tokens of one request, made by `at_seconds`. `tokens` is 0 only for a request that asked for none."""

    request_id: int
    at_seconds: float
    tokens: int
    first: bool
    finished: bool


@dataclass(slots=True)
class _Sequence:
    request_id: int
    arrived_at: float
    prompt_tokens: int
    output_tokens: int
    prefilled: int = 0
    made: int = 0

    @property
    def need(self) -> int:
        return self.prompt_tokens + self.output_tokens


@dataclass(slots=True)
class _Step:
    start: float
    seconds: float
    slowdown: float
    prefill: list[tuple[_Sequence, int]] = field(default_factory=list)
    decoding: list[_Sequence] = field(default_factory=list)

    @property
    def end(self) -> float:
        return self.start + self.seconds


class Engine:
    """One engine's sequences. Times are seconds of one clock that never goes back; the caller chooses which."""

    def __init__(self, spec: EngineSpec) -> None:
        self.spec = spec
        self.slowdown = 1.0  # factor on the length of steps from the next one on
        self.prompt_tokens_total = 0
        self.output_tokens_total = 0
        self.finished_total = 0
        self.cancelled_total = 0
        self._waiting: deque[_Sequence] = deque()
        self._running: dict[int, _Sequence] = {}  # in the order of admission
        self._reserved_tokens = 0
        self._step: _Step | None = None

    @property
    def waiting(self) -> int:
        """Requests that are not admitted."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Requests that are prefilled or decoded."""
        return len(self._running)

    @property
    def kv_tokens_reserved(self) -> int:
        """KV room promised to running requests; this, not what they have filled so far, decides whether another fits."""
        return self._reserved_tokens

    @property
    def kv_cache_ratio(self) -> float:
        """Reserved share of the KV cache, 0..1."""
        return self._reserved_tokens / self.spec.kv_tokens

    def info(self) -> dict[str, float]:
        """State in figures."""
        return {
            "waiting": self.waiting,
            "running": self.running,
            "kv_tokens_reserved": self._reserved_tokens,
            "kv_tokens": self.spec.kv_tokens,
            "slowdown": self.slowdown,
            "prompt_tokens_total": self.prompt_tokens_total,
            "output_tokens_total": self.output_tokens_total,
            "finished_total": self.finished_total,
            "cancelled_total": self.cancelled_total,
        }

    def submit(self, request_id: int, prompt_tokens: int, output_tokens: int, now: float) -> None:
        """Take a request in. Raises `TooLargeError` if it can never run."""
        sequence = _Sequence(request_id, now, max(1, prompt_tokens), max(0, output_tokens))
        if sequence.need > self.spec.kv_tokens:
            raise TooLargeError(f"{sequence.need} tokens asked for, the KV cache holds {self.spec.kv_tokens}")
        self._waiting.append(sequence)
        if self._step is None:
            self._begin(now)

    def cancel(self, request_id: int, now: float) -> bool:
        """Forget a request, waiting or running; False if it is not here (it has finished)."""
        sequence = self._running.pop(request_id, None)
        if sequence is None:
            sequence = next((s for s in self._waiting if s.request_id == request_id), None)
            if sequence is None:
                return False
            self._waiting.remove(sequence)
        else:
            self._reserved_tokens -= sequence.need
        self.cancelled_total += 1
        if self._step is not None and not self._running:
            self._step = None
            self._begin(now)
        return True

    def next_step_at(self) -> float | None:
        """End of the step under way, or None if there is nothing to do."""
        return None if self._step is None else self._step.end

    def next_change_at(self) -> float | None:
        """Earliest time at which a first token or an end can be due; `advance` before it shows only further tokens."""
        step = self._step
        if step is None:
            return None
        return step.start + self._steps_alike(step, float("inf")) * step.seconds

    def advance(self, now: float) -> list[Progress]:
        """All that happens up to and including `now`, in order of time."""
        progress: list[Progress] = []
        while (step := self._step) is not None and step.end <= now:
            count = self._steps_alike(step, now) if now - step.end >= step.seconds else 1
            end = step.start + count * step.seconds
            self._complete(step, end, count, progress)
            self._step = None
            self._begin(end)
        return progress

    def _begin(self, at: float) -> None:
        """Admit who fits and start the next step, at `at` or when the next request arrives."""
        waiting, spec = self._waiting, self.spec
        if not self._running:
            if not waiting:
                return
            at = max(at, waiting[0].arrived_at)
        # Whoever arrives at the very moment at which a step begins joins the next, as if that step had begun before the arrival
        # was known: the times are then the same however rarely `advance` is called.
        while waiting and (waiting[0].arrived_at < at or not self._running) and self._fits(waiting[0]):
            sequence = waiting.popleft()
            self._running[sequence.request_id] = sequence
            self._reserved_tokens += sequence.need
        step = _Step(at, 0.0, self.slowdown)
        step.decoding = [s for s in self._running.values() if s.prefilled == s.prompt_tokens]
        prefill_tokens = 0
        if len(step.decoding) < len(self._running):
            room = max(1, spec.step_tokens - len(step.decoding))
            for sequence in self._running.values():
                if (left := sequence.prompt_tokens - sequence.prefilled) and (chunk := min(left, room - prefill_tokens)):
                    step.prefill.append((sequence, chunk))
                    prefill_tokens += chunk
        step.seconds = self.slowdown * spec.step_seconds(len(step.decoding), prefill_tokens)
        self._step = step

    def _fits(self, sequence: _Sequence) -> bool:
        return len(self._running) < self.spec.max_running and self._reserved_tokens + sequence.need <= self.spec.kv_tokens

    def _steps_alike(self, step: _Step, now: float) -> int:
        """How many steps from `step` on are the same and end by `now`; at least 1."""
        running = self._running
        if step.prefill or step.slowdown != self.slowdown or any(s.request_id not in running for s in step.decoding):
            return 1
        count = min(s.output_tokens - s.made for s in step.decoding)
        if now != float("inf"):
            count = min(count, int((now - step.start) / step.seconds))
        if self._waiting and self._fits(head := self._waiting[0]):
            # It fits and is not in, so it arrived after this step began: stop at the last boundary before its arrival.
            count = min(count, int((head.arrived_at - step.start) / step.seconds))
        return max(1, count)

    def _complete(self, step: _Step, end: float, count: int, progress: list[Progress]) -> None:
        running = self._running
        for sequence, chunk in step.prefill:
            if running.get(sequence.request_id) is not sequence:
                continue  # cancelled during the step
            sequence.prefilled += chunk
            self.prompt_tokens_total += chunk
            if sequence.prefilled == sequence.prompt_tokens:
                self._made(sequence, min(1, sequence.output_tokens), end, progress)
        for sequence in step.decoding:
            if running.get(sequence.request_id) is sequence:
                self._made(sequence, count, end, progress)

    def _made(self, sequence: _Sequence, tokens: int, end: float, progress: list[Progress]) -> None:
        first = sequence.made == 0
        sequence.made += tokens
        self.output_tokens_total += tokens
        finished = sequence.made == sequence.output_tokens
        if finished:
            del self._running[sequence.request_id]
            self._reserved_tokens -= sequence.need
            self.finished_total += 1
        progress.append(Progress(sequence.request_id, end, tokens, first, finished))

    def waiting_ids(self) -> list[int]:
        """Waiting requests, next to be admitted first."""
        return [s.request_id for s in islice(self._waiting, None)]

    def running_ids(self) -> list[int]:
        """Running requests in the order of their admission."""
        return list(self._running)
