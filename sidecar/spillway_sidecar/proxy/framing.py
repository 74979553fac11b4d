"""Body framing: a strict decoder for chunked request bodies, and a cursor that follows a chunked reply without copying it."""

from __future__ import annotations

import re
from typing import Final

_TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
_EXTENSIONS: Final = rb"(?:;" + _TOKEN + rb"(?:=(?:" + _TOKEN + rb'|"[\x20\x21\x23-\x5b\x5d-\x7e]*+"))?+)++'
_SIZE_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,8}+)(?:(?=;[^\r]{0,256}+\r)" + _EXTENSIONS + rb")?+\r\n")
_SIZE_LINE_START: Final = re.compile(rb"[0-9A-Fa-f]{1,8}+(?:;[\x20-\x7e\t]{0,256}+)?+(?:\r\n?)?+")


# Size lines that have been read once: events differ in their text, hardly in their sizes.
_sizes: dict[bytes, int] = {}
_MAX_SIZES: Final = 4096


def whole_chunks(data: bytes) -> bool:
    """Whether `data` is chunks from their size line to their end, none of them the last, and nothing else."""
    size = len(data)
    position = 0
    while position < size:
        start = data.find(b"\r\n", position) + 2
        left = _sizes.get(data[position:start]) or _size(data, position)
        end = start + left
        position = end + 2
        if left == 0 or data[end:position] != b"\r\n":
            return False
    return True


def _size(data: bytes, position: int) -> int:
    """What the size line at `position` says; 0 too for none that is whole and as it should be."""
    match = _SIZE_LINE.match(data, position)
    if match is None:
        return 0
    size = int(match[1], 16)
    if size and len(_sizes) < _MAX_SIZES and match.end() - position <= 16:
        _sizes[match[0]] = size
    return size


# How chunks end that end with an event as engines write it. Its last line is part of that: a chunk of one line end alone has, with its
# size line before it, `\n\n\r\n` for an end too.
CHUNKED_EVENT_ENDS: Final = (b"}\n\n\r\n", b"]\n\n\r\n")
EVENT_ENDS: Final = (b"\n\n", b"\r\n\r\n", b"\r\r")


def whole_events(chunks: bytes) -> bytes:
    """What of whole chunks of an SSE stream is whole events."""
    slices: list[tuple[int, int]] = []
    ChunkCursor().advance(chunks, slices)
    text = b"".join([chunks[a:b] for a, b in slices])
    return chunks if text.endswith(EVENT_ENDS) else as_chunk(text[: event_end(text)])


def event_end(text: bytes) -> int:
    """Where in a stream's text the last event has ended; 0 for none."""
    return max((text.rfind(end) + len(end) for end in EVENT_ENDS if end in text), default=0)


def as_chunk(data: bytes) -> bytes:
    """The data as one chunk; nothing for none, since an empty chunk would be the last."""
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


class FramingError(ValueError):
    """The bytes are not chunked framing as we accept it."""


class ChunkedBody:
    """Collects a chunked request body. `feed` returns None while more is to come, else what follows the body."""

    __slots__ = ("_body", "_cursor", "max_bytes")

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._body = bytearray()
        self._cursor = ChunkCursor()

    @property
    def size(self) -> int:
        """Body bytes so far."""
        return len(self._body)

    def body(self) -> bytes:
        """The decoded body."""
        return bytes(self._body)

    def feed(self, data: bytes) -> bytes | None:
        """Raises `FramingError` for bad framing, `OverflowError` when the body passes its limit."""
        slices: list[tuple[int, int]] = []
        cursor = self._cursor
        end = cursor.advance(data, slices)
        for start, stop in slices:
            self._body += data[start:stop]
        if len(self._body) + cursor.left > self.max_bytes:
            raise OverflowError
        return data[end:] if cursor.done else None


class ChunkCursor:
    """Follows a chunked reply piece by piece; the bytes themselves are passed on as they came.

    `advance(data)` returns how many bytes of `data` belong to the message; `done` is set when its end has been seen.
    `boundary` is the offset in `data` behind the last whole chunk, `whole` whether the cursor stands between two chunks.
    """

    __slots__ = ("_left", "_line", "_state", "boundary", "done")

    def __init__(self) -> None:
        self._state = 0  # 0 size line, 1 data, 2 CR after data, 3 LF after data, 4 the end
        self._left = 0
        self._line = b""
        self.boundary = 0
        self.done = False

    @property
    def left(self) -> int:
        """Payload bytes that the chunk under way still announces."""
        return self._left

    @property
    def whole(self) -> bool:
        """Whether no chunk is half read."""
        return self._state == 0 and not self._line

    def advance(self, data: bytes, slices: list[tuple[int, int]] | None = None) -> int:
        """Bytes of `data` that are this message's. Appends the payload's (start, end) to `slices`. Raises `FramingError`."""
        position = 0
        size = len(data)
        self.boundary = 0
        while position < size:
            state = self._state
            if state == 1:
                end = min(position + self._left, size)
                if slices is not None:
                    slices.append((position, end))
                self._left -= end - position
                position = end
                if self._left:
                    break
                if data.startswith(b"\r\n", position):
                    position += 2
                    self._state = 0
                    self.boundary = position
                else:
                    self._state = 2
            elif state == 0:
                match = None if self._line else _SIZE_LINE.match(data, position)
                if match is not None:
                    position = match.end()
                    self._size(match.group(1))
                else:
                    position = self._split_line(data, position)
            elif state == 4:
                position = self._end(data, position)
                if self.done:
                    break
            else:
                position = self._behind(data, position)
        return position

    def _behind(self, data: bytes, position: int) -> int:
        """CR or LF behind a chunk's data, which came apart from it."""
        if data[position] != (0x0D if self._state == 2 else 0x0A):
            raise FramingError("chunk data is longer than its size")
        position += 1
        if self._state == 2:
            self._state = 3
        else:
            self._state = 0
            self.boundary = position
        return position

    def _size(self, digits: bytes) -> None:
        self._left = int(digits, 16)
        self._state = 1 if self._left else 4

    def _split_line(self, data: bytes, position: int) -> int:
        """A size line that came in pieces."""
        end = data.find(b"\n", position)
        self._line += data[position : end + 1 if end >= 0 else len(data)]
        if _SIZE_LINE_START.fullmatch(self._line) is None:
            raise FramingError("bad chunk size line")
        if end < 0:
            return len(data)
        match = _SIZE_LINE.fullmatch(self._line)
        if match is None:
            raise FramingError("bad chunk size line")
        self._line = b""
        self._size(match.group(1))
        return end + 1

    def _end(self, data: bytes, position: int) -> int:
        """The empty line after the last chunk. Trailers are refused: nobody behind us asked for any."""
        wanted = b"\r\n"[len(self._line) :]
        piece = data[position : position + len(wanted)]
        if not wanted.startswith(piece):
            raise FramingError("trailers are not accepted")
        self._line += piece
        if self._line == b"\r\n":
            self._line = b""
            self.done = True
        return position + len(piece)
