"""Whether we are as strict on framing as the stricter of nginx and Node: over the corpus, and over what is made of it by chance.

    python -m fuzz.differential                     asks both for the corpus and writes their verdicts down
    python -m fuzz.differential --mutations 20000   and lets chance spoil the cases; prints where we take what one of them does not

What is written down is what `make test` holds us to, without the programs.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import random
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from bench.peers import CannotHaveError
from tests.corpora.corpus import HERE, cases, exceptions

from fuzz.framing import End, Verdict, excused, more_lenient, ours
from fuzz.judges import Judge, nginx, node

VERDICTS = HERE / "verdicts.json"
AT_A_TIME = 100
MORE_LENIENT = "MORE LENIENT"
MAX_BYTES = 4000  # of a case that is spoilt
_PIECES = (
    b"\r", b"\n", b"\r\n", b"\x00", b" ", b"\t", b",", b":", b";", b"0", b"1", b"x", b"+", b"-", b"_", b'"', b"\x0b", b"\x0c", b"\x7f", b"\x80", b"\xa0",
    b"\xff", b"\r\n ", b"\r\n\r\n", b"chunked", b"identity", b", ", b"Content-Length: 0\r\n", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n",
    b"Connection: close\r\n", b"0\r\n\r\n", b"5\r\nabcde\r\n", b";a=b", b';a="b"', b"; a = b", b"HTTP/1.0", b"Host: other\r\n", b"a: b\r\n", b"Expect: 100-continue\r\n",
)  # fmt: skip


def digest(data: bytes) -> str:
    """What tells that a case is the one that was judged."""
    return hashlib.sha1(data).hexdigest()[:12]


def load() -> dict[str, Any]:
    """The verdicts that were written down: for each judge its version, and its verdict on each case."""
    return json.loads(VERDICTS.read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def as_verdict(told: list[Any]) -> Verdict:
    """A verdict as it was written down."""
    requests, end, _ = told
    return Verdict(tuple((method, target, length, sha) for method, target, length, sha in requests), End(end))


async def record(judge: Judge) -> dict[str, Any]:
    """The judge's verdicts on the corpus."""
    corpus = {name: case["bytes"] for name, case in cases("requests").items()}
    verdicts = await _ask(judge, list(corpus.values()), [await ours(data) for data in corpus.values()])
    told = {
        name: [list(verdict.taken), verdict.end, digest(data)]
        for (name, data), verdict in zip(corpus.items(), verdicts, strict=True)
    }
    return {"version": judge.version, "verdicts": told}


async def _ask(judge: Judge, data: list[bytes], own: list[Verdict]) -> list[Verdict]:
    """The judge's verdicts. Where it waits for what we have taken, this machine may have been too slow for it: it is asked again, alone."""
    room = asyncio.Semaphore(AT_A_TIME)

    async def one(request: bytes) -> Verdict:
        async with room:
            return await judge.verdict(request)

    verdicts = await asyncio.gather(*(one(request) for request in data))
    for index, request in enumerate(data):
        if verdicts[index].end is End.WAITS and more_lenient(own[index], verdicts[index]) is not None:
            verdicts[index] = await judge.verdict(request)
    return verdicts


def spoil(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """The data with one to three things wrong with it."""
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(8):
            case 0:
                data = data[:at] + rng.choice(_PIECES) + data[at:]
            case 1:
                data = data[:at] + data[at + 1 :]
            case 2:
                data = data[:at] + rng.choice(_PIECES) + data[at + 1 :]
            case 3:
                data = data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]
            case 4:  # a line twice, or gone
                lines = data.split(b"\r\n")
                line = rng.randrange(len(lines))
                data = b"\r\n".join([*lines[:line], *[lines[line]] * rng.choice((0, 2)), *lines[line + 1 :]])
            case 5:  # a line of another case
                lines, others = data.split(b"\r\n"), other.split(b"\r\n")
                lines.insert(rng.randrange(1, len(lines) + 1), rng.choice(others))
                data = b"\r\n".join(lines)
            case 6:  # another request behind it
                data += other
            case _:  # a number one more or less
                digits = [index for index, byte in enumerate(data) if 0x30 <= byte <= 0x39]
                if digits:
                    index = rng.choice(digits)
                    data = data[:index] + b"%d" % rng.randrange(10) + data[index + 1 :]
    return data or b"\r\n"


async def mutate(judges: list[Judge], count: int, seed: int) -> Counter[str]:
    """Prints where we are more lenient than one of them on a spoilt case; how often, by judge and kind."""
    rng = random.Random(seed)
    corpus = [case["bytes"] for case in cases("requests").values() if len(case["bytes"]) <= MAX_BYTES]
    sound = [
        case["bytes"] for case in cases("requests", "sound", "sequences", "unwanted").values() if len(case["bytes"]) <= MAX_BYTES
    ]
    found: Counter[str] = Counter()
    for start in range(0, count, 2000):
        spoilt = [
            spoil(rng.choice(sound if rng.random() < 0.7 else corpus), rng.choice(corpus), rng)
            for _ in range(min(2000, count - start))
        ]
        own = [await ours(data) for data in spoilt]
        of_interest = [(data, verdict) for data, verdict in zip(spoilt, own, strict=True) if verdict.taken]
        for judge in judges:
            others = await _ask(judge, [data for data, _ in of_interest], [verdict for _, verdict in of_interest])
            for (data, verdict), other in zip(of_interest, others, strict=True):
                found[f"{judge.name}: taken by us"] += 1
                difference = more_lenient(verdict, other)
                if difference is None:
                    continue
                reason = excused(judge.name, difference, data, exceptions())
                found[f"{judge.name}: {'by exception: ' + reason if reason else MORE_LENIENT}"] += 1
                if not reason and found[f"{judge.name}: {MORE_LENIENT}"] <= 40:
                    print(f"\n{judge.name}: {difference.why}\n{data!r}", flush=True)
    return found


async def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutations", type=int, default=0, help="spoilt cases to ask about")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    try:
        async with nginx() as one, node() as other:
            told = {judge.name: await record(judge) for judge in (one, other)}
            VERDICTS.write_text(json.dumps(told, separators=(",", ":")).replace('],"', '],\n"') + "\n", encoding="utf-8")
            print(
                f"verdicts of nginx {one.version} and Node {other.version} on {len(told['node']['verdicts'])} cases: {Path(VERDICTS).name}"
            )
            found = await mutate([one, other], options.mutations, options.seed)
    except CannotHaveError as error:
        print(error, file=sys.stderr)
        return 2
    for kind, count in sorted(found.items()):
        print(f"{count:8}  {kind}")
    return int(any(kind.endswith(MORE_LENIENT) for kind in found))


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
