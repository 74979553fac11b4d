"""The model's name is replaced in any body, and no other byte is."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from spillway_sidecar.routing.classify import classify
from spillway_sidecar.routing.rewrite import replace_model
from spillway_wire.names import RequestType

_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
_tricky = st.sampled_from(["model", '"model"', '"model":"m"', '\\"model\\"', "{", "}]", '","model":"x', "\\", '\\"', ":", ","])
_strings = st.one_of(_text, _tricky)
_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**40), 2**40), st.floats(allow_nan=False, allow_infinity=False), _strings),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.one_of(_strings, st.just("model")), inner, max_size=3)),
    max_leaves=8,
)
_space = st.sampled_from([b"", b" ", b"\n", b"\t\r\n "])


def _key(draw: st.DrawFn, name: str) -> bytes:
    return draw(
        st.sampled_from(
            [json.dumps(name).encode(), b'"' + b"".join(b"\\u%04x" % ord(c) if i == 2 else c.encode() for i, c in enumerate(name)) + b'"']
        )
    )  # fmt: skip


@st.composite
def bodies(draw: st.DrawFn) -> tuple[list[bytes], set[int]]:
    """A body in pieces, and which of them are values of a top-level `model`."""
    fields: list[tuple[str, Any]] = [(name, value) for name, value in draw(st.dictionaries(_strings, _values, max_size=4)).items()]
    fields = [(name, value) for name, value in fields if name not in {"model", "stream"}]
    for _ in range(draw(st.integers(1, 2))):
        fields.insert(draw(st.integers(0, len(fields))), ("model", draw(st.sampled_from(["m", "a/b", 'q"q', "é", "model"]))))
    ascii_only = draw(st.booleans())
    pieces: list[bytes] = [draw(_space), b"{"]
    models: set[int] = set()
    for index, (name, value) in enumerate(fields):
        key = _key(draw, name) if name == "model" else json.dumps(name, ensure_ascii=ascii_only).encode()
        pieces += [b"," if index else b"", draw(_space), key, draw(_space), b":", draw(_space)]
        if name == "model":
            models.add(len(pieces))
        pieces += [json.dumps(value, ensure_ascii=ascii_only).encode(), draw(_space)]
    return [*pieces, b"}", draw(_space)], models


@given(bodies(), st.one_of(st.sampled_from(["other", 'a "b"\\', "ü"]), _text.filter(bool)))
def test_the_value_of_the_field_is_all_that_changes(body: tuple[list[bytes], set[int]], name: str):
    pieces, models = body
    raw = b"".join(pieces)
    classify(RequestType.CHAT, raw)  # what comes here has passed it
    changed = replace_model(raw, name)
    wanted = json.loads(raw, object_pairs_hook=_Members)
    got = json.loads(changed, object_pairs_hook=_Members)
    assert got.names.count("model") == 1, "whoever reads it reads the same one"
    assert got["model"] == name
    assert [item for item in got.items() if item[0] != "model"] == [item for item in wanted.items() if item[0] != "model"]
    if raw.count(b'"model"') == 1 and b"\\u006" not in raw:
        value = changed[len(b"".join(pieces[: min(models)])) :]
        end = len(json.dumps(name, ensure_ascii=False).encode())
        encoded = next(value[:n] for n in range(end, len(value) + 1) if _is_json(value[:n]))
        assert changed == b"".join(encoded if index in models else piece for index, piece in enumerate(pieces))


class _Members(dict[str, Any]):
    """An object, with its members' names as they stand there."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.names = [name for name, _ in pairs]


def _is_json(data: bytes) -> bool:
    try:
        json.loads(data)
    except ValueError:
        return False
    return True


@given(bodies())
def test_the_facts_of_a_body_are_those_of_its_last_model(body: tuple[list[bytes], set[int]]):
    raw = b"".join(body[0])
    facts = classify(RequestType.CHAT, raw)
    assert facts.model == json.loads(raw)["model"]
    assert facts.prompt_tokens == max(1, len(raw) // 4)
