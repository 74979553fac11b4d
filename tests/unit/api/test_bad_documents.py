"""Bad documents and what is said of them: each file of the corpus beside what it must bring, word for word.

The texts are what a user sees, so they are here to be read. After a change of words, `python tests/unit/api/test_bad_documents.py`
writes them anew, and the difference is for review.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from spillway_operator.api.documents import load_text

CORPUS = Path(__file__).resolve().parents[2] / "fakes" / "docs_bad"
FILES = sorted(CORPUS.glob("*.yaml"))


def report(path: Path) -> str:
    loaded = load_text(path.read_bytes(), path.name)
    lines = [f"{problem}  [{problem.object}]" if problem.object else str(problem) for problem in loaded.problems]
    lines.extend(f"{each.file}:{each.line}: good: {each.key}" for each in loaded.objects)
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_each_fault_is_told_with_its_line_path_and_remedy(path: Path) -> None:
    assert report(path) == path.with_suffix(".txt").read_text(encoding="utf-8")


def test_the_corpus_is_there() -> None:
    assert len(FILES) >= 7


def test_no_token_is_repeated() -> None:
    """`backend_urls.yaml` has keys where the name of a secret belongs."""
    assert "LEAKED" not in report(CORPUS / "backend_urls.yaml").replace("leaked", "")
    assert "secret@" not in report(CORPUS / "backend_urls.yaml")


if __name__ == "__main__":
    for file in FILES:
        file.with_suffix(".txt").write_text(report(file), encoding="utf-8")
