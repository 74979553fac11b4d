"""Durations as Go writes them: `500ms`, `10s`, `1m30s`.

A `Duration` is the text as its author wrote it, which is what goes back into YAML, with its length in seconds beside it.
Its bounds are those of a snapshot's seconds: longer than nothing, at most a day. The schema carries them as a CEL rule, since no
pattern can.
"""

from __future__ import annotations

import re
from typing import Any, Final, Self

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import PydanticCustomError, core_schema

from spillway_operator.api.fields import DURATION_PATTERN, PATTERN_HINTS

MAX_LENGTH: Final = 32
MAX_SECONDS: Final = 86_400.0
MIN_SECONDS: Final = 0.001
RANGE_CEL: Final = "duration(self) >= duration('1ms') && duration(self) <= duration('24h')"
RANGE_MESSAGE: Final = "a duration is at least 1ms and at most 24h: give a value in that range"

_WHOLE: Final = re.compile(DURATION_PATTERN.removesuffix("$") + r"\Z")
_PART: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)")
_UNIT_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def parse_seconds(text: str) -> float:
    """Length in seconds of a Go-style duration, of any size. Raises `ValueError` where the text is none."""
    if not _WHOLE.match(text):
        raise ValueError(f"{text!r} is not a duration: {PATTERN_HINTS[DURATION_PATTERN]}")
    # Rounded to the nanosecond, as Go counts: 0.1s + 0.2s is then 0.3 s exactly.
    return round(sum(float(number) * _UNIT_SECONDS[unit] for number, unit in _PART.findall(text)), 9)


def in_range(text: str) -> bool:
    """What `RANGE_CEL` says of a text that is a duration; a text that is none is not in range."""
    try:
        return MIN_SECONDS <= parse_seconds(text) <= MAX_SECONDS
    except ValueError:
        return False


class Duration(str):
    """The text of a duration between 1 ms and a day; `seconds` is its length. Raises `ValueError` for any other text."""

    __slots__ = ("seconds",)
    seconds: float

    def __new__(cls, text: str) -> Self:
        """The duration that a text says."""
        seconds = parse_seconds(text)
        if not MIN_SECONDS <= seconds <= MAX_SECONDS:
            raise ValueError(RANGE_MESSAGE)
        duration = super().__new__(cls, text)
        duration.seconds = seconds
        return duration

    def __getnewargs__(self) -> tuple[str]:
        return (str(self),)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_after_validator_function(
            cls._validated,
            core_schema.str_schema(pattern=DURATION_PATTERN, min_length=1, max_length=MAX_LENGTH, strict=True),
            serialization=core_schema.plain_serializer_function_ser_schema(str, return_schema=core_schema.str_schema()),
        )

    @classmethod
    def _validated(cls, text: str) -> Self:
        try:
            return cls(text)
        except ValueError as error:
            raise PydanticCustomError("duration_range", RANGE_MESSAGE) from error

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        del schema
        text = handler(core_schema.str_schema(pattern=DURATION_PATTERN, min_length=1, max_length=MAX_LENGTH))
        text["x-kubernetes-validations"] = [{"rule": RANGE_CEL, "message": RANGE_MESSAGE}]
        return text
