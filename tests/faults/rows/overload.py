"""More than the engines can do: goodput, refusals, priority and fairness.

The world is small on purpose: four engines of eight places each, prompts of one size, so that capacity is a figure. It is
measured in the same world by a closed loop that keeps every place taken.
"""

from __future__ import annotations

import asyncio
import random
from typing import Final

from tests.faults.bench import Bench, Measured, row
from tests.faults.fate import Fate, Request
from tests.faults.load import Make, milliseconds, percentile
from tests.faults.world import Shape

PLACES: Final = 32
TOKENS: Final = (5, 35)  # of one size, all places of an engine would come free at once
PROMPT_CHARACTERS: Final = 800
PRIORITY: Final = "x-llm-d-inference-objective"
FLOW: Final = "x-llm-d-inference-fairness-id"
LIGHT_FLOWS: Final = 9
SMALL: Final = Shape(
    gateways=1,
    engine=("--decode-rate", "50", "--prefill-rate", "4000", "--max-running", "8"),
    limits="{maxConcurrency: 8, maxQueue: 8}",
    first_token="5s",
    more=(
        f"  flowControl: {{maxRequests: 64, maxWait: 2s, priorityHeader: {PRIORITY}, "
        f"priorities: [{{value: top, priority: 10}}], fairnessHeader: {FLOW}}}\n"
    ),
    direct=False,
)
REFUSED: Final = (Fate.REFUSED,)
WARM_SECONDS: Final = 2.0


def plain(rng: random.Random, number: int) -> Request:
    """Prompts of one size."""
    return Request(number, f"{number:x} ".ljust(PROMPT_CHARACTERS, "x"), rng.randint(*TOKENS), stream=True)


def ranked(rng: random.Random, number: int) -> Request:
    """One in ten is of top priority."""
    top = rng.random() < 0.1
    headers = f"{PRIORITY}: top\r\n" if top else ""
    return Request(
        number,
        f"{number:x} ".ljust(PROMPT_CHARACTERS, "x"),
        rng.randint(*TOKENS),
        stream=True,
        headers=headers,
        flow="top" if top else "",
    )


def flows(hog_share: float) -> Make:
    """Nine light flows, and a hog that sends this share of all."""

    def make(rng: random.Random, number: int) -> Request:
        flow = "hog" if rng.random() < hog_share else f"light-{rng.randrange(LIGHT_FLOWS)}"
        return Request(
            number,
            f"{number:x} ".ljust(PROMPT_CHARACTERS, "x"),
            rng.randint(*TOKENS),
            stream=True,
            headers=f"{FLOW}: {flow}\r\n",
            flow=flow,
        )

    return make


async def closed(bench: Bench, seconds: float, under_way: int) -> list[Request]:
    """A closed loop that keeps so many requests under way; those that ended whole, without the first seconds."""
    load = bench.load
    done: list[Request] = []

    def again(request: Request) -> None:
        if request.fate is Fate.OK:
            done.append(request)
        asyncio.get_running_loop().call_later(0.0 if request.fate is Fate.OK else 0.05, lambda: load.dispatch(load.new(plain)))

    load.on_over = again
    for _ in range(under_way):
        load.dispatch(load.new(plain))
    await asyncio.sleep(WARM_SECONDS)
    start = bench.now
    await asyncio.sleep(seconds)
    end = bench.now
    load.on_over = None
    await asyncio.sleep(0.1)
    await load.ended()
    return [request for request in done if start <= request.ended <= end]


async def capacity(bench: Bench, seconds: float) -> float:
    """Whole replies a second while a few more requests than places are kept under way."""
    return len(await closed(bench, seconds, PLACES + 4)) / seconds


async def offered(bench: Bench, rate: float, seconds: float, make: Make = plain) -> tuple[list[Request], float, float]:
    """So much load for so long; the requests, and the span that is looked at, without the first seconds."""
    async with bench.sending(make, rate) as requests:
        await asyncio.sleep(WARM_SECONDS)
        start = bench.now
        await asyncio.sleep(seconds)
        end = bench.now
    return requests, start, end


def served(requests: list[Request], start: float, end: float) -> float:
    """Whole replies a second."""
    return sum(r.fate is Fate.OK and start <= r.ended <= end for r in requests) / (end - start)


async def overload(bench: Bench, factor: float, share: float) -> Measured:
    """Offers a multiple of the capacity."""
    able = await capacity(bench, bench.seconds / 3)
    requests, start, end = await offered(bench, able * factor, bench.seconds * 2 / 3)
    good = served(requests, start, end) / able
    refused = [r for r in requests if r.fate is Fate.REFUSED and r.due >= start]
    at_once = [r.seconds for r in refused if r.reason not in {"queue_timeout", "evicted"}]
    reasons: dict[str, int] = {}
    for request in refused:
        reasons[f"{request.status} {request.reason}"] = reasons.get(f"{request.status} {request.reason}", 0) + 1
    told = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
    return Measured(
        f"goodput {good:.1%} of {able:.0f} rps; refused at once {milliseconds(at_once)}; {told}",
        requests,
        quick=good >= share and percentile(at_once, 0.99) <= 0.005,
    )


@row("offered load 3x capacity", "goodput >= 95 % of capacity; refusals p99 <= 5 ms", seconds=20, allowed=REFUSED, shape=SMALL)
async def three_times(bench: Bench) -> Measured:
    """Three times what the engines can do."""
    return await overload(bench, 3.0, 0.95)


@row("offered load 10x capacity", "goodput >= 90 % of capacity; refusals p99 <= 5 ms", seconds=20, allowed=REFUSED, shape=SMALL)
async def ten_times(bench: Bench) -> Measured:
    """Ten times what the engines can do."""
    return await overload(bench, 10.0, 0.9)


@row(
    "top priority at 3x",
    "its TTFT within 1.2x of that at 80 % load; goodput >= 95 % of capacity",
    seconds=48,
    allowed=REFUSED,
    shape=SMALL,
)  # fmt: skip
async def priority(bench: Bench) -> Measured:
    """One request in ten is of top priority, at 80 % and at 300 % of capacity."""
    able = await capacity(bench, bench.seconds / 5)
    calm, start, _ = await offered(bench, able * 0.8, bench.seconds * 2 / 5, ranked)
    before = [r.first_seconds for r in calm if r.flow == "top" and r.first and r.due >= start]
    busy, start, end = await offered(bench, able * 3.0, bench.seconds * 2 / 5, ranked)
    top = [r for r in busy if r.flow == "top" and r.due >= start]
    after = [r.first_seconds for r in top if r.first]
    refused = sum(r.fate is not Fate.OK for r in top)
    good = served(busy, start, end) / able
    ratios = [percentile(after, share) / max(percentile(before, share), 1e-6) for share in (0.5, 0.99)]
    return Measured(
        f"{ratios[0]:.2f}x at p50, {ratios[1]:.2f}x at p99: {milliseconds(before)} at 80 %, {milliseconds(after)} at 300 %; "
        f"goodput {good:.1%}; {refused} of {len(top)} refused",
        [*calm, *busy],
        quick=max(ratios) <= 1.2 and good >= 0.95 and not refused,
    )


@row(
    "a hog and nine light flows",
    "light p99 within 1.2x of alone",
    seconds=48,
    allowed=REFUSED,
    shape=SMALL,
)  # fmt: skip
async def hog(bench: Bench) -> Measured:
    """Nine flows send 45 % of the capacity together; then a tenth sends 255 % beside them.

    An engine that has all places taken makes each reply more slowly than one that is half empty, whoever fills it. So the difference from
    engines that are full without a hog, where nobody waits, is shown beside the one from half empty engines.
    """
    able = await capacity(bench, bench.seconds / 6)
    full = [r.seconds for r in await closed(bench, bench.seconds / 4, PLACES)]
    alone, start, _ = await offered(bench, able * 0.45, bench.seconds / 4, flows(0.0))
    before = [r.seconds for r in alone if r.fate is Fate.OK and r.due >= start]
    beside, start, _ = await offered(bench, able * 3.0, bench.seconds / 3, flows(0.85))
    light = [r for r in beside if r.flow != "hog" and r.due >= start]
    after = [r.seconds for r in light if r.fate is Fate.OK]
    refused = sum(r.fate is not Fate.OK for r in light)
    ratio, full_ratio = (percentile(after, 0.99) / max(percentile(times, 0.99), 1e-6) for times in (before, full))
    return Measured(
        f"{ratio:.2f}x: {milliseconds(before)} alone, {milliseconds(after)} beside the hog; {full_ratio:.2f}x of engines as full without it, "
        f"{milliseconds(full)}; {refused} of {len(light)} light ones refused",
        [*alone, *beside],
        quick=ratio <= 1.2 and not refused,
    )
