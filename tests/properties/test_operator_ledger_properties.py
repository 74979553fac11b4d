"""What holds for files, whatever their author does to them: a bad document takes nothing away, a good one is in force."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st

from spillway_operator.api import ObjectKey
from spillway_operator.api.documents import LoadResult, load_text
from spillway_operator.sources.ledger import Ledger
from spillway_operator.store import ROUTE, Store

NAMES = ("a", "b", "c")
GOOD = """\
apiVersion: spillway.dev/v1alpha1
kind: ModelRoute
metadata: {{name: {name}}}
spec:
  models: [{name}]
  rules: [{{name: all, backendRefs: [{{name: fast, weight: {weight}}}]}}]
"""

# What becomes of the file of one object: good with a weight, bad in the spec, torn beyond recognition, or gone.
acts = st.one_of(
    st.tuples(st.just("good"), st.integers(1, 9)),
    st.tuples(st.just("typo"), st.just(0)),
    st.tuples(st.just("torn"), st.just(0)),
    st.tuples(st.just("gone"), st.just(0)),
)
courses = st.lists(st.tuples(st.sampled_from(NAMES), acts), max_size=12)

_LOADED: dict[str, LoadResult] = {}


def _load(name: str, act: str, weight: int) -> LoadResult:
    text = {
        "good": GOOD.format(name=name, weight=weight),
        "typo": GOOD.format(name=name, weight='"x"'),
        "torn": GOOD.format(name=name, weight=1)[:25],
    }[act]
    found = _LOADED.get(f"{name}{text}")
    if found is None:
        found = _LOADED[f"{name}{text}"] = load_text(text, f"{name}.yaml")
    return found


@given(courses)
@settings(max_examples=60)
def test_each_object_is_the_last_good_version_of_its_own_file(course: list[tuple[str, tuple[str, int]]]):
    store = Store()
    ledger = Ledger(store, grace_seconds=0.1)
    files: dict[str, LoadResult] = {}
    expected: dict[str, int | None] = {}  # None: listed, and never was good
    generations: dict[str, int] = {}
    bad: set[str] = set()
    now = 0.0
    for name, (act, weight) in course:
        if act == "gone":
            files.pop(f"{name}.yaml", None)
            expected.pop(name, None)
            generations.pop(name, None)
        else:
            files[f"{name}.yaml"] = _load(name, act, weight)
        bad.discard(name)
        if act == "good":
            if expected.get(name) != weight:
                generations[name] = generations.get(name, 0) + 1
            expected[name] = weight
        elif act == "typo":
            expected.setdefault(name, None)
            bad.add(name)
        moment = datetime(2026, 1, 1, tzinfo=UTC)
        now += 1.0
        ledger.update(files, now, moment)
        ledger.update(files, now + 0.5, moment)

        found = {entry.key.name: entry for entry in store.entries(ROUTE)}
        assert found.keys() == expected.keys()
        for each, value in expected.items():
            entry = found[each]
            assert entry.key == ObjectKey(ROUTE, "default", each)
            assert bool(entry.problems) >= (each in bad)
            if value is None:
                assert entry.object is None
            else:
                assert entry.object is not None
                assert entry.object.spec.rules[0].backend_refs[0].weight == value  # type: ignore[union-attr]
                assert entry.generation == generations[each]
