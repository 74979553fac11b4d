"""A stream that broke off, asked for again from where it stopped: what of it has come, the request for the rest, the rest's events.

Chat goes on by a last message of the assistant that the engine is told to continue, completions by a longer prompt. That is sound
for one choice of plain text only. Tools, several choices, log probabilities, a grammar (which would begin anew) and thinking that
is shown apart are left to break off.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from spillway_wire.names import RequestType

_WITHOUT: Final = (
    "tools", "functions", "logprobs", "top_logprobs", "prompt_logprobs", "best_of", "echo", "suffix", "structured_outputs", "guided_json",
    "guided_regex", "guided_choice", "guided_grammar", "regex", "ebnf", "json_schema", "use_beam_search", "continue_final_message",
)  # fmt: skip
_LIMITS: Final = ("max_tokens", "max_completion_tokens")
_PREFIX: Final = b"data:"
_DONE: Final = b"[DONE]"


@dataclass(frozen=True, slots=True)
class Heard:
    """What has come of a stream: its text, in how many pieces, and the fields that each event of it has."""

    text: str
    pieces: int
    fields: dict[str, Any]


def hear(stream: bytes) -> Heard | None:
    """What the whole events of a stream say; None for one that has ended, or is not plain text."""
    texts: list[str] = []
    fields: dict[str, Any] = {}
    for block in stream.replace(b"\r\n", b"\n").split(b"\n\n"):
        event = _data(block)
        if event is None:
            continue
        if not _plain(event):
            return None
        if not fields:
            fields = {name: event[name] for name in ("id", "created", "model", "system_fingerprint") if name in event}
        for choice in event.get("choices") or ():
            delta = choice.get("delta") or {}
            if choice.get("finish_reason") or choice.get("index") or set(delta) - {"role", "content"} - _empty(delta):
                return None
            text = choice.get("text") or delta.get("content")
            if text:
                texts.append(text)
    return Heard("".join(texts), len(texts), fields)


def _empty(delta: dict[str, Any]) -> set[str]:
    return {name for name, value in delta.items() if not value}


def _plain(event: dict[str, Any]) -> bool:
    """Whether the event has the form that is read here."""
    choices = event.get("choices") or []
    return isinstance(choices, list) and all(
        isinstance(choice, dict)
        and isinstance(choice.get("delta") or {}, dict)
        and isinstance(choice.get("text") or (choice.get("delta") or {}).get("content") or "", str)
        for choice in choices
    )


def _data(block: bytes) -> dict[str, Any] | None:
    """The object that an event carries."""
    lines = [line[len(_PREFIX) :].strip() for line in block.split(b"\n") if line.startswith(_PREFIX)]
    if len(lines) != 1 or lines[0] == _DONE:
        return None
    try:
        event = msgspec.json.decode(lines[0])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return event if isinstance(event, dict) else None


def continued(body: bytes, request_type: RequestType, heard: Heard) -> bytes | None:
    """The request for the rest; None where that cannot be asked for, or is none."""
    try:
        return _continued(msgspec.json.decode(body), request_type, heard)
    except RecursionError:  # it was read from further out
        return None


def _continued(request: dict[str, Any], request_type: RequestType, heard: Heard) -> bytes | None:
    form = request.get("response_format")
    if (form and form != {"type": "text"}) or request.get("n") not in {None, 1} or any(request.get(name) for name in _WITHOUT):
        return None
    for name in _LIMITS:
        limit = request.get(name)
        if isinstance(limit, int):
            if limit <= heard.pieces:
                return None
            request[name] = limit - heard.pieces
    if not heard.text:
        return msgspec.json.encode(request)
    if request_type is RequestType.COMPLETIONS:
        if not isinstance(request.get("prompt"), str):
            return None
        request["prompt"] += heard.text
    elif request_type is RequestType.CHAT and isinstance(request.get("messages"), list):
        request["messages"].append({"role": "assistant", "content": heard.text})
        request["add_generation_prompt"] = False
        request["continue_final_message"] = True
    else:
        return None
    return msgspec.json.encode(request)


def rest(stream: bytes, heard: Heard) -> bytes:
    """Whole events of the rest as the client is to see them: of the stream that it knows, without another beginning."""
    blocks: list[bytes] = []
    for block in stream.replace(b"\r\n", b"\n").split(b"\n\n"):
        event = _data(block)
        if event is None or not _plain(event):
            blocks.append(block)
            continue
        event |= heard.fields
        says = bool(event.get("usage")) or not event.get("choices")
        for choice in event.get("choices") or ():
            delta = choice.get("delta")
            if isinstance(delta, dict):
                delta.pop("role", None)
                says = says or any(delta.values())
            says = says or bool(choice.get("text") or choice.get("finish_reason"))
        if says:
            with contextlib.suppress(RecursionError):  # then it has not been read much less deep, and goes as it came
                block = b"data: " + msgspec.json.encode(event)  # noqa: PLW2901
            blocks.append(block)
    return b"".join(block + b"\n\n" for block in blocks if block)
