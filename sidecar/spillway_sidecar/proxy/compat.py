"""What may be overlooked in a request's head where somebody has said so, item by item; nothing that is about framing.

A head is mended first and then read by the one strict grammar, which has the last word. So leniency adds nothing to what reaches an engine: it
only leaves out, or chooses between, what would have been refused.
"""

from __future__ import annotations

import re
from typing import Final

from spillway_sidecar.proxy.head import parse_request
from spillway_sidecar.proxy.heads import RequestHead

UNDERSCORES: Final = "underscores"
NON_ASCII: Final = "non-ascii"
DUPLICATES: Final = "duplicates"
ABSOLUTE_FORM: Final = "absolute-form"
COMPAT: Final = {
    UNDERSCORES: "headers with _ in their names are left out",
    NON_ASCII: "headers with bytes above ASCII in their values are left out",
    DUPLICATES: "of Authorization, Content-Type, X-Request-Id and Traceparent given more than once the first counts",
    ABSOLUTE_FORM: "a target that names another host than the Host header, or a user, counts by its own host",
}

_FIRST_COUNTS: Final = frozenset((b"authorization", b"content-type", b"x-request-id", b"traceparent"))
_ABSOLUTE: Final = re.compile(rb"([A-Z]{1,16}+) (?i:https?)://(?:[^/?#@ ]*+@)?+([^/?#@ ]++)(/[^# ]*+|\?[^# ]*+)?+ (HTTP/1\.[01])")
_NAME: Final = re.compile(rb"[_!#$%&'*+.^`|~0-9A-Za-z-]++")
_NON_ASCII: Final = re.compile(rb"[\x20-\x7e\t]*+[\x80-\xff][\x20-\x7e\t\x80-\xff]*+")
_NEVER: Final = frozenset((b"content-length", b"transfer-encoding", b"host"))  # left out, whatever is odd about them
_CRLF: Final = b"\r\n"


def parse_mended(data: bytes, compat: frozenset[str], *, max_body_bytes: int) -> RequestHead | None:
    """As `parse_request`, but for what `compat` overlooks."""
    end = data.find(b"\r\n\r\n") + 4
    if end < 4:
        return parse_request(data, max_body_bytes=max_body_bytes)
    head = parse_request(_mend(data[:end], compat), max_body_bytes=max_body_bytes)
    if head is not None:
        head.length = end
    return head


def _mend(head: bytes, compat: frozenset[str]) -> bytes:
    first, *lines = head[:-4].split(_CRLF)
    host: bytes | None = None
    if ABSOLUTE_FORM in compat and (absolute := _ABSOLUTE.fullmatch(first)) is not None:
        method, host, path, version = absolute.groups(b"/")
        first = b"%b %b %b" % (method, path if path[:1] == b"/" else b"/" + path, version)
    kept: list[bytes] = []
    seen: set[bytes] = set()
    for line in lines:
        name, colon, value = line.partition(b":")
        lower = name.lower()
        if colon and _NAME.fullmatch(name) and lower.replace(b"_", b"-") not in _NEVER:
            if UNDERSCORES in compat and b"_" in name:
                continue
            if NON_ASCII in compat and _NON_ASCII.fullmatch(value):
                continue
        if DUPLICATES in compat and lower in _FIRST_COUNTS:
            if lower in seen:
                continue
            seen.add(lower)
        if host is not None and lower == b"host":
            line = b"host: " + host  # noqa: PLW2901
        kept.append(line)
    return _CRLF.join((first, *kept, b"", b""))
