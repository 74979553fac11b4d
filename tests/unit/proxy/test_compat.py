"""What may be overlooked in a head, item by item; and that it never is about framing."""

from __future__ import annotations

import pytest

from spillway_sidecar.proxy.compat import ABSOLUTE_FORM, COMPAT, DUPLICATES, NON_ASCII, UNDERSCORES, parse_mended
from spillway_sidecar.proxy.errors import Refusal
from spillway_sidecar.proxy.head import parse_request
from spillway_sidecar.proxy.heads import RequestHead

LIMIT = 1000


def head(*lines: bytes, first: bytes = b"POST /v1/chat/completions HTTP/1.1", host: bytes = b"Host: proxy") -> bytes:
    """A head of these lines."""
    return b"\r\n".join((first, host, *lines)) + b"\r\n\r\n"


def read(data: bytes, *compat: str) -> RequestHead:
    """As a listener with these switches reads it."""
    found = parse_mended(data, frozenset(compat), max_body_bytes=LIMIT)
    assert found is not None
    return found


FOUND = [
    (UNDERSCORES, head(b"X_Custom-Id: a", b"accept: b"), {b"host": b"proxy", b"accept": b"b"}),
    (NON_ASCII, head(b"User-Agent: caf\xc3\xa9", b"accept: b"), {b"host": b"proxy", b"accept": b"b"}),
    (
        DUPLICATES,
        head(b"Authorization: one", b"authorization: two", b"Content-Type: a", b"content-type: b"),
        {b"host": b"proxy", b"authorization": b"one", b"content-type": b"a"},
    ),
    (ABSOLUTE_FORM, head(first=b"POST http://other:80/v1/x?y HTTP/1.1"), {b"host": b"other:80"}),
    (ABSOLUTE_FORM, head(first=b"POST http://user:word@proxy?y HTTP/1.1"), {b"host": b"proxy"}),
]


@pytest.mark.parametrize(("switch", "data", "fields"), FOUND)
def test_each_switch_overlooks_its_own_item_and_no_other_does(switch: str, data: bytes, fields: dict[bytes, bytes]):
    got = read(data + b"the body", switch)
    assert got.fields == fields
    assert got.length == len(data)
    assert got.target in {b"/v1/chat/completions", b"/v1/x?y", b"/?y"}
    with pytest.raises(Refusal):
        parse_request(data, max_body_bytes=LIMIT)
    with pytest.raises(Refusal):
        read(data, *(COMPAT.keys() - {switch}))


@pytest.mark.parametrize(
    "data",
    [
        head(b"Content-Length: 1", b"Content-Length: 1"),
        head(b"Content-Length: 1", b"Transfer-Encoding: chunked"),
        head(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
        head(b"Transfer-Encoding: xchunked"),
        head(b"Transfer-Encoding: chunked\xc2\xa0", b"Content-Length: 1", b"Content-Length: 2"),
        head(b"Content-Length: +1"),
        head(b"Content-Length : 1"),
        head(b"a: b", b" folded"),
        head(b"a: b\nTransfer-Encoding: chunked"),
        head(b"a: \x00"),
        head(b"Host: another"),
        head(b"Content-Length: \xb2\xb7"),
        head(b"Transfer-Encoding: \x85chunked"),
        head(b"Content_Length: 5"),
        head(b"transfer_Encoding: chunked"),
        head(b"Host: pr\xc3\xb6xy"),
        head(b"a: \x80\nTransfer-Encoding: chunked"),
        head(b"a\x00: \x80"),
        head(b"Transfer-Encoding : \x80"),
        head(b"_a\x00: b"),
        head(b"Expect: 100-continue", b"Expect: 100-continue"),
        head(first=b"POST http://other/ x HTTP/1.1"),
        head(first=b"POST http://a@b@c/ HTTP/1.1"),
        head(b"Host: second", first=b"POST http://other/ HTTP/1.1"),
        head(first=b"POST http:// HTTP/1.1"),
    ],
)
def test_nothing_about_framing_is_overlooked(data: bytes):
    with pytest.raises(Refusal):
        read(data, *COMPAT)


def test_a_good_head_is_read_as_ever_and_half_a_head_is_waited_for():
    data = head(b"Content-Length: 5", b"x-a: b")
    got, good = read(data, *COMPAT), parse_request(data, max_body_bytes=LIMIT)
    assert good is not None
    assert (got.fields, got.length, got.content_length) == (good.fields, good.length, good.content_length)
    for end in range(1, len(data)):
        assert parse_mended(data[:end], frozenset(COMPAT), max_body_bytes=LIMIT) is None
