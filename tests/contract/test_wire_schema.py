"""The checked-in JSON Schemas are what the types say, and the golden documents hold to them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from spillway_wire import schemas

GOLDEN = Path(__file__).parent / "golden" / "v1alpha1"


def test_the_files_are_what_the_types_say() -> None:
    """A change of the wire shows as a change of these files: run `python -m spillway_wire.schemas`."""
    on_disk = {path.name: path.read_text(encoding="utf-8") for path in schemas.FOLDER.glob("*.json")}
    assert on_disk == schemas.documents()


def test_writing_makes_the_same_files(tmp_path: Path) -> None:
    """The generator's files are its documents."""
    schemas.write(tmp_path / "schema")
    assert {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "schema").iterdir()} == schemas.documents()


def _schema_of(document: dict[str, Any]) -> str:
    if "kind" in document:
        return "resource.json"
    return "from_operator.json" if document["type"] in {"update", "ping"} else "from_proxy.json"


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.json")), ids=lambda path: path.stem)
def test_golden_documents_hold_to_the_schemas(path: Path) -> None:
    """What a foreign implementation validates against the schemas is what we say; a wrong value is refused by them."""
    document = json.loads(path.read_text(encoding="utf-8"))
    schema = json.loads((schemas.FOLDER / _schema_of(document)).read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    validator.validate(document)
    tag = "kind" if "kind" in document else "type"
    assert not validator.is_valid({**document, tag: "no such thing"})


def test_resources_within_a_golden_update_hold_to_their_schema() -> None:
    """`from_operator.json` leaves resources open, because they are documents of their own."""
    update = json.loads((GOLDEN / "update.json").read_text(encoding="utf-8"))
    schema = json.loads((schemas.FOLDER / "resource.json").read_text(encoding="utf-8"))
    assert {resource["kind"] for resource in update["resources"]} == {"route", "cluster", "endpoints", "weights"}
    for resource in update["resources"]:
        jsonschema.validate(resource, schema)
