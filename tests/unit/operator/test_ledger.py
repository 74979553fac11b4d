"""From documents to entries: last good versions, generations, patience."""

from __future__ import annotations

from datetime import timedelta

from tests.fakes.operator_core import MOMENT

from spillway_operator.api import ObjectKey
from spillway_operator.api.documents import load_text
from spillway_operator.sources.ledger import Ledger
from spillway_operator.store import BACKEND, ROUTE, Entry, Store

CHAT = ObjectKey(ROUTE, "default", "chat")
FAST = ObjectKey(BACKEND, "default", "fast")


def route_text(name: str = "chat", *, weight: object = 1, model: str = "chat", labels: str = "") -> str:
    return f"""\
apiVersion: spillway.dev/v1alpha1
kind: ModelRoute
metadata: {{name: {name}{labels}}}
spec:
  models: [{model}]
  rules:
  - name: all
    backendRefs:
    - {{name: fast, weight: {weight}}}
"""


BACKEND_TEXT = """\
apiVersion: spillway.dev/v1alpha1
kind: ModelBackend
metadata: {name: fast}
spec:
  provider: VLLM
  model: models/fast
  pods: {selector: {matchLabels: {app: fast}}, port: 8000}
"""


class Files:
    """A folder in memory, and a ledger over it."""

    def __init__(self) -> None:
        self.store = Store()
        self.ledger = Ledger(self.store, grace_seconds=0.1)
        self.texts: dict[str, str] = {}
        self.now = 10.0
        self.changes: list[ObjectKey] = []
        self.store.watch(self.changes.append)

    def write(self, seconds: float = 1.0, **texts: str | None) -> float | None:
        self.now += seconds
        for name, text in texts.items():
            if text is None:
                del self.texts[f"{name}.yaml"]
            else:
                self.texts[f"{name}.yaml"] = text
        return self.settle()

    def settle(self) -> float | None:
        results = {name: load_text(text, name) for name, text in self.texts.items()}
        return self.ledger.update(results, self.now, MOMENT + timedelta(seconds=self.now))

    def pass_grace(self) -> None:
        self.now += 0.2
        assert self.settle() is None

    def entry(self, key: ObjectKey) -> Entry:
        found = self.store.get(key)
        assert found is not None, f"{key} is gone"
        return found

    def weight(self) -> int:
        found = self.entry(CHAT).object
        assert found is not None
        return found.spec.rules[0].backend_refs[0].weight  # type: ignore[union-attr]


def test_a_first_version_is_generation_one_with_a_creation_time():
    files = Files()
    files.write(a=route_text())
    found = files.entry(CHAT)
    assert found.generation == 1
    assert found.object is not None
    assert found.object.metadata.creation_timestamp == MOMENT + timedelta(seconds=11)
    assert found.origin == "a.yaml:1"


def test_the_generation_rises_with_the_spec_only():
    files = Files()
    files.write(a=route_text())
    files.write(a=route_text(labels=", labels: {team: red}"))
    assert files.entry(CHAT).generation == 1
    assert files.entry(CHAT).object.metadata.labels == {"team": "red"}  # type: ignore[union-attr]
    files.write(a=route_text(weight=5))
    found = files.entry(CHAT)
    assert found.generation == 2
    assert found.object.metadata.creation_timestamp == MOMENT + timedelta(seconds=11)  # type: ignore[union-attr]


def test_writing_the_same_again_changes_nothing():
    files = Files()
    files.write(a=route_text())
    files.changes.clear()
    files.write(a="# a comment\n" * 0 + route_text())
    assert files.changes == []


def test_a_typo_keeps_the_last_good_version_and_says_where_it_is():
    files = Files()
    files.write(a=route_text(weight=5) + "---\n" + BACKEND_TEXT)
    files.changes.clear()
    files.write(a=route_text(weight='"x"') + "---\n" + BACKEND_TEXT)
    found = files.entry(CHAT)
    assert files.weight() == 5
    assert found.generation == 1
    (problem,) = found.problems
    assert (problem.file, problem.line) == ("a.yaml", 9)
    assert problem.path == "spec.rules[0].backendRefs[0].weight"
    assert files.changes == [CHAT]
    assert files.entry(FAST).problems == ()


def test_putting_the_typo_right_clears_it():
    files = Files()
    files.write(a=route_text(weight=5))
    files.write(a=route_text(weight='"x"'))
    files.write(a=route_text(weight=6))
    assert files.entry(CHAT).problems == ()
    assert (files.weight(), files.entry(CHAT).generation) == (6, 2)
    files.write(a=route_text(weight='"x"'))
    files.write(a=route_text(weight=6))
    assert files.entry(CHAT).generation == 2


def test_an_object_that_never_was_good_is_entered_with_its_problems():
    files = Files()
    files.write(a=route_text(weight='"x"'))
    found = files.entry(CHAT)
    assert found.object is None
    assert found.problems
    files.write(a=route_text(weight=1))
    assert files.entry(CHAT).generation == 1


def test_a_file_that_cannot_be_attributed_keeps_all_that_it_declared():
    files = Files()
    files.write(a=route_text() + "---\n" + BACKEND_TEXT)
    for broken in ("apiV", "\tx: [", "kind: ModelRoute\n", route_text().replace("ModelRoute", "ModelRute"), "just text\n"):
        files.write(a=broken)
        files.pass_grace()
        assert files.entry(CHAT).object is not None, broken
        assert files.entry(FAST).object is not None, broken
        assert files.store.problems(), broken
    files.write(a=route_text() + "---\n" + BACKEND_TEXT)
    assert files.store.problems() == ()


def test_a_typo_in_a_name_takes_nothing_away():
    files = Files()
    files.write(a=route_text())
    files.write(a=route_text("Chat_"))
    files.pass_grace()
    assert files.entry(CHAT).object is not None
    assert any(problem.path == "metadata.name" for problem in files.store.problems())


def test_a_broken_file_holds_nothing_of_another():
    files = Files()
    files.write(a=route_text(), b=BACKEND_TEXT)
    files.write(a="apiV", b=None)
    files.pass_grace()
    assert files.store.get(CHAT) is not None
    assert files.store.get(FAST) is None


def test_what_is_deleted_is_removed_after_the_grace_and_not_before():
    files = Files()
    files.write(a=route_text())
    again_at = files.write(a=None)
    assert again_at is not None
    assert files.store.get(CHAT) is not None
    assert files.ledger.info()["missing"] == [str(CHAT)]
    files.now = again_at
    assert files.settle() is None
    assert files.store.get(CHAT) is None


def test_what_comes_back_within_the_grace_was_never_gone():
    files = Files()
    files.write(a=route_text(weight=5))
    files.changes.clear()
    files.write(a=None)
    files.write(0.05, a=route_text(weight=5))
    files.pass_grace()
    assert files.changes == []
    assert files.entry(CHAT).generation == 1


def test_an_emptied_file_is_a_deletion_like_any_other():
    files = Files()
    files.write(a=route_text())
    files.write(a="")
    assert files.store.get(CHAT) is not None
    files.pass_grace()
    assert files.store.get(CHAT) is None


def test_a_renamed_file_moves_its_objects():
    files = Files()
    files.write(a=route_text())
    files.texts["b.yaml"] = files.texts.pop("a.yaml")
    files.write()
    files.pass_grace()
    found = files.entry(CHAT)
    assert (found.origin, found.generation) == ("b.yaml:1", 1)


def test_an_object_that_was_deleted_and_comes_again_is_a_new_one():
    files = Files()
    files.write(a=route_text())
    files.write(a=route_text(weight=3))
    files.write(a=None)
    files.pass_grace()
    files.write(a=route_text(weight=3))
    assert files.entry(CHAT).generation == 1


def test_of_two_declarations_the_first_counts_and_the_second_is_a_problem_of_its_file():
    files = Files()
    files.write(a=route_text(weight=1), b=route_text(weight=2))
    assert files.weight() == 1
    assert files.entry(CHAT).problems == ()
    (problem,) = files.store.problems()
    assert problem.file == "b.yaml"
    assert "declared in a.yaml:1 already" in problem.message


def test_the_second_declaration_does_not_take_over_while_the_first_is_broken():
    files = Files()
    files.write(a=route_text(weight=1), b=route_text(weight=2))
    files.write(a=route_text(weight='"x"'))
    assert files.weight() == 1
    assert files.entry(CHAT).problems[0].file == "a.yaml"
    files.write(a=None)
    files.pass_grace()
    assert files.weight() == 2


def test_two_documents_of_one_name_in_one_file():
    files = Files()
    files.write(a=route_text(weight=1) + "---\n" + route_text(weight='"x"'))
    assert files.weight() == 1
    assert files.entry(CHAT).problems == ()
    assert len(files.store.problems()) == 1


def test_age_is_the_place_whatever_came_first():
    files = Files()
    files.write(b=route_text("late"))
    files.write(a=route_text("early") + "---\n" + route_text("second"))
    ages = {name: files.entry(ObjectKey(ROUTE, "default", name)).age for name in ("early", "second", "late")}
    assert ages["early"] < ages["second"] < ages["late"]


def test_documents_of_others_are_passed_over_with_a_warning():
    files = Files()
    files.write(a=route_text() + "---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\n")
    (problem,) = files.store.problems()
    assert problem.warning
    files.write(a=None)
    files.pass_grace()
    assert files.store.get(CHAT) is None
    assert files.store.problems() == ()


def test_a_file_with_only_a_warning_lets_go_of_what_it_declared():
    files = Files()
    files.write(a=route_text())
    files.write(a="apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\n")
    files.pass_grace()
    assert files.store.get(CHAT) is None
