"""Engines' bytes and what a client gets of them: whole as it came, or told apart from whole, however the bytes are cut.

`broken`: what is no reply is answered with 502 and none of its words. `whole`: the `payload` arrives, and the connection to the engine is
`kept` unless the case says not. `corrupt`: it goes wrong behind the first byte; at most the `payload` arrives, and not as whole.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.corpora.corpus import cases, wire
from tests.fakes.proxy_bench import Bench, config, post
from tests.fakes.raw_engine import answers, reply
from tests.fakes.wires import Got, Line

BROKEN = cases("replies", "broken")
WHOLE = cases("replies", "whole")
CORRUPT = cases("replies", "corrupt")
FEW = 700  # bytes up to which a message is cut at each of them


def cuts(data: bytes) -> list[list[bytes]]:
    """The data in pieces: as one, as two in every way, byte by byte."""
    step = 1 if len(data) <= FEW else max(1, len(data) // 60)
    ways = [[data], *([data[:n], data[n:]] for n in range(1, len(data), step))]
    return [*ways, [data[n : n + 1] for n in range(len(data))]] if len(data) <= FEW else ways


@pytest.mark.parametrize("name", BROKEN)
async def test_what_is_no_reply_is_told_without_its_words(name: str):
    line = Line()
    for pieces in cuts(BROKEN[name]["bytes"]):
        got = line.carry(pieces, request=post())
        assert got is not None, pieces
        assert not got.engine_kept
        if got.status == 200:  # the start of a good size line may go out before the rest of it has come
            assert not got.whole, pieces
            assert not got.body, pieces
            assert len(pieces) > 1
        else:
            assert (got.status, got.whole) == (502, True), pieces
            assert dict(got.headers)[b"x-spillway-reason"] == b"upstream_protocol"
            assert b"smtp" not in got.body


@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
@pytest.mark.parametrize("name", WHOLE)
async def test_what_is_a_reply_arrives_whole_however_it_is_cut(name: str, version: bytes):
    case = WHOLE[name]
    line = Line()
    for pieces in cuts(case["bytes"]):
        got = line.carry(pieces, ends=case.get("ends", ""), request=post(version=version), version=version)
        assert got is not None, pieces
        assert (got.status, got.body, got.whole, got.told) == (case.get("status", 200), wire(case["payload"]), True, False), pieces
        if len(pieces) == 1:  # what comes behind a reply, later, ends the connection then
            assert got.engine_kept is case.get("kept", True)


@pytest.mark.parametrize("ends", ["close", "reset"])
@pytest.mark.parametrize("name", [name for name, case in WHOLE.items() if case.get("kept", True)])
async def test_a_reply_that_ends_early_is_never_taken_for_whole(name: str, ends: str):
    data = WHOLE[name]["bytes"]
    line = Line()
    for end in range(0, len(data), 1 if len(data) <= FEW else 13):
        got = line.carry([data[:end]] if end else [], ends=ends, request=post())
        assert got is not None
        assert got.status in {502, 503} or not got.whole, data[:end]
        if got.status < 500:
            assert wire(WHOLE[name]["payload"]).startswith(got.body)


@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
@pytest.mark.parametrize("name", CORRUPT)
async def test_what_goes_wrong_behind_the_first_byte_is_not_taken_for_whole(name: str, version: bytes):
    case: dict[str, Any] = CORRUPT[name]
    line = Line()
    for pieces in cuts(case["bytes"]):
        got: Got | None = line.carry(pieces, request=None if case.get("stream") else post(version=version), version=version)
        assert got is not None, pieces
        assert not got.engine_kept
        if got.status == 200:
            assert got.told or not got.whole, pieces
            assert wire(case["payload"]).startswith(got.body), pieces
        else:
            assert got.status == 502
        assert b"poison" not in got.body


@pytest.mark.parametrize("name", ["no HTTP", "length and chunked", "endless interim", "chunk size without digits"])
async def test_what_is_no_reply_is_asked_of_another_endpoint(name: str):
    async with Bench() as bench:
        bad = await bench.engine(answers(BROKEN[name]["bytes"]))
        good = await bench.engine(answers(reply()))
        router = await bench.router(config(bad.port, good.port))
        assert {got.status for got in await asyncio.gather(*(router.ask() for _ in range(8)))} == {200}
        assert bad.calls, "the bad one was never asked"
