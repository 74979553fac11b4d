"""Strict reading of wanted samples: what counts, what makes a metric unknown, and the bounds."""

import pytest

from spillway_sidecar.engines.exposition import (
    MAX_CANDIDATES,
    MAX_EXPOSITION_BYTES,
    MAX_LABELS,
    MAX_LINE_BYTES,
    MAX_SAMPLES,
    Sample,
    read_samples,
)


def values(text: str, name: str = "m") -> list[float] | None:
    samples = read_samples(text.encode(), name)
    return None if samples is None else [sample.value for sample in samples]


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("m 3", 3.0),
        ("m 3.5", 3.5),
        ("m 3.", 3.0),
        ("m .5", 0.5),
        ("m +1e2", 100.0),
        ("m 1E-2", 0.01),
        ("m 0", 0.0),
        ("m\t7 ", 7.0),
        ("m 7 1700000000000", 7.0),
        ("m 7 -5", 7.0),
        ("m 7\r", 7.0),
        ("m{} 7", 7.0),
        ("m{ } 7", 7.0),
        ("m{}7", 7.0),
        ('m{a="1"} 7', 7.0),
        ('m{a="1",} 7', 7.0),
        ('m { a = "1" , b="2" } 7', 7.0),
    ],
)
def test_forms_of_a_line_that_the_format_allows(line: str, value: float) -> None:
    assert values(line) == [value]


@pytest.mark.parametrize(
    "line",
    [
        "m NaN",
        "m +Inf",
        "m -Inf",
        "m inf",
        "m 1e999",
        "m -1",
        "m -0.5",
        "m 0x10",
        "m 1_000",
        "m 1,5",
        "m ",
        "m one",
        "m 1 2 3",
        "m 1 # {} 2",
        "m 1 1.5",
        "m{",
        "m{a",
        "m{a=",
        'm{a="1',
        'm{a="1"',
        "m{a=1} 7",
        'm{a="1"b="2"} 7',
        'm{a="1" b="2"} 7',
        'm{,a="1"} 7',
        'm{a="1",,b="2"} 7',
        'm{a="1",a="2"} 7',
        'm{1a="1"} 7',
        'm{a="1"}',
        'm{a="1"} 7}',
        'm{a="x\\"} 7',
        "m \u0663",
    ],
)
def test_a_malformed_or_impossible_value_makes_the_metric_unknown(line: str) -> None:
    assert values(line) is None


def test_one_bad_sample_spoils_the_sum_of_the_others() -> None:
    assert values('m{a="1"} 3\nm{a="2"} NaN\n') is None


def test_only_whole_names_at_the_start_of_a_line_count() -> None:
    text = '# HELP m the metric\n# TYPE m gauge\nm_total 9\nam 9\n m 9\nxm{} 9\nmm 1\nm 1\nm{a="x"} 2\nnot m 9'
    assert values(text) == [1.0, 2.0]


def test_the_last_line_needs_no_newline_and_the_first_no_newline_before() -> None:
    assert values("m 1\nm 2") == [1.0, 2.0]


def test_label_values_are_unescaped_and_may_hold_braces_commas_and_spaces() -> None:
    text = r'm{model="a \"b\" }, c\\d\ne",empty="",u="é"} 4'
    assert read_samples(text.encode(), "m") == (Sample({"model": 'a "b" }, c\\d\ne', "empty": "", "u": "é"}, 4.0),)


def test_a_label_value_that_is_not_utf8_is_replaced_and_the_sample_counts() -> None:
    samples = read_samples(b'm{a="\xff"} 1', "m")
    assert samples == (Sample({"a": "\ufffd"}, 1.0),)


def test_an_absent_metric_is_empty_and_not_unreadable() -> None:
    assert read_samples(b"", "m") == ()
    assert read_samples(b"other 1\n", "m") == ()
    assert read_samples(b"m\nm", "m") == ()


def test_bounds() -> None:
    labels = ",".join(f'l{index}="x"' for index in range(MAX_LABELS))
    assert values(f"m{{{labels}}} 1") == [1.0]
    assert values(f'm{{{labels},more="x"}} 1') is None

    line = 'm{a="' + "x" * (MAX_LINE_BYTES - 9) + '"} 1'
    assert len(line) == MAX_LINE_BYTES
    assert values(line) == values(line + "\n") == [1.0]
    assert values(line + "1") is None
    assert values(line + "1\nm 1") is None

    assert values("m 1\n" * MAX_SAMPLES) == [1.0] * MAX_SAMPLES
    assert values("m 1\n" * (MAX_SAMPLES + 1)) is None

    assert values("mm 1\n" * (MAX_CANDIDATES - 1) + "m 1") == [1.0]
    assert values("mm 1\n" * MAX_CANDIDATES + "m 1") is None

    assert values("m 1\n" + "#" * (MAX_EXPOSITION_BYTES - 4)) == [1.0]
    assert values("m 1\n" + "#" * (MAX_EXPOSITION_BYTES - 3)) is None
