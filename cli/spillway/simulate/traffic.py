"""Requests: made by a seed, or read from a file.

A trace is a CSV with the columns `arrival_s,input_tokens,output_tokens,prefix_id`, and optionally `prefix_tokens`: how much of the
input the requests of that prefix id share. Without that column it is the shortest input among them, which is an upper bound. An empty prefix id: it
shares nothing. The column is also the session, for whoever wants sticky ones.

Synthetic traffic is a Poisson stream of log-normal sizes. `SHARED` puts before each prompt one of many prefixes, by Zipf's law: system
prompts, documents, the turns of a conversation so far.
"""

from __future__ import annotations

import csv
import itertools
import math
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from spillway_sidecar.routing.classify import Facts
from spillway_sidecar.scheduling.speed import request_cost

COLUMNS: Final = ("arrival_s", "input_tokens", "output_tokens", "prefix_id")
PREFIX_COLUMN: Final = "prefix_tokens"
MAX_TOKENS: Final = 100_000  # of a prompt or an output


class Arrival(NamedTuple):
    """One line of a trace."""

    at_seconds: float
    input_tokens: int
    output_tokens: int
    prefix: str = ""
    prefix_tokens: int = 0


class Request:
    """One request: what it is, and what has become of it. Times are seconds of the simulation, negative while they are not known."""

    __slots__ = (
        "ahead", "arrived_at", "bound", "cost", "declined", "ended_at", "endpoint", "facts", "failed", "first_at", "hit", "id", "input_tokens", "made", "number",
        "output_tokens", "prefix", "prefix_tokens", "probe", "retried", "router", "sent_at", "tried",
    )  # fmt: skip

    def __init__(self, id_: int, arrival: Arrival) -> None:
        self.id = id_
        self.arrived_at, self.input_tokens, self.output_tokens, self.prefix, self.prefix_tokens = arrival
        self.cost = request_cost(self.input_tokens)
        self.router = 0
        self.number = 0  # among those that came to its endpoint
        self.endpoint = -1
        self.tried: tuple[int, ...] = ()
        self.sent_at = self.first_at = self.ended_at = -1.0
        self.made = 0  # output tokens so far, as of the last preemption
        self.facts: Facts | None = None  # as the proxies would read it
        self.hit = False
        self.retried = False
        self.probe = False  # of an endpoint that was out
        self.failed = False
        self.ahead = 0
        self.bound = 0  # tokens that may wait before it where it goes; 0: any
        self.declined = 0  # how often more waited

    @property
    def to_prefill(self) -> int:
        """Tokens to be read before the next one can be made; more than the prompt after a preemption."""
        return self.input_tokens + self.made


@dataclass(frozen=True, slots=True)
class Sizes:
    """A log-normal number of tokens: median, and sigma of the logarithm."""

    median: float
    sigma: float

    @property
    def mean(self) -> float:
        """Mean of the distribution."""
        return self.median * math.exp(self.sigma**2 / 2.0)

    def draw(self, rng: random.Random) -> int:
        """One number, at least 1."""
        return min(MAX_TOKENS, max(1, round(self.median * math.exp(self.sigma * rng.gauss(0.0, 1.0)))))


@dataclass(frozen=True, slots=True)
class Traffic:
    """Synthetic traffic but for its rate. `input` is what follows the prefix; `nominal_hits` is the share of hits that `--load` reckons with."""

    input: Sizes
    output: Sizes
    prefixes: int = 0
    prefix: Sizes = Sizes(0.0, 0.0)
    zipf: float = 1.0
    nominal_hits: float = 0.0

    @property
    def prompt_tokens(self) -> float:
        """Mean prompt tokens that an engine has to read."""
        return self.input.mean + (self.prefix.mean * (1.0 - self.nominal_hits) if self.prefixes else 0.0)

    def arrivals(self, rate: float, seconds: float, seed: int) -> Iterator[Arrival]:
        """Requests of that many seconds, in order of arrival. Each seed has prefixes of its own: where they are at home is chance too."""
        rng = random.Random(f"traffic {seed}")  # noqa: S311
        lengths = [self.prefix.draw(rng) for _ in range(self.prefixes)]
        shares = list(itertools.accumulate((rank + 1) ** -self.zipf for rank in range(self.prefixes)))
        now = 0.0
        while (now := now + rng.expovariate(rate)) < seconds:
            own = self.input.draw(rng)
            out = self.output.draw(rng)
            if not shares:
                yield Arrival(now, own, out)
                continue
            (which,) = rng.choices(range(self.prefixes), cum_weights=shares)
            yield Arrival(now, own + lengths[which], out, f"p{seed}-{which}", lengths[which])


PLAIN: Final = Traffic(Sizes(500.0, 1.0), Sizes(150.0, 0.8))
SHARED: Final = Traffic(Sizes(300.0, 0.8), Sizes(150.0, 0.8), prefixes=400, prefix=Sizes(2000.0, 0.5), zipf=0.8, nominal_hits=0.5)


class BadTrace(Exception):
    """A trace file that cannot be read. The message says where and why; the command ends with 1."""


def read_trace(path: Path) -> list[Arrival]:
    """The requests of a CSV file, in order of arrival. Raises `BadTrace`."""
    rows: list[tuple[float, int, int, str, int]] = []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise BadTrace(f"{path}: the first line must name the columns {', '.join(COLUMNS)}; {', '.join(missing)} not found")
            rows.extend(_row(row, f"{path}:{reader.line_num}") for row in reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadTrace(f"{path}: {error}") from error
    if not rows:
        raise BadTrace(f"{path}: no requests")
    shared: dict[str, int] = {}
    users: dict[str, int] = {}
    for _, input_tokens, _, prefix, prefix_tokens in rows:
        least = min(input_tokens, prefix_tokens if prefix_tokens >= 0 else input_tokens)
        shared[prefix] = min(shared.get(prefix, least), least)
        users[prefix] = users.get(prefix, 0) + 1
    rows.sort(key=lambda row: row[0])
    start = rows[0][0]
    return [
        Arrival(at - start, size, out, prefix, shared[prefix] if prefix and users[prefix] > 1 else 0)
        for at, size, out, prefix, _ in rows
    ]


def _row(row: dict[str, str], where: str) -> tuple[float, int, int, str, int]:
    try:
        arrival = float(row["arrival_s"])
        sizes = (int(row["input_tokens"]), int(row["output_tokens"]), int(row.get(PREFIX_COLUMN) or -1))
    except (TypeError, ValueError) as error:
        raise BadTrace(f"{where}: {error}") from None
    if not (math.isfinite(arrival) and 1 <= sizes[0] <= MAX_TOKENS and 0 <= sizes[1] <= MAX_TOKENS):
        raise BadTrace(f"{where}: arrival_s must be finite, input_tokens 1 to {MAX_TOKENS}, output_tokens 0 to {MAX_TOKENS}")
    return arrival, sizes[0], max(1, sizes[1]), (row["prefix_id"] or "").strip(), sizes[2]


def write_trace(path: Path, arrivals: Iterable[Arrival]) -> None:
    """Writes arrivals as `read_trace` reads them."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow((*COLUMNS, PREFIX_COLUMN))
        writer.writerows((f"{at:.6f}", *rest) for at, *rest in arrivals)
