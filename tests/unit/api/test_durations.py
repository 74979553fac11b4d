"""Durations: the text stays, the seconds are right, the bounds hold."""

from __future__ import annotations

import copy
import pickle

import pytest
from pydantic import TypeAdapter, ValidationError

from spillway_operator.api.durations import Duration, in_range, parse_seconds

FIELD = TypeAdapter(Duration)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("10s", 10),
        ("1m30s", 90),
        ("0.5h", 1800),
        ("24h", 86_400),
        ("1ms", 0.001),
        ("0.1s0.2s", 0.3),
        ("1h0s", 3600),
    ],
)
def test_a_duration_keeps_its_text_and_knows_its_seconds(text: str, seconds: float) -> None:
    duration = FIELD.validate_python(text)
    assert duration == text
    assert duration.seconds == seconds
    assert FIELD.dump_python(duration, mode="json") == text
    assert type(FIELD.dump_python(duration)) is str


@pytest.mark.parametrize("text", ["", "5", "s", "5 s", "-5s", "5us", "5S", "1d", ".5s", "5s ", "5s\n", "1m-1s", "٣s"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        parse_seconds(text)
    with pytest.raises(ValidationError):
        FIELD.validate_python(text)
    assert not in_range(text)


@pytest.mark.parametrize("text", ["0s", "0.1ms", "24h1ms", "99999999999999999999h"])
def test_a_duration_out_of_range_is_refused_with_the_range(text: str) -> None:
    with pytest.raises(ValidationError, match="at least 1ms and at most 24h"):
        FIELD.validate_python(text)
    with pytest.raises(ValueError, match="at least 1ms"):
        Duration(text)
    assert not in_range(text)


@pytest.mark.parametrize("value", [5, 5.0, True, None, b"5s"])
def test_only_text_is_a_duration(value: object) -> None:
    with pytest.raises(ValidationError):
        FIELD.validate_python(value)


def test_copies_are_whole() -> None:
    duration = Duration("2m")
    for other in (copy.deepcopy(duration), pickle.loads(pickle.dumps(duration))):
        assert (other, other.seconds) == ("2m", 120)
