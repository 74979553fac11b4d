"""Requests that a proxy must not pass on: each with the status that it gets.

The kinds are those that are known to make two parsers disagree about where a request ends or whom it is for: framing given
twice or oddly, line ends and white space that some read differently, names that some normalise, targets that override Host.
Each carries, where it can, a second request that would be smuggled.
"""

from __future__ import annotations

from typing import Final

BODY: Final = b'{"model":"m","messages":[]}'
SMUGGLED: Final = b"POST /v1/embeddings HTTP/1.1\r\nHost: proxy\r\nContent-Length: 0\r\n\r\n"
_LINE: Final = b"POST /v1/chat/completions HTTP/1.1\r\n"
_HOST: Final = b"Host: proxy\r\n"
_TYPE: Final = b"Content-Type: application/json\r\n"
_LENGTH: Final = b"Content-Length: %d\r\n" % len(BODY)
_CHUNKED: Final = b"Transfer-Encoding: chunked\r\n"
_CHUNKS: Final = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)


def _fields(*lines: bytes, body: bytes = BODY, line: bytes = _LINE, host: bytes = _HOST) -> bytes:
    return line + host + _TYPE + b"".join(lines) + b"\r\n" + body


def _chunked(data: bytes) -> bytes:
    return _fields(_CHUNKED, body=data)


BAD: Final[dict[str, tuple[bytes, int]]] = {
    # two ways to say how long the body is
    "length and chunked": (_fields(_LENGTH, _CHUNKED, body=_CHUNKS + SMUGGLED), 400),
    "chunked and length": (_fields(_CHUNKED, b"Content-Length: 0\r\n", body=_CHUNKS + SMUGGLED), 400),
    "two lengths": (_fields(b"Content-Length: 0\r\n", _LENGTH), 400),
    "two equal lengths": (_fields(_LENGTH, _LENGTH), 400),
    "length with a tab behind it": (_fields(b"Content-Length: %d\t\r\n" % len(BODY)), 400),
    "length with a tab before it": (_fields(b"Content-Length:\t%d\r\n" % len(BODY)), 400),
    "chunked with a tab behind it": (_fields(b"Transfer-Encoding: chunked\t\r\n", body=_CHUNKS), 400),
    "white space before a chunk extension": (_fields(_CHUNKED, body=_CHUNKS.replace(b"\r\n", b" ;a=b\r\n", 1)), 400),
    "two lengths in one line": (_fields(b"Content-Length: 27, 27\r\n"), 400),
    "two lengths by case": (_fields(_LENGTH, b"CONTENT-LENGTH: 0\r\n"), 400),
    "positive sign": (_fields(b"Content-Length: +27\r\n"), 400),
    "negative length": (_fields(b"Content-Length: -1\r\n"), 400),
    "length in hexadecimal": (_fields(b"Content-Length: 0x1b\r\n"), 400),
    "length with an underscore": (_fields(b"Content-Length: 2_7\r\n"), 400),
    "length with a fraction": (_fields(b"Content-Length: 27.0\r\n"), 400),
    "length with white space inside": (_fields(b"Content-Length: 2 7\r\n"), 400),
    "empty length": (_fields(b"Content-Length:\r\n"), 400),
    "length in quotes": (_fields(b'Content-Length: "27"\r\n'), 400),
    "length beyond 64 bits": (_fields(b"Content-Length: 18446744073709551643\r\n"), 400),
    "length in other digits": (_fields("Content-Length: ٢٧\r\n".encode()), 400),
    # transfer codings
    "gzip, chunked": (_fields(b"Transfer-Encoding: gzip, chunked\r\n", body=_CHUNKS), 400),
    "chunked, identity": (_fields(b"Transfer-Encoding: chunked, identity\r\n", body=_CHUNKS), 400),
    "chunked twice in a list": (_fields(b"Transfer-Encoding: chunked, chunked\r\n", body=_CHUNKS), 400),
    "chunked twice": (_fields(_CHUNKED, _CHUNKED, body=_CHUNKS), 400),
    "chunked in capitals": (_fields(b"Transfer-Encoding: Chunked\r\n", body=_CHUNKS), 400),
    "chunked with a parameter": (_fields(b"Transfer-Encoding: chunked;q=1\r\n", body=_CHUNKS), 400),
    "chunked in quotes": (_fields(b'Transfer-Encoding: "chunked"\r\n', body=_CHUNKS), 400),
    "xchunked": (_fields(b"Transfer-Encoding: xchunked\r\n", body=_CHUNKS), 400),
    "chunked after a vertical tab": (_fields(b"Transfer-Encoding: \x0bchunked\r\n", body=_CHUNKS), 400),
    "chunked after a form feed": (_fields(b"Transfer-Encoding:\x0cchunked\r\n", body=_CHUNKS), 400),
    "chunked behind a comma": (_fields(b"Transfer-Encoding: ,chunked\r\n", body=_CHUNKS), 400),
    "identity": (_fields(b"Transfer-Encoding: identity\r\n", _LENGTH), 400),
    "empty coding": (_fields(b"Transfer-Encoding:\r\n"), 400),
    "coding on a folded line": (_fields(b"Transfer-Encoding:\r\n chunked\r\n", body=_CHUNKS), 400),
    "chunked on HTTP/1.0": (_fields(_CHUNKED, body=_CHUNKS, line=_LINE.replace(b"1.1", b"1.0")), 400),
    # lines
    "folded value": (_fields(b"X-A: a\r\n b\r\n", _LENGTH), 400),
    "folded first header": (_LINE + b" Host: proxy\r\n" + _LENGTH + b"\r\n" + BODY, 400),
    "bare LF after a header": (_LINE + _HOST + _TYPE + b"X-A: b\n" + _LENGTH + b"\r\n" + BODY, 400),
    "bare LF after the request line": (_LINE[:-2] + b"\n" + _HOST + _LENGTH + b"\r\n" + BODY, 400),
    "bare LF ends the head": (_LINE + _HOST + _LENGTH[:-2] + b"\n\n" + BODY, 400),
    "LF CR": (_LINE + b"Host: proxy\n\r" + _LENGTH + b"\r\n" + BODY, 400),
    "bare CR in a value": (_fields(b"X-A: a\rTransfer-Encoding: chunked\r\n", _LENGTH), 400),
    "CR CR LF": (_fields(b"X-A: a\r\r\n", _LENGTH), 400),
    "NUL in a value": (_fields(b"X-A: a\x00b\r\n", _LENGTH), 400),
    "NUL in a name": (_fields(b"X-\x00A: b\r\n", _LENGTH), 400),
    "DEL in a value": (_fields(b"X-A: a\x7fb\r\n", _LENGTH), 400),
    "no ASCII in a value": (_fields("X-A: é\r\n".encode(), _LENGTH), 400),
    "no ASCII in a name": (_fields("X-É: a\r\n".encode(), _LENGTH), 400),
    "high byte before a name": (_fields(b"\xa0Transfer-Encoding: chunked\r\n", _LENGTH), 400),
    "space before the colon": (_fields(b"Content-Length : 0\r\n"), 400),
    "tab before the colon": (_fields(b"Transfer-Encoding\t: chunked\r\n", body=_CHUNKS), 400),
    "no colon": (_fields(b"X-A\r\n", _LENGTH), 400),
    "no name": (_fields(b": a\r\n", _LENGTH), 400),
    "underscore": (_fields(b"Content_Length: 0\r\n", _LENGTH), 400),
    "underscore in transfer_encoding": (_fields(b"Transfer_Encoding: chunked\r\n", _LENGTH), 400),
    "brackets in a name": (_fields(b"X(A): a\r\n", _LENGTH), 400),
    # the first line
    "empty line first": (b"\r\n" + _fields(_LENGTH), 400),
    "lone LF first": (b"\n" + _fields(_LENGTH), 400),
    "space first": (b" " + _fields(_LENGTH), 400),
    "lower-case method": (_fields(_LENGTH, line=_LINE.replace(b"POST", b"post")), 400),
    "mixed-case method": (_fields(_LENGTH, line=_LINE.replace(b"POST", b"Post")), 400),
    "two spaces": (_fields(_LENGTH, line=_LINE.replace(b" HTTP", b"  HTTP")), 400),
    "tab between the parts": (_fields(_LENGTH, line=_LINE.replace(b" HTTP", b"\tHTTP")), 400),
    "space after the version": (_fields(_LENGTH, line=_LINE.replace(b"1.1", b"1.1 ")), 400),
    "no version": (b"POST /v1/chat/completions\r\n\r\n", 400),
    "space in the target": (_fields(_LENGTH, line=b"POST /v1/chat/completions HTTP/1.1 HTTP/1.1\r\n"), 400),
    "no ASCII in the target": (_fields(_LENGTH, line="POST /é HTTP/1.1\r\n".encode()), 400),
    "NUL in the target": (_fields(_LENGTH, line=b"POST /\x00 HTTP/1.1\r\n"), 400),
    "lower-case protocol": (_fields(_LENGTH, line=_LINE.replace(b"HTTP", b"http")), 400),
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "HTTP/1.2": (_fields(_LENGTH, line=_LINE.replace(b"1.1", b"1.2")), 505),
    "HTTP/0.9": (_fields(_LENGTH, line=_LINE.replace(b"1.1", b"0.9")), 505),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(200)), 400),
    # whom it is for
    "no host": (_fields(_LENGTH, host=b""), 400),
    "two hosts": (_fields(_LENGTH, host=_HOST + b"Host: other\r\n"), 400),
    "two equal hosts": (_fields(_LENGTH, host=_HOST + _HOST), 400),
    "userinfo in host": (_fields(_LENGTH, host=b"Host: user:pw@proxy\r\n"), 400),
    "path in host": (_fields(_LENGTH, host=b"Host: proxy/v1\r\n"), 400),
    "list in host": (_fields(_LENGTH, host=b"Host: proxy, other\r\n"), 400),
    "absolute form, other host": (_fields(_LENGTH, line=b"POST http://other/v1/chat/completions HTTP/1.1\r\n"), 400),
    "absolute form, other port": (_fields(_LENGTH, line=b"POST http://proxy:1/v1/chat/completions HTTP/1.1\r\n"), 400),
    "userinfo in the target": (_fields(_LENGTH, line=b"POST http://u@proxy/v1/chat/completions HTTP/1.1\r\n"), 400),
    "absolute form, other scheme": (_fields(_LENGTH, line=b"POST ftp://proxy/v1/chat/completions HTTP/1.1\r\n"), 400),
    "authority form": (b"CONNECT proxy:443 HTTP/1.1\r\nHost: proxy:443\r\n\r\n", 400),
    "asterisk": (b"OPTIONS * HTTP/1.1\r\nHost: proxy\r\n\r\n", 400),
    # once only
    "two authorizations": (_fields(b"Authorization: a\r\n", b"Authorization: b\r\n", _LENGTH), 400),
    "two content types": (_fields(_TYPE, _LENGTH), 400),
    "two request ids": (_fields(b"x-request-id: a\r\n", b"x-request-id: b\r\n", _LENGTH), 400),
    "two of ours": (_fields(b"x-spillway-anything: a\r\n", b"X-Spillway-Anything: a\r\n", _LENGTH), 400),
    # chunks
    "chunk size without digits": (_chunked(b"\r\n" + _CHUNKS), 400),
    "chunk size with a sign": (_chunked(b"+" + _CHUNKS), 400),
    "negative chunk size": (_chunked(b"-1\r\n\r\n"), 400),
    "chunk size with 0x": (_chunked(b"0x" + _CHUNKS), 400),
    "chunk size with an underscore": (_chunked(b"1_b\r\n" + BODY + b"\r\n0\r\n\r\n"), 400),
    "chunk size beyond 32 bits": (_chunked(b"100000000\r\n"), 400),
    "chunk size that wraps": (_chunked(b"1000000000000001b\r\n" + BODY), 400),
    "space before the chunk size": (_chunked(b" " + _CHUNKS), 400),
    "space after the chunk size": (_chunked(b"1b \r\n" + BODY + b"\r\n0\r\n\r\n"), 400),
    "bare LF after the chunk size": (_chunked(b"1b\n" + BODY + b"\r\n0\r\n\r\n"), 400),
    "bare CR in the extension": (_chunked(b"1b;a\rb\r\n" + BODY + b"\r\n0\r\n\r\n"), 400),
    "bare LF in the extension": (_chunked(b"1b;a\nb\r\n" + BODY + b"\r\n0\r\n\r\n"), 400),
    "NUL in the extension": (_chunked(b"1b;\x00\r\n" + BODY + b"\r\n0\r\n\r\n"), 400),
    "long extension": (_chunked(b"1b;" + b"a" * 257 + b"\r\n" + BODY + b"\r\n0\r\n\r\n"), 400),
    "endless extension": (_chunked(b"1b;" + b"a" * 5000), 400),
    "chunk longer than its size": (_chunked(b"1a\r\n" + BODY + b"\r\n0\r\n\r\n"), 400),
    "chunk ended by LF": (_chunked(b"1b\r\n" + BODY + b"\n0\r\n\r\n"), 400),
    "chunk ended by LF LF": (_chunked(b"1b\r\n" + BODY + b"\n\n0\r\n\r\n"), 400),
    "trailer": (_chunked(b"1b\r\n" + BODY + b"\r\n0\r\nContent-Length: 5\r\n\r\n"), 400),
    "last chunk ended by LF": (_chunked(b"1b\r\n" + BODY + b"\r\n0\r\n\n"), 400),
    # limits
    "long target": (_fields(_LENGTH, line=b"POST /" + b"a" * 9000 + b" HTTP/1.1\r\n"), 414),
    "very long target": (_fields(_LENGTH, line=b"POST /" + b"a" * 40000 + b" HTTP/1.1\r\n"), 414),
    "endless target": (b"POST /" + b"a" * 40000, 414),
    "large header": (_fields(b"X-A: " + b"a" * 40000 + b"\r\n", _LENGTH), 431),
    "many headers": (_fields(*(b"X-%d: a\r\n" % i for i in range(101)), _LENGTH), 431),
    "one header many times": (_fields(*[b"X: a\r\n"] * 101, _LENGTH), 431),
    "endless head": (_LINE + _HOST + b"X-A: a\r\n" * 5000, 431),
    "large body": (_fields(b"Content-Length: 65537\r\n", body=b"x" * 100), 413),
    "large chunked body": (_chunked(b"ff00\r\n" + b"x" * 0xFF00 + b"\r\n1ff\r\n"), 413),
    "large chunk announced": (_chunked(b"fffffff0\r\n"), 413),
    # what it asks for
    "compressed body": (_fields(b"Content-Encoding: gzip\r\n", _LENGTH), 415),
    "other expectation": (_fields(b"Expect: the-unexpected\r\n", _LENGTH), 417),
}  # fmt: skip
MAX_BODY_BYTES: Final = 65536

# Refused too, but understood: the connection may go on.
UNWANTED: Final[dict[str, tuple[bytes, int]]] = {
    "other path": (_fields(_LENGTH, line=b"POST /v1/unknown HTTP/1.1\r\n"), 404),
    "path in another case": (_fields(_LENGTH, line=b"POST /V1/chat/completions HTTP/1.1\r\n"), 404),
    "path that climbs": (_fields(_LENGTH, line=b"POST /v1/../v1/chat/completions HTTP/1.1\r\n"), 404),
    "path in percent signs": (_fields(_LENGTH, line=b"POST /v1/chat%2fcompletions HTTP/1.1\r\n"), 404),
    "GET": (b"GET /v1/chat/completions HTTP/1.1\r\nHost: proxy\r\n\r\n", 405),
    "PUT": (_fields(_LENGTH, line=b"PUT /v1/chat/completions HTTP/1.1\r\n"), 405),
    "POST to the models": (_fields(_LENGTH, line=b"POST /v1/models HTTP/1.1\r\n"), 405),
    "model that no route has": (_fields(b"Content-Length: 13\r\n", body=b'{"model":"x"}'), 404),
    "unknown model of the list": (b"GET /v1/models/x HTTP/1.1\r\nHost: proxy\r\n\r\n", 404),
    "no JSON": (_fields(b"Content-Length: 5\r\n", body=b"hello"), 400),
    "no body": (_LINE + _HOST + b"\r\n", 400),
    "half JSON": (_fields(b"Content-Length: 9\r\n", body=b'{"model":'), 400),
    "JSON and more": (_fields(b"Content-Length: 15\r\n", body=b'{"model":"m"} {'), 400),
    "array": (_fields(b"Content-Length: 2\r\n", body=b"[]"), 400),
    "null": (_fields(b"Content-Length: 4\r\n", body=b"null"), 400),
    "no model": (_fields(b"Content-Length: 2\r\n", body=b"{}"), 400),
    "model is a number": (_fields(b"Content-Length: 11\r\n", body=b'{"model":5}'), 400),
    "model is null": (_fields(b"Content-Length: 14\r\n", body=b'{"model":null}'), 400),
    "model is empty": (_fields(b"Content-Length: 12\r\n", body=b'{"model":""}'), 400),
    "model is long": (_fields(b"Content-Length: 312\r\n", body=b'{"model":"%b"}' % (b"m" * 300)), 400),
    "model is a half surrogate": (_fields(b"Content-Length: 18\r\n", body=b'{"model":"\\ud800"}'), 400),
    "model is no UTF-8": (_fields(b"Content-Length: 14\r\n", body=b'{"model":"\xff\xfe"}'), 400),
    "stream is a word": (_fields(b"Content-Length: 29\r\n", body=b'{"model":"m","stream":"true"}'), 400),
    "stream is a number": (_fields(b"Content-Length: 24\r\n", body=b'{"model":"m","stream":1}'), 400),
    "deep nesting": (_fields(b"Content-Length: 60018\r\n", body=b'{"model":"m","x":' + b"[" * 30000 + b"]" * 30000 + b"}"), 400),
    "byte order mark": (_fields(b"Content-Length: 16\r\n", body=b'\xef\xbb\xbf{"model":"m"}'), 400),
}  # fmt: skip
