"""Event streams in every framing, with events split over chunks in any way and cut anywhere.

A case is a stream's text, and whether it is `whole` (it has its end). A whole one arrives as it is, and one without its end, or that broke
off, as whole events with one event behind them that tells of it, or as a body without its end.
"""

from __future__ import annotations

import random

import pytest
from tests.corpora.corpus import cases
from tests.fakes.raw_engine import LAST, SSE_HEAD, chunk
from tests.fakes.wires import Got, Line

STREAMS = cases("streams")
LENGTH = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n"
CLOSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n\r\n"
ENDS = (b"\n\n", b"\r\n\r\n", b"\r\r")


def chunked(text: bytes, size: int) -> bytes:
    """The text in chunks of that size."""
    return SSE_HEAD + b"".join(chunk(text[n : n + size]) for n in range(0, len(text), size)) + LAST


def framings(text: bytes, *, few: bool) -> dict[str, bytes]:
    """Replies that carry the text; each of them but the last ends by itself."""
    sizes = (len(text) or 1, 4000) if few else (len(text) or 1, 1, 7, 60)
    return {
        **{f"chunks of {size}": chunked(text, size) for size in sizes},
        "length": LENGTH % len(text) + text,
        "close": CLOSE + text,
    }


def assert_parted(got: Got | None, text: bytes) -> None:
    """It is not taken for whole: what arrived is the start of the text, and if the client is told so in an event, whole events."""
    assert got is not None
    if got.status != 200:
        assert got.status == 502
        return
    assert text.startswith(got.body)
    assert got.told or not got.whole, got.body[-100:]
    if got.told and len(got.body) < 60_000:  # of larger events parts go out
        assert got.body.endswith(ENDS), got.body[-100:]


@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
@pytest.mark.parametrize("name", STREAMS)
async def test_a_stream_arrives_as_it_is_or_is_told_apart(name: str, version: bytes):
    case = STREAMS[name]
    text, few = case["bytes"], case.get("few", False)
    line = Line()
    rng = random.Random(name)
    for framing, raw in framings(text, few=few).items():
        ends = "close" if framing == "close" else ""
        points = sorted(rng.sample(range(len(raw)), 8))
        ways = [[raw], [raw[a:b] for a, b in zip([0, *points], [*points, len(raw)], strict=True) if b > a]]
        if not few:
            ways.append([raw[n : n + 1] for n in range(len(raw))])
        for pieces in ways:
            got = line.carry(pieces, ends=ends, version=version)
            if case["whole"]:
                assert got is not None
                assert (got.status, got.body, got.whole, got.told) == (200, text, True, False), (framing, got.body[-200:])
            else:
                assert_parted(got, text)


@pytest.mark.parametrize("name", [name for name, case in STREAMS.items() if len(case["bytes"]) < 300])
async def test_a_stream_cut_anywhere_is_told_apart(name: str):
    text = STREAMS[name]["bytes"]
    line = Line()
    for framing, raw in framings(text, few=False).items():
        for end in range(0, len(raw), 1 if len(raw) < 500 else 7):
            ends = ("close", "reset")[end % 2]
            got = line.carry([raw[:end]] if end else [], ends=ends)
            if framing != "close" or ends == "reset" or not (b"[DONE]" in raw[:end] or b'"finish_reason"' in raw[:end]):
                assert_parted(got, text)  # else its end is there, and nothing more was announced
