"""Every target of the fuzzer over its seeds, over what was found by it and mended, and over some inputs that chance makes of both."""

from __future__ import annotations

import random

import pytest
from fuzz.differential import spoil
from fuzz.targets import TARGETS, seeds
from tests.corpora.corpus import HERE, cases

SPOILT = 200


def _found(target: str) -> list[bytes]:
    return [case["bytes"] for case in cases("found", target).values()] if (HERE / "found" / f"{target}.toml").exists() else []


@pytest.mark.parametrize("target", TARGETS)
def test_no_input_breaks_what_reads_it(target: str):
    known = [*seeds(target), *_found(target)]
    rng = random.Random(target)
    inputs = [*known, *(spoil(rng.choice(known), rng.choice(known), rng) for _ in range(SPOILT))]
    for data in inputs:
        try:
            TARGETS[target](data)
        except Exception as error:
            raise AssertionError(f"broken by {data!r}") from error


def test_what_was_found_belongs_to_a_target():
    assert {path.stem for path in (HERE / "found").glob("*.toml")} <= TARGETS.keys()
