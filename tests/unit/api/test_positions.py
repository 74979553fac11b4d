"""YAML with lines: limits, bombs, separators, and what a scalar is."""

from __future__ import annotations

from typing import Any

import pytest

from spillway_operator.api import positions
from spillway_operator.api.positions import documents


def only(text: str) -> positions.Document:
    (document,) = documents(text)
    return document


def test_each_part_has_its_line() -> None:
    document = only("# c\na: 1\nb:\n  c:\n  - x\n  - d: 2\n    e: >\n      text\nf: {g:\n  3}\n")
    assert {at: document.line_of(at) for at in [("a",), ("b",), ("b", "c"), ("b", "c", 0), ("b", "c", 1), ("b", "c", 1, "e"), ("f", "g")]} == {
        ("a",): 2, ("b",): 3, ("b", "c"): 4, ("b", "c", 0): 5, ("b", "c", 1): 6, ("b", "c", 1, "e"): 7, ("f", "g"): 10,
    }  # fmt: skip
    assert document.line_of(()) == 2
    assert document.line_of(("b", "c", 9, "missing")) == 4, "the nearest part that there is"


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("# only words\n", 0),
        ("---\n---\n", 0),
        ("%YAML 1.1\n---\na: 1\n", 1),
        ("a: 1\n---\n# nothing\n---\nb: 2", 2),
        ("a: 1\n...\nb: 2\n...\n", 2),
        ("a: 1\r\n---\r\nb: 2\r\n", 2),
        ("\ufeffa: 1\n", 1),
        ("--- {a: 1}\n--- {b: 2}\n", 2),
        ("a: |\n  ---\n  text\n", 1),
        ("a: ---x\n---x: 1\n", 1),
        ("null\n", 0),
    ],
)
def test_where_documents_begin_and_end(text: str, count: int) -> None:
    found = list(documents(text))
    assert len(found) == count
    assert not [flaw for document in found for flaw in document.flaws]


def test_a_bad_document_leaves_its_neighbours_whole() -> None:
    first, bad, last = documents('a: 1\n---\nb: "open\n---\nc: 3\n')
    assert (first.data, bad.data, last.data) == ({"a": 1}, None, {"c": 3})
    assert [flaw.line for flaw in bad.flaws] == [3]
    assert last.line_of(("c",)) == 5


def test_what_comes_before_an_error_in_the_same_text_stays() -> None:
    good, bad = documents("a: 1\n...\nb: [\n")
    assert good.data == {"a": 1}
    assert bad.flaws[0].line == 3


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5), ("0", 0), ("-5", -5), ("+5", 5), ("1_000", 1000), ("0x1F", 31), ("-0b11", -3), ("010", 8), ("5.0", 5), ("5.5", 5.5), ("1e3", "1e3"),
        ("1.0e+3", 1000), ("1:30", "1:30"), ("1:30.5", "1:30.5"), ("yes", True), ("off", False), ("~", None), ("", None), ("2026-01-01", "2026-01-01"),
        ("'5'", "5"), ("!!str 5", "5"), ("!!int '5'", 5), ("=", "="), ("text", "text"),
    ],
)  # fmt: skip
def test_scalars_are_json(text: str, value: Any) -> None:
    found = only(f"a: {text}").data["a"]
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize("text", [".inf", "-.inf", ".nan", "!!int x", "!!float x", "1.0e+999", "9" * 5000])
def test_numbers_that_json_cannot_hold_are_refused(text: str) -> None:
    document = only(f"a: {text}")
    assert document.data is None
    assert "no number that can be used" in document.flaws[0].message


def test_merge_keys_and_aliases_are_followed() -> None:
    text = "a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: {<<: [*a, {z: 4}]}\nd: *a\ne: &e text\nf: *e\n"
    document = only(text)
    assert document.data["b"] == {"y": 3, "x": 1}
    assert document.data["c"] == {"x": 1, "y": 2, "z": 4}
    assert document.data["d"] == {"x": 1, "y": 2}
    assert document.data["f"] == "text"
    assert document.line_of(("d", "x")) == 4, "what an alias repeats is wrong where the alias stands"


def test_an_alias_bomb_is_defused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    document = only("\n".join(lines))
    assert document.data is None
    assert "counting what aliases repeat" in document.flaws[0].message


def test_depth_is_limited() -> None:
    document = only("a: " + "[" * 100_000)
    assert "nested more than 64 levels" in document.flaws[0].message
    assert only("a: " + "[" * 63 + "]" * 63).data


def test_a_control_character_is_told_with_its_line() -> None:
    document = only("a: 1\nb: \x07\n")
    assert document.data is None
    assert [(flaw.line, flaw.message) for flaw in document.flaws] == [(2, "a control character stands in the text: remove it")]


@pytest.mark.parametrize(
    ("text", "words"), [("{a: 1}: b", "a key is a word"), ("? [a]\n: b", "a key is a word"), ("&a x: 1\n*a : 2", "given twice")]
)
def test_keys_are_words_given_once(text: str, words: str) -> None:
    assert words in only(text).flaws[0].message


def test_a_mapping_behind_an_alias_is_no_key() -> None:
    assert "a key is a word" in only("a: &a {x: 1}\n*a : 2").flaws[0].message


def test_syntax_that_nobody_foresaw_is_told_in_the_parsers_words() -> None:
    assert "cannot be read" in only("a: |x\n  text\n").flaws[0].message
