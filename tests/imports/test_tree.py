"""What the tree must never contain."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_operator_folder_is_no_package() -> None:
    """`operator/__init__.py` would shadow the standard library's `operator` for anyone who stands in the root."""
    assert not (ROOT / "operator" / "__init__.py").exists()


def test_the_standard_operator_is_found_from_the_root() -> None:
    code = "import operator; print(operator.__name__, operator.itemgetter(1)('ab'))"
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert answer.stdout.split() == ["operator", "b"]
