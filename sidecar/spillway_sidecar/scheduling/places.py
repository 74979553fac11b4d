"""Whether an engine is short of places, and what one more request would wait for one: learned by its sidecar from the requests that pass.

An engine runs so many requests at a time, by a setting or by what its KV cache holds, and says neither. Where all places are taken few prompt
tokens may wait, and the next first token be seconds away, because somebody has to end before. That shows: a request has waited for much longer
than its prompt takes to be read, and has its first token soon after another one has ended. What runs at that moment is all that the engine runs;
since it takes requests in the order in which they come, that is what came before and this one, less what has ended.

    wait for a place = (requests here + 1 - places) * mean seconds that a request holds its place / places

in tokens of prompt, at the pace at which this engine reads prompts when nothing holds them up: the unit in which all waits are compared. With
places to spare it is 0. What was learned is the most that was seen; after `MEMORY_SECONDS` in which nobody waited for a place it is forgotten, and so
it is when only fewer are seen any more.

Whole replies hold places, and nothing is learned from them: they do not tell when they began.
"""

from __future__ import annotations

from typing import Final

from spillway_sidecar.scheduling.speed import BASE_TOKENS

LEAST: Final = 4  # below, it is hardly places that an engine is short of
HELD_UP: Final = 2.0  # times what its prompt takes to be read
GRAIN_SECONDS: Final = 0.02  # an engine works in steps
MEMORY_SECONDS: Final = 120.0
GAIN: Final = 0.1
OUTLIER: Final = 4.0  # no reading moves the pace further than one that is so many times slower


class Places:
    """The places of one engine. Mutable, single-threaded; told the time."""

    __slots__ = ("_ended_at", "_first_at", "_held_seconds", "_pace", "_seen_at", "ended", "entered", "limit")

    def __init__(self) -> None:
        self.entered = 0
        self.ended = 0
        self.limit = 0  # 0: none is known
        self._pace = 0.0  # seconds a token of prompt takes
        self._held_seconds = 0.0
        self._ended_at = self._first_at = self._seen_at = -1e9

    def enter(self) -> int:
        """A request comes; returns its number."""
        self.entered += 1
        return self.entered

    def first_token(self, number: int, tokens: int, entered_at: float, now: float) -> None:
        """A stream has its first token."""
        since = entered_at if entered_at > self._first_at else self._first_at  # from when on nobody's prompt was before its own
        self._first_at = now
        work = BASE_TOKENS + tokens
        pace = self._pace
        if not pace:
            self._pace = (now - since) / work
            return
        long = HELD_UP * pace * work + GRAIN_SECONDS
        freed = self._ended_at
        running = number - self.ended
        if freed - since > long and now - freed < long:
            since = freed
            if running >= LEAST and running >= self.limit:
                self.limit = running
                self._seen_at = now
        elif self.limit and running > self.limit:
            self.limit = running
        if self.limit and now - self._seen_at > MEMORY_SECONDS:
            self.limit = 0
        seen = (now - since) / work
        self._pace = pace + GAIN * (min(seen, OUTLIER * pace) - pace)

    def end(self, held_seconds: float, now: float) -> None:
        """A request has ended so long after its first token; 0 for a whole reply, and where there was none."""
        self.ended += 1
        self._ended_at = now
        if held_seconds > 0.0:
            mean = self._held_seconds
            self._held_seconds = mean + GAIN * (held_seconds - mean) if mean else held_seconds

    @property
    def wait_tokens(self) -> int | None:
        """What one more request would wait for a place; None where it would not, or nothing is known."""
        limit = self.limit
        if not limit:
            return None
        over = self.entered - self.ended + 1 - limit
        return int(over * self._held_seconds / (limit * self._pace)) if over > 0 and self._pace else None

    def info(self) -> dict[str, object]:
        """What is learned."""
        return {
            "places": self.limit or None,
            "taken": self.entered - self.ended,
            "held_seconds": round(self._held_seconds, 3),
            "prompt_tokens_per_second": round(1.0 / self._pace) if self._pace else None,
        }
