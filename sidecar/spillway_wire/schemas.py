"""JSON Schemas of the stream, for a proxy or operator that is not ours: `python -m spillway_wire.schemas` writes `schema/`.

The files are checked in, and a contract test holds that they are what the types say: a change of the wire shows in review.
"""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any, Final

import msgspec

from spillway_wire.messages import FromOperator, FromProxy
from spillway_wire.snapshot import Resource

FOLDER: Final = Path(__file__).parent / "schema"
_SCHEMAS: Final[dict[str, tuple[str, Any]]] = {
    "from_proxy.json": ("A frame from a proxy to the operator", FromProxy),
    "from_operator.json": ("A frame from the operator to a proxy; `resources` holds documents of resource.json", FromOperator),
    "resource.json": ("A resource of the snapshot", Resource),
}


def documents() -> dict[str, str]:
    """File name to content of every schema."""
    return {name: _document(title, kind) for name, (title, kind) in _SCHEMAS.items()}


def _document(title: str, kind: Any) -> str:
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": title}
    return json.dumps({**head, **_dedent(msgspec.json.schema(kind))}, indent=1, sort_keys=True) + "\n"


def _dedent(node: Any) -> Any:
    """Descriptions are docstrings: without the indentation of the source."""
    if isinstance(node, dict):
        return {
            name: inspect.cleandoc(value) if name == "description" and isinstance(value, str) else _dedent(value)
            for name, value in node.items()
        }
    return [_dedent(value) for value in node] if isinstance(node, list) else node


def write(folder: Path = FOLDER) -> None:
    """Write them all."""
    folder.mkdir(exist_ok=True)
    for name, content in documents().items():
        (folder / name).write_text(content, encoding="utf-8")


if __name__ == "__main__":
    write()
