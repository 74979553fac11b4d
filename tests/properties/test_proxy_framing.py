"""Framing against a plain reference, however the bytes are cut."""

from __future__ import annotations

import itertools
import re

from hypothesis import given
from hypothesis import strategies as st

from spillway_sidecar.proxy.framing import ChunkCursor, ChunkedBody, FramingError

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_EXTENSION = rb";" + _TOKEN + rb"(?:=(?:" + _TOKEN + rb'|"[ !#-\[\]-~]*"))?'
_LINE = re.compile(rb"([0-9A-Fa-f]{1,8})((?:" + _EXTENSION + rb")*)\r\n")


def reference(data: bytes) -> tuple[bytes, int, int] | None:
    """The payload, the length of the message and where its last chunk begins; None when it is no whole chunked message."""
    payload, position = b"", 0
    while True:
        line = _LINE.match(data, position)
        if line is None or len(line[2]) > 257:
            return None
        size, start = int(line[1], 16), line.end()
        if size == 0:
            return (payload, start + 2, position) if data[start : start + 2] == b"\r\n" else None
        if data[start + size : start + size + 2] != b"\r\n":
            return None
        payload += data[start : start + size]
        position = start + size + 2


_extensions = st.one_of(
    st.just(b""), st.from_regex(rb"(?:" + _EXTENSION + rb"){1,3}", fullmatch=True).filter(lambda text: len(text) < 250)
)


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """A whole chunked message."""
    pieces = draw(st.lists(st.binary(min_size=1, max_size=40), max_size=6))
    message = b""
    for piece in [*pieces, b""]:
        digits = b"%x" % len(piece)
        digits = draw(st.sampled_from([digits, digits.upper(), digits.rjust(4, b"0")]))
        message += digits + draw(_extensions) + b"\r\n" + piece + b"\r\n"
    return message


def cut(data: bytes, points: list[int]) -> list[bytes]:
    """The data in pieces."""
    edges = [0, *sorted({point % (len(data) + 1) for point in points} - {0, len(data)}), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges) if b > a]


_points = st.lists(st.integers(0, 10_000), max_size=8)


@given(messages(), st.binary(max_size=20), _points)
def test_a_body_is_read_and_what_follows_it_is_left(message: bytes, rest: bytes, points: list[int]):
    expected = reference(message)
    assert expected is not None
    decoder = ChunkedBody(10_000)
    left: bytes | None = None
    for piece in cut(message + rest, points):
        if left is not None:
            left += piece
            continue
        left = decoder.feed(piece)
    assert left == rest
    assert decoder.body() == expected[0]
    assert decoder.size == len(expected[0])


@given(messages(), st.binary(max_size=20), _points)
def test_a_cursor_finds_the_end_the_payload_and_the_last_whole_chunk(message: bytes, rest: bytes, points: list[int]):
    expected = reference(message)
    assert expected is not None
    cursor = ChunkCursor()
    payload, read, boundary = b"", 0, 0
    for piece in cut(message + rest, points):
        slices: list[tuple[int, int]] = []
        used = cursor.advance(piece, slices)
        payload += b"".join(piece[a:b] for a, b in slices)
        if cursor.boundary:
            boundary = read + cursor.boundary
        assert cursor.whole is (boundary == read + used and not cursor.done) or cursor.done
        read += used
        if cursor.done:
            break
        assert used == len(piece)
    assert cursor.done
    assert (payload, read, boundary) == expected


@given(messages(), st.integers(0, 1000), st.binary(min_size=1, max_size=3), _points)
def test_a_spoilt_message_is_read_by_nobody_or_alike(message: bytes, at: int, junk: bytes, points: list[int]):
    at %= len(message)
    data = message[:at] + junk + message[at + len(junk) :]
    expected = reference(data)
    decoder = ChunkedBody(10_000)
    cursor = ChunkCursor()
    rest: bytes | None = None
    failed = False
    for piece in cut(data, points):
        try:
            rest = decoder.feed(piece)
        except (FramingError, OverflowError):
            failed = True
            break
        cursor.advance(piece)
        assert cursor.done is (rest is not None)
        if rest is not None:
            break
    if expected is None:
        assert rest is None
    else:
        assert not failed
        assert rest is not None
        assert decoder.body() == expected[0]


@given(st.lists(st.binary(min_size=1, max_size=50), min_size=1, max_size=8), _points)
def test_a_body_past_its_limit_is_refused_before_it_is_held(pieces: list[bytes], points: list[int]):
    message = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    total = sum(map(len, pieces))
    decoder = ChunkedBody(total - 1)
    refused = False
    for piece in cut(message, points):
        try:
            assert decoder.feed(piece) is None
        except OverflowError:
            refused = True
            break
        assert decoder.size <= total - 1
    assert refused


def test_a_large_chunk_in_small_pieces_is_not_copied_for_each():
    decoder = ChunkedBody(1 << 24)
    assert decoder.feed(b"%x\r\n" % (1 << 20)) is None
    for _ in range(1 << 14):
        assert decoder.feed(b"x" * 64) is None
    assert decoder.feed(b"\r\n0\r\n\r\nrest") == b"rest"
    assert decoder.size == 1 << 20
