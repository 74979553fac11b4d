"""Pure packages take plain data, `now` and `rng`, and return a value: nothing in them waits, looks at a clock or prints.

Which modules they may import is a contract of import-linter; here is what a contract on imports cannot see. Importing every
module also puts those that no test touches before the coverage floor, which counts only what was loaded.
"""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PURE = (
    "operator/spillway_operator/balancing",
    "operator/spillway_operator/injection",
    "operator/spillway_operator/policies",
    "operator/spillway_operator/scaling",
    "operator/spillway_operator/snapshot",
    "sidecar/spillway_sidecar/engines",
    "sidecar/spillway_sidecar/flow",
    "sidecar/spillway_sidecar/routing",
    "sidecar/spillway_sidecar/scheduling",
)
CLOCKS = {"now", "utcnow", "today"}
BUILTINS = {"open", "print", "input", "eval", "exec"}
FILES = sorted(path for package in PURE for path in (ROOT / package).rglob("*.py"))


def impurities(source: str) -> list[str]:
    """What in a module is not a pure function of its arguments, as `line: what`."""
    found = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.AsyncFunctionDef() | ast.Await() | ast.AsyncFor() | ast.AsyncWith():
                found.append(f"{node.lineno}: waits")
            case ast.Call(func=ast.Attribute(attr=name, value=ast.Name(id="datetime" | "date"))) if name in CLOCKS:
                found.append(f"{node.lineno}: clock {name}")
            case ast.Call(func=ast.Attribute(attr=name, value=ast.Attribute(attr="datetime" | "date"))) if name in CLOCKS:
                found.append(f"{node.lineno}: clock {name}")
            case ast.Call(func=ast.Name(id=name)) if name in BUILTINS:
                found.append(f"{node.lineno}: calls {name}")
            case ast.Global():
                found.append(f"{node.lineno}: global state")
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_pure_module_is_pure_and_loads_alone(path: Path) -> None:
    assert impurities(path.read_text()) == []
    importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts[1:]).removesuffix(".__init__"))


def test_there_are_pure_modules() -> None:
    """A renamed folder must not make the test above pass by finding nothing."""
    assert {path.parents[0].name for path in FILES} >= {"balancing", "policies", "snapshot", "engines", "routing", "scheduling"}


@pytest.mark.parametrize(
    "source",
    [
        "async def f(): pass",
        "from datetime import datetime\nx = datetime.now()",
        "import datetime\nx = datetime.datetime.utcnow()",
        "import datetime\nx = datetime.date.today()",
        "print('x')",
        "def f():\n    global x\n    x = 1",
    ],
)
def test_impurities_are_seen(source: str) -> None:
    assert impurities(source)
