"""Sentences about faults: what is wrong with a value, and what to do about it.

Each takes jsonschema's error and answers with words for somebody who looks at the line that is named beside them: no library
terms, the value in question where it is short, and the remedy.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterable
from typing import Any, Final

from spillway_operator.api.fields import PATTERN_HINTS
from spillway_operator.api.rules import Location

_TYPES: Final = {
    "object": "a mapping (lines of key: value)",
    "array": "a list (lines that begin with -)",
    "string": "text",
    "integer": "a whole number",
    "boolean": "true or false",
}
_SIZES: Final = {
    "Length": "characters",
    "Items": "entries",
    "Properties": "entries",
}


def sentence(error: Any) -> str:
    """What to say of a jsonschema `ValidationError`; its own message where the keyword is one of ours."""
    say = _SENTENCES.get(error.validator)
    return say(error) if say else str(error.message)


def missing(description: str) -> str:
    """A required field is not there."""
    return f"missing, and required. {description}".rstrip()


def unknown_field(location: Location, known: Iterable[str], meant: str, elsewhere: list[str]) -> str:
    """A field that the schema does not have. `meant`: the field it probably is; `elsewhere`: where there is one of that name."""
    if meant:
        return f'unknown field; did you mean "{meant}"?'
    if elsewhere:
        return f"unknown field here; there is {' and '.join(elsewhere[:3])}: move it, or remove it"
    if location[0] == "metadata":
        return "unknown field: remove it (name, namespace, labels and annotations are what a document has here)"
    return f"unknown field: remove it (known here: {', '.join(known)})"


def closest(name: str, options: Iterable[str]) -> str:
    """The option that a misspelt name was meant to be, or the empty text. Case, `_` and `-` do not count."""
    folded = {option.lower(): option for option in options}
    plain = name.replace("_", "").replace("-", "").lower()
    found = difflib.get_close_matches(plain, list(folded), n=1, cutoff=0.75)
    return folded[found[0]] if found else ""


def short(text: str) -> str:
    """A text that fits into a sentence; one in quotes stays in quotes."""
    if len(text) <= 60:
        return text
    quote = text[-1] if text[0] == text[-1] == '"' else ""
    return f"{text[:56]}...{quote}"


def _type(error: Any) -> str:
    wanted, value = error.validator_value, error.instance
    expected = _TYPES[wanted]
    if value is None:
        return f"is empty: give {expected}"
    if isinstance(value, bool):
        found = "true or false (YAML reads yes, no, on and off so)"
    elif isinstance(value, int | float):
        found = f"the number {short(json.dumps(value))}"
    else:
        found = "text" if isinstance(value, str) else "a list" if isinstance(value, list) else "a mapping"
    remedy = ""
    if wanted == "string" and isinstance(value, bool | int | float):
        remedy = ": put it in quotes"
    elif wanted == "integer" and isinstance(value, str) and value.strip().isdigit():
        remedy = ": remove the quotes"
    elif wanted == "array" and isinstance(value, str):
        remedy = ": put [ ] around it"
    elif wanted == "array":
        remedy = ': put "- " before each entry'
    return f"must be {expected}, but is {found}{remedy}"


def _enum(error: Any) -> str:
    options = [str(option) for option in error.validator_value]
    said = short(json.dumps(error.instance, ensure_ascii=False))
    meant = closest(error.instance, options)
    return f"{said} is none of {', '.join(options)}" + (f'; did you mean "{meant}"?' if meant else "")


def _pattern(error: Any) -> str:
    # Not below `auth`: somebody may have put the token where the name of its secret belongs.
    said = "the text" if "auth" in error.absolute_path else short(json.dumps(error.instance, ensure_ascii=False))
    return f"{said} does not fit: {PATTERN_HINTS[error.validator_value]}"


def _too_few(error: Any) -> str:
    # Every lower bound on a size in the schemas is 1; a test holds that.
    return "is empty: give a text" if error.validator == "minLength" else "is empty: give at least one entry"


def _too_many(error: Any) -> str:
    unit = _SIZES[error.validator.removeprefix("max")]
    return f"has {len(error.instance)} {unit}: give at most {error.validator_value}"


def _too_small(error: Any) -> str:
    return f"is {short(str(error.instance))}: give a number of at least {error.validator_value}"


def _too_large(error: Any) -> str:
    return f"is {short(str(error.instance))}: give a number of at most {error.validator_value}"


_SENTENCES: Final[dict[str, Callable[[Any], str]]] = {
    "type": _type,
    "enum": _enum,
    "pattern": _pattern,
    "minLength": _too_few,
    "minItems": _too_few,
    "minProperties": _too_few,
    "maxLength": _too_many,
    "maxItems": _too_many,
    "maxProperties": _too_many,
    "minimum": _too_small,
    "maximum": _too_large,
}


# What the parser says, and what a person can do about it. The first fragment that is in the parser's words counts.
_SYNTAX: Final = (
    ("mapping values are not allowed", 'a ": " that does not fit: put the text in quotes, or see whether the line above it lacks one'),
    ("could not find expected ':'", 'a line without ": ": write key: value, and check quotes and indentation'),
    ("did not find expected ',' or", "a [ or { that is not closed, or a comma that is missing"),
    ("expected ',' or", "a [ or { that is not closed, or a comma that is missing"),
    ("unexpected end of stream", "a quote that is not closed"),
    ("unexpected end", "the document ends too early: a [ or { is not closed, or a value is missing"),
    ("did not find expected '-' indicator", 'the indentation does not fit the list above: line up the "- "'),
    ("did not find expected key", "the indentation, or a quote, does not fit the lines above"),
    ("expected <block end>", "the indentation, or a quote, does not fit the lines above"),
    ("block sequence entries are not allowed", 'a list does not begin here: put the "- " on a line of its own'),
    ("did not find expected node content", "a value that YAML cannot read: put the text in quotes"),
    ("undefined tag handle", "a tag that means nothing here: put the text in quotes"),
    ("did not find expected hexdecimal", r"a \ in double quotes that begins nothing known: use single quotes, or \\"),
    ("unknown escape character", r"a \ in double quotes that begins nothing known: use single quotes, or \\"),
)  # fmt: skip


def syntax(error: Any, text: str) -> str:
    """What to say of PyYAML's `MarkedYAMLError`, met in a text."""
    words = f"{error.context or ''} {error.problem or ''}"
    mark = error.problem_mark
    if "cannot start any token" in words and mark is not None:
        line = text.splitlines()[mark.line] if mark.line < len(text.splitlines()) else ""
        sign = line[mark.column : mark.column + 1]
        if "\t" in line[: mark.column + 1]:
            return "a tab: YAML is indented with spaces only"
        return f"a value cannot begin with {sign}: put the text in quotes"
    if mark is not None and not "".join(text.splitlines()[mark.line :])[mark.column :].strip():
        words += " unexpected end"
    explanation = next((said for fragment, said in _SYNTAX if fragment in words), None)
    return explanation or f"YAML that cannot be read ({(error.problem or 'unknown reason').strip()})"
