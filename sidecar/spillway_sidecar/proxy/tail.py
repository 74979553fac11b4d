"""The end of a reply, of which a kilobyte is kept: what it tells of tokens, and whether a stream is whole."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Final

import msgspec

from spillway_sidecar.proxy.framing import ChunkCursor, FramingError
from spillway_sidecar.proxy.usage import decode_usage

TAIL_BYTES: Final = 1024
_NONE: Final = b""
_USAGE: Final = re.compile(rb'"prompt_tokens"\s*+:\s*+([0-9]{1,9})(?:[^}]*?"completion_tokens"\s*+:\s*+([0-9]{1,9}))?')
_FINISHED: Final = re.compile(rb'"finish_reason"\s*+:\s*+"')
_DONE: Final = re.compile(rb"(?:\A|[\r\n])data: ?+\[DONE\]")
_USUAL_END: Final = b"data: [DONE]"
_ENDS_OF_LINES: Final = (0x0A, 0x0D)
_LINE_ENDS: Final = re.compile(rb"\r\n")
_CHUNK_LINES: Final = re.compile(rb"\r\n[0-9A-Fa-f]{1,8}+(?:[ \t]*+;[^\r\n]*+)?+\r\n")


def whole_stream(tail: bytes, *, chunked: bool) -> bool:
    """Whether an SSE stream that ends in `tail` is whole: only with `[DONE]` or a finish reason. `chunked`: framing is in it."""
    return _has_end(tail) or (
        chunked  # a chunk may end inside the very word
        and (_has_end(_CHUNK_LINES.sub(_NONE, tail)) or any(_has_end(text) for text in _texts(tail)))
    )


def _has_end(text: bytes) -> bool:
    at = text.rfind(_USUAL_END)  # an expression looks at every byte before it
    if at > 0 and text[at - 1] in _ENDS_OF_LINES:
        return True
    return _DONE.search(text) is not None or _FINISHED.search(text) is not None


def _texts(tail: bytes) -> Iterator[bytes]:
    """What the tail says if its first whole chunk is here, or there: a text of one letter may look like the size of the next chunk."""
    for start in (0, *(found.end() for found in _LINE_ENDS.finditer(tail))):
        slices: list[tuple[int, int]] = []
        cursor = ChunkCursor()
        with contextlib.suppress(FramingError):
            cursor.advance(tail[start:], slices)
        if cursor.done:
            text = _NONE.join([tail[start + a : start + b] for a, b in slices])
            yield b"." + text if start else text  # a line has begun before it


def usage(tail: bytes) -> tuple[int | None, int | None]:
    """Prompt and completion tokens as the engine counted them, where the reply's end tells."""
    start = tail.rfind(b'"usage"')
    if start < 0:
        return None, None
    start = tail.find(b"{", start)
    try:
        told = decode_usage(tail[start : tail.find(b"}", start) + 1])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # e.g. an object within it: look for the two figures alone
        return _search_usage(tail, start)
    return told.prompt_tokens, told.completion_tokens


def _search_usage(tail: bytes, start: int) -> tuple[int | None, int | None]:
    found = _USAGE.search(tail, start) if start >= 0 else None
    if found is None:
        return None, None
    prompt, completion = found.groups()
    return int(prompt), None if completion is None else int(completion)
