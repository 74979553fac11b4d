"""A head that comes again on a connection is read as if it had come for the first time, whatever else it may be."""

from hypothesis import given
from hypothesis import strategies as st

from spillway_sidecar.proxy.errors import Refusal
from spillway_sidecar.proxy.head import parse_request, parse_response
from spillway_sidecar.proxy.heads import RequestHead, ResponseHead
from spillway_sidecar.proxy.repeated import MAX_DIGITS, remembered_reply, remembered_request

LIMIT = 100_000
LINES = st.lists(
    st.sampled_from([b"accept: */*", b"X-Content-Length: 12", b"user-agent: a/12", b"Connection: close", b"x-a:", b"date: 12"]),
    max_size=4,
)
LENGTHS = st.sampled_from(
    [b"Content-Length: %b", b"content-length:%b", b"CONTENT-LENGTH:  %b ", b"transfer-encoding: chunked", b"x-b: %b"]
)
NUMBERS = st.one_of(
    st.integers(0, 200_000).map(lambda number: b"%d" % number),
    st.sampled_from([b"", b"007", b"1" * 12, b"-1", b"1x", b"+2", b"\xb2"]),
)
EDITS = st.lists(st.tuples(st.integers(0, 200), st.integers(0, 2), st.binary(min_size=1, max_size=4)), max_size=2)


def head(first: bytes, before: list[bytes], length: bytes, number: bytes, after: list[bytes]) -> bytes:
    line = length.replace(b"%b", number)
    return b"\r\n".join([first, b"host: here", *before, line, *after, b"", b""])


def edited(data: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    for at, removed, put in edits:
        data = data[:at] + put + data[at + removed :]
    return data


def figures(found: RequestHead | ResponseHead | None) -> object:
    if found is None:
        return None
    names = [name for name in type(found).__slots__ if name != "passed"]
    values = {name: getattr(found, name) for name in names}
    return {**values, "fields": dict(found.fields)}


def request(data: bytes) -> RequestHead | None:
    try:
        return parse_request(data, max_body_bytes=LIMIT)
    except Refusal:
        return None


def reply(data: bytes) -> ResponseHead | None:
    try:
        return parse_response(data)
    except ValueError:
        return None


@given(LINES, LENGTHS, NUMBERS, NUMBERS, LINES, EDITS, st.binary(max_size=8))
def test_a_request_head(
    before: list[bytes],
    length: bytes,
    first: bytes,
    second: bytes,
    after: list[bytes],
    edits: list[tuple[int, int, bytes]],
    body: bytes,
) -> None:
    line = b"POST /v1/chat/completions HTTP/1.1"
    data = head(line, before, length, first, after)
    found = request(data)
    known = remembered_request(data, found) if found is not None else None
    if known is None:
        return
    other = head(line, before, length, second, after)
    for following in (edited(other, edits) + body, other[:-1], other + body, data + body):
        again = known.again(following, LIMIT)
        if again is not None:
            assert figures(again) == figures(request(following))
    assert known.again(data, LIMIT) is not None
    if second.isdigit() and len(second) < 10 and int(second) <= LIMIT:
        assert known.again(other, LIMIT) is not None or length == b"x-b: %b"


@given(LINES, LENGTHS, NUMBERS, NUMBERS, LINES, EDITS, st.binary(max_size=8))
def test_the_head_of_a_reply(
    before: list[bytes],
    length: bytes,
    first: bytes,
    second: bytes,
    after: list[bytes],
    edits: list[tuple[int, int, bytes]],
    body: bytes,
) -> None:
    line = b"HTTP/1.1 200 OK"
    data = head(line, before, length, first, after)
    found = reply(data)
    known = remembered_reply(data, found) if found is not None else None
    if known is None:
        return
    other = head(line, before, length, second, after)
    for following in (edited(other, edits) + body, other[:-1], other + body, data + body):
        again = known.again(following)
        if again is not None:
            assert figures(again) == figures(reply(following))
    if len(first) <= MAX_DIGITS:
        assert known.again(data) is not None
    if second.isdigit() and len(second) <= MAX_DIGITS:
        assert known.again(other) is not None or length == b"x-b: %b"
