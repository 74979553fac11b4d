"""On no request of the corpus are we more lenient than nginx or Node, whose verdicts are written down (`make differential` asks them)."""

from __future__ import annotations

import pytest
from fuzz.differential import as_verdict, digest, load
from fuzz.framing import End, excused, more_lenient, ours
from tests.corpora.corpus import cases, exceptions

CASES = cases("requests")
VERDICTS = load()


@pytest.mark.parametrize("judge", VERDICTS)
async def test_we_are_as_strict_on_framing(judge: str):
    verdicts = VERDICTS[judge]["verdicts"]
    assert verdicts.keys() == CASES.keys(), "run `make differential`"
    lenient: dict[str, str] = {}
    for name, case in CASES.items():
        assert verdicts[name][2] == digest(case["bytes"]), f"{name!r} has changed: run `make differential`"
        difference = more_lenient(await ours(case["bytes"]), as_verdict(verdicts[name]))
        if difference is not None and excused(judge, difference, case["bytes"], exceptions()) is None:
            lenient[name] = difference.why
    assert not lenient


async def test_the_comparison_tells_something():
    """Both judges take and refuse a good part of the corpus, and one that takes nothing would not let us pass."""
    for judge in VERDICTS.values():
        verdicts = [as_verdict(one) for one in judge["verdicts"].values()]
        assert sum(bool(one.taken) for one in verdicts) > 60
        assert sum(one.end is End.REFUSED for one in verdicts) > 200
    own = [await ours(case["bytes"]) for case in CASES.values()]
    nothing = as_verdict([[], "refused", ""])
    assert sum(more_lenient(verdict, nothing) is not None for verdict in own) > 60
