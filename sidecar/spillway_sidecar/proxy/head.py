"""The grammar of message heads as we accept it: one possessive regular expression each, so that matching is linear.

What does not match is refused, and only then is a second look taken to say why. That makes the accepted language easy to
see: CRLF line ends, one space between the parts of the first line, origin-form targets (absolute-form only for the same
host), field names of token characters without `_`, visible ASCII in values, no folding. Framing is then decided from the
parsed fields: Content-Length of digits once, or Transfer-Encoding exactly `chunked`, never both.
"""

from __future__ import annotations

import re
from typing import Final

from spillway_sidecar.proxy.errors import Outcome, Refusal, malformed
from spillway_sidecar.proxy.heads import Fields, RequestHead, ResponseHead

MAX_HEAD_BYTES: Final = 32 * 1024
MAX_TARGET_BYTES: Final = 8 * 1024
MAX_FIELDS: Final = 100
MAX_LENGTH_DIGITS: Final = 15

_NAME: Final = rb"[!#$%&'*+.^`|~0-9A-Za-z-]++"
_FIELDS: Final = rb"((?:" + _NAME + rb":[\x20-\x7e\t]*+\r\n)*+)\r\n"
_REQUEST: Final = re.compile(rb"(?!CONNECT )([A-Z]{1,16}+) ([\x21-\x7e]++) HTTP/1\.([01])\r\n" + _FIELDS)
# Servers outside are not ours to mend: `_` in names and bytes above ASCII in values mean no harm in a reply.
_REPLY_FIELDS: Final = rb"((?:[_!#$%&'*+.^`|~0-9A-Za-z-]++:[ \t]*+[\x20-\x7e\t\x80-\xff]*+\r\n)*+)\r\n"
_RESPONSE: Final = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: [\x20-\x7e\t\x80-\xff]*+)?+\r\n" + _REPLY_FIELDS)
_ABSOLUTE: Final = re.compile(rb"https?://([^/?#@]++)(/[^#]*+)?+\Z", re.IGNORECASE)
_HOST: Final = re.compile(rb"(?:[A-Za-z0-9._~%!$&'()*+,;=-]++|\[[0-9A-Fa-f:.]++\])(?::[0-9]{1,5}+)?+\Z")

# A second one of these changes what a request means, depending on who reads it.
SINGLETONS: Final = frozenset(
    (
        b"host", b"content-length", b"transfer-encoding", b"content-type", b"content-encoding", b"authorization", b"expect", b"x-request-id",
        b"traceparent",
    )
)  # fmt: skip

_BODILESS: Final = (204, 304)
_CRLF: Final = b"\r\n"
_TABBED_FRAMING: Final = re.compile(rb"(?im)^(?:content-length|transfer-encoding|host):[^\r]*\t")  # not white space to every server


def parse_request(data: bytes, *, max_body_bytes: int) -> RequestHead | None:
    """The head at the start of `data`, or None while it is incomplete. Raises `Refusal`."""
    match = _REQUEST.match(data)
    if match is None:
        _never(data)
        return None
    method, target, minor, blob = match.groups()
    length = match.end()
    if length > MAX_HEAD_BYTES:
        raise _too_long(data)
    fields: Fields = {}
    lines = blob.split(_CRLF)
    lines.pop()
    if len(lines) > MAX_FIELDS:
        raise _too_large()
    for line in lines:
        name, _, value = line.partition(b":")
        fields[name.lower()] = value.strip()
    if len(fields) != len(lines):
        fields = _joined(lines)
    if target[0] != 0x2F or len(target) > MAX_TARGET_BYTES:
        target = _origin_form(target, fields)
    if b"\t" in blob and _TABBED_FRAMING.search(blob) is not None:
        raise malformed("A tab stands beside the value of a header that tells where the request ends, or whom it is for.")
    get = fields.get
    http11 = minor == b"1"
    declared = get(b"content-length")
    if declared is None or b"transfer-encoding" in fields:
        content_length = _unsized(fields, http11)
    else:
        content_length = int(declared) if declared.isdigit() and len(declared) < 10 else _length(declared)
        if content_length > max_body_bytes:
            raise body_too_large(max_body_bytes)
    host = get(b"host")
    if host not in _good_hosts:
        _check_host(host, http11)
    connection = get(b"connection")
    keep_alive = http11 and (connection is None or b"close" not in connection.lower())
    return RequestHead(method, target, http11, fields, length, content_length, keep_alive)


def _joined(lines: list[bytes]) -> Fields:
    """The fields of a head that has some more than once."""
    fields: Fields = {}
    for line in lines:
        name, _, value = line.partition(b":")
        name = name.lower()
        value = value.strip()
        if name in fields:
            if name in SINGLETONS or name.startswith(b"x-spillway-"):
                raise malformed(f"The header '{name.decode()}' is given more than once.")
            value = fields[name] + b", " + value
        fields[name] = value
    return fields


def _unsized(fields: Fields, http11: bool) -> int:
    """The length of a body that Content-Length alone does not tell: none at all, or chunked."""
    coding = fields.get(b"transfer-encoding")
    if coding is None:
        return 0
    if b"content-length" in fields:
        raise malformed("Content-Length and Transfer-Encoding exclude each other.")
    if not http11 or coding != b"chunked":
        raise malformed("Transfer-Encoding must be exactly 'chunked', and HTTP/1.1.")
    return -1


_good_hosts: set[bytes | None] = set()  # those that passed; a client sends the same one again and again


def _check_host(host: bytes | None, http11: bool) -> None:
    if host is None:
        if http11:
            raise malformed("The header 'host' is missing.")
        return
    if not _HOST.match(host):
        raise malformed("The header 'host' is not a host and port.")
    if len(_good_hosts) < 256:
        _good_hosts.add(host)


def parse_response(data: bytes) -> ResponseHead | None:
    """The head at the start of an engine's `data`, or None while incomplete. Raises ValueError for what HTTP/1.1 is not."""
    match = _RESPONSE.match(data)
    if match is None:
        if len(data) > MAX_HEAD_BYTES or b"\r\n\r\n" in data or data[:7] != b"HTTP/1."[: len(data)] or _BARE_LF.search(data):
            raise ValueError("malformed response head")
        return None
    minor, digits, blob = match.groups()
    length = match.end()
    if length > MAX_HEAD_BYTES:
        raise ValueError("response head too large")
    status = int(digits)
    fields: Fields = {}
    lines = blob.split(_CRLF)
    lines.pop()
    for line in lines:
        name, _, value = line.partition(b":")
        fields[name.lower()] = value.strip()
    if len(fields) != len(lines):
        fields = _joined_reply(lines)
    http11 = minor == b"1"
    declared = fields.get(b"content-length")
    if declared is None or status < 200 or status in _BODILESS or b"transfer-encoding" in fields:
        content_length = _unsized_reply(status, fields, http11)
    elif declared.isdigit() and len(declared) <= MAX_LENGTH_DIGITS:
        content_length = int(declared)
    else:
        raise ValueError("bad content-length")
    connection = fields.get(b"connection")
    keep_alive = http11 and content_length != -2 and (connection is None or b"close" not in connection.lower())
    return ResponseHead(status, fields, blob, length, content_length, keep_alive)


def _joined_reply(lines: list[bytes]) -> Fields:
    """The fields of a reply's head that has some more than once."""
    fields: Fields = {}
    for line in lines:
        name, _, value = line.partition(b":")
        name = name.lower()
        value = value.strip()
        if name in fields:
            if name in (b"content-length", b"transfer-encoding"):
                raise ValueError("repeated framing header")
            value = fields[name] + b", " + value
        fields[name] = value
    return fields


def _unsized_reply(status: int, fields: Fields, http11: bool) -> int:
    """The length of a reply's body that Content-Length alone does not tell: none, chunked, or until the connection closes."""
    declared = fields.get(b"content-length")
    coding = fields.get(b"transfer-encoding")
    if status < 200 or status in _BODILESS:
        if status < 200 and (declared is not None or coding is not None):
            raise ValueError("interim response with a body")
        return 0
    if coding is None:
        return -2
    if declared is not None or not http11 or coding.lower() != b"chunked":
        raise ValueError("bad transfer-encoding")
    return -1


def body_too_large(max_body_bytes: int) -> Refusal:
    """413; what follows on the connection is the body, so it closes."""
    return Refusal(
        413, Outcome.TOO_LARGE, f"The request body is larger than {max_body_bytes} bytes.", code="request_too_large", close=True
    )


def _too_large() -> Refusal:
    return Refusal(431, Outcome.BAD_REQUEST, "The request's header fields are too large.", code="headers_too_large", close=True)


def _too_long(data: bytes) -> Refusal:
    """For a head that passes its limit: 414 when it is the first line that is too long, else 431."""
    if 0 <= data.find(b"\r\n") <= MAX_TARGET_BYTES:
        return _too_large()
    return Refusal(414, Outcome.BAD_REQUEST, "The request target is too long.", code="uri_too_long", close=True)


def _length(value: bytes) -> int:
    if not value.isdigit() or len(value) > MAX_LENGTH_DIGITS:
        raise malformed("Content-Length must be a plain number.")
    return int(value)


def _origin_form(target: bytes, fields: Fields) -> bytes:
    if len(target) > MAX_TARGET_BYTES:
        raise Refusal(414, Outcome.BAD_REQUEST, "The request target is too long.", code="uri_too_long", close=True)
    match = _ABSOLUTE.match(target)
    if match is None:
        raise malformed("The request target must be a path.")
    if match.group(1).lower() != fields.get(b"host", b"").lower():
        raise malformed("The request target names another host.")
    return match.group(2) or b"/"


_BARE_LF: Final = re.compile(rb"(?<!\r)\n")


def _never(data: bytes) -> None:
    """Decides between "more to come" and "never": raises `Refusal` for the latter, in words that tell what is wrong."""
    end = data.find(b"\r\n\r\n")
    if end < 0 or end + 4 > MAX_HEAD_BYTES:
        if len(data) > MAX_HEAD_BYTES:
            raise _too_long(data)
        if _BARE_LF.search(data):
            raise malformed("Lines must end with CRLF.")
        if data[0] in b"\r\n" or not data[:1].isupper():
            raise malformed("This is not an HTTP/1.1 request.")
        return
    raise _why(data[: end + 4])


def _why(head: bytes) -> Refusal:
    """What is wrong with a whole head that was refused."""
    request, *lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    if not _BARE_LF.search(head) and re.fullmatch(rb"[A-Z]{1,16} [\x21-\x7e]+ HTTP/(?!1\.[01]$)[0-9.]+", request):
        return Refusal(505, Outcome.BAD_REQUEST, "Only HTTP/1.0 and HTTP/1.1 are spoken here.", code="http_version", close=True)
    if _BARE_LF.search(head):
        words = "Lines must end with CRLF."
    elif not re.fullmatch(rb"[A-Z]{1,16} [\x21-\x7e]+ HTTP/1\.[01]", request):
        words = "The request line is malformed."
    else:
        tunnel = "There are no tunnels here." if request.startswith(b"CONNECT ") else ""  # what comes behind one is for others
        words = next(filter(None, map(_why_line, lines)), tunnel or "The request head is malformed.")
    return malformed(words)


def _why_line(line: bytes) -> str:
    """What is wrong with a header line, if anything is."""
    if line[:1] in (b" ", b"\t"):
        return "Header lines must not be folded."
    name, colon, value = line.partition(b":")
    if not colon or not re.fullmatch(_NAME, name):
        return "A header's name has a character that is not allowed, or no colon follows it."
    if not re.fullmatch(rb"[\x20-\x7e\t]*", value):
        return "A header's value has a character that is not allowed."
    return ""
