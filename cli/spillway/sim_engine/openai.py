"""OpenAI's wire forms: requests in, replies out.

`parse` turns a body into a `Job`, what the engine has to do and how the reply is worded. Output is a sentence of fixed words,
one a token, that starts where a digest of the prompt says: the same request always gets the same text, and a token that is
lost, doubled or mixed in from another reply shows.
"""

from __future__ import annotations

import base64
import hashlib
import math
import struct
import zlib
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

DEFAULT_OUTPUT_TOKENS = 64
DEFAULT_DIMENSIONS = 64
CHARACTERS_PER_TOKEN = 4
TOKENS_PER_MESSAGE = 4

WORDS = (
    "water", "finds", "the", "level", "and", "the", "gate", "opens", "while", "the", "river", "fills", "one", "basin", "after",
    "another", "so", "the", "excess", "leaves", "over", "a", "broad", "stone", "sill", "into", "quiet", "pools", "below", "where",
    "nothing", "breaks", "and", "every", "stream", "goes", "on", "toward", "the", "sea", "at", "its", "own", "pace",
)  # fmt: skip

Kind = Literal["chat", "completion", "embedding"]
Model = Annotated[str, Meta(min_length=1, max_length=256)]
OutputTokens = Annotated[int, Meta(ge=1, le=1_000_000)] | None
One = Annotated[int, Meta(ge=1, le=1)] | None


class RequestError(Exception):
    """A request that the engine refuses, with the HTTP status and OpenAI's code."""

    def __init__(self, status: int, message: str, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.param = status, code, param


class _StreamOptions(Struct):
    include_usage: bool | None = False


class _Chat(Struct):
    model: Model
    messages: Annotated[list[dict[str, Any]], Meta(min_length=1)]
    max_tokens: OutputTokens = None
    max_completion_tokens: OutputTokens = None
    stream: bool | None = False
    stream_options: _StreamOptions | None = None
    n: One = None


class _Completion(Struct):
    model: Model
    prompt: str | list[str | int | list[int]]
    max_tokens: OutputTokens = None
    stream: bool | None = False
    stream_options: _StreamOptions | None = None
    n: One = None


class _Embedding(Struct):
    model: Model
    input: str | list[str | int | list[int]]
    encoding_format: Literal["float", "base64"] | None = "float"
    dimensions: Annotated[int, Meta(ge=1, le=8192)] | None = None


_CHAT = msgspec.json.Decoder(_Chat)
_COMPLETION = msgspec.json.Decoder(_Completion)
_EMBEDDING = msgspec.json.Decoder(_Embedding)
_ENCODE = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Job:
    """What the engine does for a request, and how its reply is worded."""

    kind: Kind
    model: str
    prompt_tokens: int
    output_tokens: int
    finish_reason: str
    offset: int
    stream: bool = False
    include_usage: bool = False
    inputs: tuple[bytes, ...] = ()
    base64: bool = False
    dimensions: int = DEFAULT_DIMENSIONS


def parse(path: str, body: bytes) -> Job:
    """The job that a body posted to `/v1/...` asks for. Raises `RequestError`."""
    try:
        if path == "/v1/chat/completions":
            return _chat(_CHAT.decode(body))
        if path == "/v1/completions":
            return _completion(_COMPLETION.decode(body))
        return _embedding(_EMBEDDING.decode(body))
    except msgspec.DecodeError as error:
        raise RequestError(400, str(error)) from None


def tokens_of(text: str) -> int:
    """Estimated tokens of a text: a token for each four characters begun."""
    return -(-len(text) // CHARACTERS_PER_TOKEN)


def _chat(body: _Chat) -> Job:
    tokens, digest = 0, 0
    for message in body.messages:
        content = message.get("content")
        parts = content if isinstance(content, list) else [{"text": content or ""}]
        text = "".join(str(part.get("text", "")) for part in parts if isinstance(part, dict))
        tokens += TOKENS_PER_MESSAGE + tokens_of(text)
        digest = zlib.crc32(text.encode(), digest)
    output, reason = _output(body.max_completion_tokens or body.max_tokens)
    return Job("chat", body.model, tokens, output, reason, digest, bool(body.stream), _wants_usage(body.stream_options))


def _completion(body: _Completion) -> Job:
    inputs = _inputs(body.prompt)
    if len(inputs) != 1:
        raise RequestError(400, "this engine completes one prompt a request", param="prompt")
    output, reason = _output(body.max_tokens)
    text, tokens = inputs[0]
    digest = zlib.crc32(text)
    return Job("completion", body.model, tokens, output, reason, digest, bool(body.stream), _wants_usage(body.stream_options))


def _embedding(body: _Embedding) -> Job:
    inputs = _inputs(body.input)
    if not inputs:
        raise RequestError(400, "input is empty", param="input")
    return Job(
        "embedding",
        body.model,
        sum(tokens for _, tokens in inputs),
        0,
        "stop",
        0,
        inputs=tuple(text for text, _ in inputs),
        base64=body.encoding_format == "base64",
        dimensions=body.dimensions or DEFAULT_DIMENSIONS,
    )


def _inputs(given: str | list[str | int | list[int]]) -> list[tuple[bytes, int]]:
    """Each input as bytes that tell it from others, and its size in tokens."""
    if isinstance(given, str):
        given = [given]
    if given and all(isinstance(item, int) for item in given):
        return [(_ENCODE(given), len(given))]
    inputs: list[tuple[bytes, int]] = []
    for item in given:
        if isinstance(item, int):
            raise RequestError(400, "texts and token ids are mixed")
        inputs.append((item.encode(), max(1, tokens_of(item))) if isinstance(item, str) else (_ENCODE(item), max(1, len(item))))
    return inputs


def _output(asked: int | None) -> tuple[int, str]:
    return (asked, "length") if asked else (DEFAULT_OUTPUT_TOKENS, "stop")


def _wants_usage(options: _StreamOptions | None) -> bool:
    return bool(options and options.include_usage)


def word(offset: int, index: int) -> str:
    """The text of output token `index`."""
    text = WORDS[(offset + index) % len(WORDS)]
    return text if index == 0 else " " + text


def text_of(job: Job, tokens: int) -> str:
    """The first `tokens` output tokens of a job as one text."""
    return "".join(word(job.offset, index) for index in range(tokens))


def _usage(job: Job, output_tokens: int) -> dict[str, int]:
    usage = {"prompt_tokens": job.prompt_tokens, "total_tokens": job.prompt_tokens + output_tokens}
    return usage if job.kind == "embedding" else {**usage, "completion_tokens": output_tokens}


def unary(job: Job, request_id: str, created: int) -> bytes:
    """The whole reply as JSON."""
    reply: dict[str, Any] = {"id": request_id, "created": created, "model": job.model}
    if job.kind == "embedding":
        data = [{"object": "embedding", "index": index, "embedding": _vector(job, text)} for index, text in enumerate(job.inputs)]
        reply |= {"object": "list", "data": data}
    else:
        text = text_of(job, job.output_tokens)
        choice: dict[str, Any] = {"index": 0, "finish_reason": job.finish_reason, "logprobs": None}
        choice |= {"message": {"role": "assistant", "content": text}} if job.kind == "chat" else {"text": text}
        reply |= {"object": "chat.completion" if job.kind == "chat" else "text_completion", "choices": [choice]}
    return _ENCODE(reply | {"usage": _usage(job, job.output_tokens)})


def _vector(job: Job, text: bytes) -> list[float] | str:
    """A unit vector that the input determines."""
    raw = hashlib.shake_256(text).digest(2 * job.dimensions)
    values = [value / 32768 for value in struct.unpack(f"<{job.dimensions}h", raw)]
    length = math.sqrt(sum(value * value for value in values)) or 1.0
    values = [value / length for value in values]
    return base64.b64encode(struct.pack(f"<{job.dimensions}f", *values)).decode() if job.base64 else values


class Stream:
    """The events of one streamed reply; each method gives whole `data:` events."""

    def __init__(self, job: Job, request_id: str, created: int) -> None:
        self._job = job
        chat = job.kind == "chat"
        self._base = {
            "id": request_id,
            "object": "chat.completion.chunk" if chat else "text_completion",
            "created": created,
            "model": job.model,
        }
        # A token's event is the same but for its word.
        marker = {"content": "\0"} if chat else "\0"
        self._before, self._after = self._event([self._choice(marker)]).split(b'"\\u0000"')
        self._made = 0

    def start(self) -> list[bytes]:
        """What comes before the first token: the role, in a chat."""
        if self._job.kind != "chat":
            return []
        return [self._event([self._choice({"role": "assistant", "content": ""})])]

    def tokens(self, count: int) -> list[bytes]:
        """The events of the next `count` tokens."""
        first, self._made = self._made, self._made + count
        return [
            b'%b"%b"%b' % (self._before, word(self._job.offset, index).encode(), self._after) for index in range(first, self._made)
        ]

    def end(self) -> list[bytes]:
        """Finish reason, usage where it was asked for, and `[DONE]`, an event each."""
        job = self._job
        nothing: dict[str, str] | str = {} if job.kind == "chat" else ""
        events = [self._event([self._choice(nothing, job.finish_reason)])]
        if job.include_usage:
            events.append(self._event([], usage=_usage(job, self._made)))
        return [*events, b"data: [DONE]\n\n"]

    def _choice(self, output: dict[str, str] | str, finish_reason: str | None = None) -> dict[str, Any]:
        part = "delta" if self._job.kind == "chat" else "text"
        return {"index": 0, part: output, "logprobs": None, "finish_reason": finish_reason}

    def _event(self, choices: list[dict[str, Any]], **fields: Any) -> bytes:
        return b"data: " + _ENCODE({**self._base, "choices": choices, **fields}) + b"\n\n"


def error_body(status: int, message: str, code: str | None = None, param: str | None = None) -> bytes:
    """An error in OpenAI's shape."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    return _ENCODE({"error": {"message": message, "type": kind, "param": param, "code": code}})


def models(names: list[str], created: int) -> bytes:
    """The list of served models."""
    data = [{"id": name, "object": "model", "created": created, "owned_by": "spillway"} for name in names]
    return _ENCODE({"object": "list", "data": data})
