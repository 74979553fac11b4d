"""What a row of the table is, and what it works with."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Final

from tests.faults.fate import NEVER, Fate, Request
from tests.faults.load import Load, Make, counts, mixed, percentile
from tests.faults.world import Shape, World

RATE: Final = 300.0
LOG_FLUSH_SECONDS: Final = 1.5


@dataclass
class Measured:
    """What a row has found, beside what its requests came to."""

    figure: str
    requests: list[Request]
    sound: bool = True  # nothing that must never be
    quick: bool = True  # the times and shares of the bar
    exempt: set[str] = field(default_factory=set)  # tags of requests whose own bytes were corrupted


@dataclass(frozen=True)
class Row:
    """One row of the table. `allowed`: fates that its fault may have beside OK."""

    name: str
    bar: str
    run: Callable[[Bench], Awaitable[Measured]]
    seconds: float
    allowed: frozenset[Fate]
    shape: Shape

    def lasting(self, seconds: float) -> Row:
        """The same for another time."""
        return replace(self, seconds=seconds)


@dataclass
class Bench:
    """A row's tools. `seconds`: how long it should last; `rate`: requests a second."""

    world: World
    load: Load
    rng: random.Random
    seconds: float
    rate: float = RATE

    @contextlib.asynccontextmanager
    async def sending(self, make: Make = mixed, rate: float | None = None) -> AsyncIterator[list[Request]]:
        """Open-loop load for as long as the block lasts; then waits until all have ended. Gives the list that they are put into."""
        sent: list[Request] = []
        first = len(self.load.requests)
        task = asyncio.create_task(self.load.run(rate or self.rate, 1e6, make))
        try:
            yield sent
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await self.load.ended()
            sent.extend(self.load.requests[first:])

    @property
    def now(self) -> float:
        """The machine's monotonic time."""
        return asyncio.get_running_loop().time()

    def until(self, end: float) -> bool:
        """Whether there is time left."""
        return self.now < end

    async def attempts(self) -> dict[str, int]:
        """Attempts by request id, as the gateways' access logs say."""
        await asyncio.sleep(LOG_FLUSH_SECONDS)
        found: dict[str, int] = {}
        for gateway in self.world.gateways:
            path = self.world.folder / f"{gateway.name}.access"
            for line in path.read_text().splitlines() if path.exists() else ():
                entry = json.loads(line)
                found[entry["requestId"]] = entry["attempts"]
        return found


@dataclass(frozen=True)
class Result:
    """One line of the printed table."""

    row: str
    bar: str
    figure: str
    n: int
    losses: int
    seed: int
    seconds: float
    sound: bool
    quick: bool
    fates: dict[str, int]
    leaks: list[str]
    lag_p99: float
    wrong: list[Request]


def judge(row: Row, seed: int, seconds: float, measured: Measured, leaks: list[str], strays: int, lags: list[float]) -> Result:
    """The result of a row: what is never right counts as a loss, and so does what this fault should not bring about."""
    right = row.allowed | {Fate.OK}
    bad = [r for r in measured.requests if r.fate not in right and (r.fate in NEVER or r.tag.decode() not in measured.exempt)]
    return Result(
        row=row.name,
        bar=row.bar,
        figure=measured.figure,
        n=len(measured.requests),
        losses=len(bad),
        seed=seed,
        seconds=seconds,
        sound=measured.sound and not bad and not leaks and not strays,
        quick=measured.quick,
        fates=counts(measured.requests),
        leaks=leaks,
        lag_p99=percentile(lags, 0.99),
        wrong=bad,
    )


ROWS: list[Row] = []
SOAK: list[Row] = []  # apart from the matrix
Function = Callable[[Bench], Awaitable[Measured]]


def row(
    name: str,
    bar: str,
    *,
    seconds: float,
    allowed: tuple[Fate, ...] = (Fate.SIGNALLED,),
    shape: Shape | None = None,
    into: list[Row] = ROWS,
) -> Callable[[Function], Function]:
    """Puts a function into the table."""

    def add(function: Function) -> Function:
        into.append(Row(name, bar, function, seconds, frozenset(allowed), shape or ORDINARY))
        return function

    return add


ORDINARY: Final = Shape(gateways=2)


def added(requests: list[Request], plain: list[Request]) -> list[float]:
    """Seconds to the first byte beyond the median of the plain ones; streams only, since a unary reply has its first byte at its end."""
    usual = percentile([r.first_seconds for r in plain if r.stream and r.fate is Fate.OK], 0.5)
    return [max(0.0, r.first_seconds - usual) for r in requests if r.stream and r.first]
