"""Schema, rules and models say the same of every object, good or bad."""

from __future__ import annotations

from typing import Any

import yaml
from hypothesis import given, settings
from pydantic import ValidationError
from tests.fakes import resources

from spillway_operator.api.checker import faults
from spillway_operator.api.documents import load_text
from spillway_operator.api.schema import KINDS


def model_takes(document: dict[str, Any]) -> bool:
    try:
        KINDS[document["kind"]].model.model_validate(document)
    except ValidationError:
        return False
    return True


@settings(max_examples=150)
@given(resources.spoilt())
def test_the_documents_schema_and_the_models_judge_alike(document: dict[str, Any]) -> None:
    assert (faults(document["kind"], document) == []) == model_takes(document)


@settings(max_examples=150)
@given(resources.objects)
def test_an_object_survives_the_way_to_text_and_back(document: dict[str, Any]) -> None:
    model = KINDS[document["kind"]].model.model_validate(document)
    text = yaml.safe_dump(model.to_document(), allow_unicode=True)
    loaded = load_text(text, "f.yaml")
    assert [problem.message for problem in loaded.problems] == []
    assert [each.model for each in loaded.objects] == [model]
    # And what is written once is written the same again.
    assert yaml.safe_dump(loaded.objects[0].model.to_document(), allow_unicode=True) == text


@settings(max_examples=100)
@given(resources.spoilt())
def test_no_document_makes_the_loader_fail(document: dict[str, Any]) -> None:
    loaded = load_text(yaml.safe_dump(document), "f.yaml")
    assert len(loaded.objects) + bool(loaded.problems) == 1
