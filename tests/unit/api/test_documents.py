"""Loading: files, folders, limits, repeats, and which object a problem is about."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from tests.fakes.resources import backend, route

from spillway_operator.api.backend import ModelBackend
from spillway_operator.api.checker import MAX_ERRORS
from spillway_operator.api.documents import MAX_FILE_BYTES, LoadedObject, load_paths, load_text, load_texts, resource_files
from spillway_operator.api.meta import ObjectKey
from spillway_operator.api.schema import KINDS


def text(*documents: object) -> str:
    return yaml.safe_dump_all(documents)


def test_good_documents_become_objects_with_their_place() -> None:
    loaded = load_text("# words\n" + text(backend("fast")) + "---\n" + text(route("chat")), "a.yaml")
    assert loaded.problems == ()
    assert [(each.kind, each.namespace, each.name, each.file, each.line) for each in loaded.objects] == [
        ("ModelBackend", "default", "fast", "a.yaml", 2),
        ("ModelRoute", "default", "chat", "a.yaml", 15),
    ]
    assert isinstance(loaded.objects[0].model, ModelBackend)
    assert isinstance(loaded.objects[0], LoadedObject)


def test_an_empty_field_is_none_at_all() -> None:
    """As the API server reads it; templates leave such lines."""
    document = route(timeouts=None, retries={"maxAttempts": None})
    document["spec"]["rules"][0]["matches"] = None
    document["metadata"] |= {"labels": None, "namespace": None, "creationTimestamp": None}
    loaded = load_text(text(document), "a.yaml")
    assert loaded.problems == ()
    assert loaded.objects[0].model.to_document()["spec"]["retries"]["maxAttempts"] == 2


def test_an_empty_field_that_is_required_is_told() -> None:
    """So is an empty entry of a list, and an empty field that nobody knows."""
    loaded = load_text(text(route(models=None, retires=None, rules=[None])), "a.yaml")
    assert [(problem.path, problem.message.partition(":")[0]) for problem in loaded.problems] == [
        ("spec.models", "is empty"),
        ("spec.retires", 'unknown field; did you mean "retries"?'),
        ("spec.rules[0]", "is empty"),
    ]


def test_a_status_in_a_document_is_passed_over() -> None:
    for status in ({"anything": [1]}, None):
        loaded = load_text(text({**route(), "status": status}), "a.yaml")
        assert loaded.problems == ()
        assert loaded.objects[0].model.to_document()["status"]["conditions"] == []


def test_what_kubectl_prints_is_read() -> None:
    served = {**route("b"), "status": {"observedGeneration": 1}}
    served["metadata"] |= {
        "uid": "u",
        "generation": 2,
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "managedFields": [{}],
        "resourceVersion": "7",
    }
    loaded = load_text(text({"apiVersion": "v1", "kind": "List", "items": [backend("a"), served], "metadata": {}}), "a.yaml")
    assert loaded.problems == ()
    assert [(each.name, each.line) for each in loaded.objects] == [("a", 3), ("b", 15)]
    listed = load_text(text({"apiVersion": "spillway.dev/v1alpha1", "kind": "ModelRouteList", "items": [route("c")]}), "a.yaml")
    assert [each.name for each in listed.objects] == ["c"]


def test_a_fault_in_a_list_is_in_its_own_entry() -> None:
    loaded = load_text(
        "apiVersion: v1\nkind: List\nitems:\n- {kind: ModelRoute, kind: x}\n- {apiVersion: spillway.dev/v1alpha1, kind: 5}\n", "a"
    )
    assert [(problem.line, problem.path) for problem in loaded.problems] == [(4, "kind"), (4, "apiVersion"), (5, "kind")]


def test_an_object_declared_twice_counts_once() -> None:
    loaded = load_texts({"b.yaml": text(backend("x"), backend("y")), "a.yaml": text(backend("x"))})
    assert [(each.name, each.file) for each in loaded.objects] == [("x", "a.yaml"), ("y", "b.yaml")]
    (problem,) = loaded.problems
    assert str(problem) == "b.yaml:4: metadata.name: ModelBackend default/x is declared in a.yaml:1 already: remove or rename one"
    assert problem.object == ObjectKey("ModelBackend", "default", "x")
    assert load_texts({"a": text(backend("x"), {**backend("x"), "metadata": {"name": "x", "namespace": "other"}})}).problems == ()


def test_a_problem_as_data() -> None:
    (problem,) = load_text(text({**route(), "speck": 1}), "a.yaml").problems
    assert problem.info() == {
        "file": "a.yaml",
        "line": 12,
        "path": "speck",
        "message": "unknown field: remove it (known here: apiVersion, kind, metadata, spec, status)",
        "object": "ModelRoute default/chat",
        "warning": False,
    }
    (nameless,) = load_text("[]", "a.yaml").problems
    assert nameless.info()["object"] == ""


@pytest.mark.parametrize(
    ("broken", "key"),
    [
        ("kind: ModelRoute\nmetadata:\n  labels: {a: b}\n  name: chat\nspec: [", ObjectKey("ModelRoute", "default", "chat")),
        ("kind: ModelRoute\nmetadata: {namespace: ml, name: chat}\nspec: [", ObjectKey("ModelRoute", "ml", "chat")),
        ("kind: 'ModelRoute'\nmetadata:\n\n  name: \"chat\"\nspec: [", ObjectKey("ModelRoute", "default", "chat")),
        ("kind: ModelRoute\nmetadata: {}\nname: x\nspec: [", None),
        ("kind: ModelRoute\nspec: [", None),
        ("metadata: {name: x}\nspec: [", None),
    ],
)
def test_a_document_that_does_not_parse_still_says_which_object_it_is(broken: str, key: ObjectKey | None) -> None:
    (problem,) = load_text(broken, "a.yaml").problems
    assert problem.object == key
    assert problem.line == broken.count("\n") + 1


def test_sizes_and_encodings() -> None:
    assert "larger than 1024 KiB" in load_text("#" * (MAX_FILE_BYTES + 1), "a").problems[0].message
    assert load_text("#" * MAX_FILE_BYTES, "a").problems == ()
    (problem,) = load_text(b"a: 1\nb: \xff\n", "a").problems
    assert (problem.line, problem.message) == (2, "the text is not UTF-8: save the file in that encoding")
    assert load_text("model: é".encode(), "a").errors


def test_a_document_that_is_all_typos_is_told_the_first_ones() -> None:
    """Misspellings below misspellings are followed to the deepest level that the schemas have."""
    document = route()
    document["speec"] = document.pop("spec")
    document["speec"]["ruules"] = [{"naame": "a", "maatches": [{"prompttokens": {"miin": "x"}}], "backendreffs": [{"naame": "b"}]}]
    del document["speec"]["rules"]
    loaded = load_text(text(document), "a.yaml")
    assert {problem.path.rpartition(".")[2] for problem in loaded.problems} == {
        "speec", "ruules", "naame", "maatches", "prompttokens", "miin", "backendreffs", "min",
    }  # fmt: skip


def test_a_document_of_nothing_but_errors_is_answered_soon_and_in_part() -> None:
    """Each unknown field costs a search for what it may have meant, and one file must not hold up the others."""
    document = route(**{f"model{number}": 1 for number in range(20_000)})
    assert 0 < len(load_text(text(document), "a.yaml").problems) <= MAX_ERRORS


def test_a_model_that_refuses_what_the_schema_takes_is_a_problem_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be a defect of ours; the document is refused, and its neighbours are not."""
    monkeypatch.setattr("spillway_operator.api.documents.faults", lambda kind, data: [])
    loaded = load_text(text(route("bad", models=[]), route("good")), "a.yaml")
    assert [each.name for each in loaded.objects] == ["good"]
    assert [(problem.line, problem.path) for problem in loaded.problems] == [(6, "spec.models")]


def test_which_files_of_a_folder_are_read(tmp_path: Path) -> None:
    for name in ("b.yaml", "a.yml", "sub/c.yaml", "spillway.yaml", ".hidden.yaml", ".git/d.yaml", "e.json", "f.yaml~"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("")
    assert [str(path.relative_to(tmp_path)) for path in resource_files([tmp_path])] == ["a.yml", "b.yaml", "sub/c.yaml"]
    assert list(resource_files([tmp_path / "e.json"])) == [tmp_path / "e.json"], "a file that is named is read whatever its name"


def test_paths_are_read_once_and_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(text(backend("x")))
    (tmp_path / "b.yaml").symlink_to(tmp_path / "nowhere")
    loaded = load_paths([tmp_path, file])
    assert [each.name for each in loaded.objects] == ["x"]
    assert [str(problem) for problem in loaded.problems] == [
        f"{tmp_path}/b.yaml:1: the file cannot be read: no such file or directory"
    ]


def test_each_kind_has_its_documents() -> None:
    assert set(KINDS) == {"ModelBackend", "ModelRoute"}
