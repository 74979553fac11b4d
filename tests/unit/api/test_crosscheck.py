"""What shows only between documents."""

from __future__ import annotations

import yaml
from tests.fakes.resources import Document, backend, external, route, rule

from spillway_operator.api.crosscheck import cross_check
from spillway_operator.api.documents import load_text
from spillway_operator.api.meta import ObjectKey


def check(*documents: Document, unread: tuple[ObjectKey, ...] = ()) -> list[str]:
    loaded = load_text(yaml.safe_dump_all(documents), "a.yaml")
    assert loaded.problems == ()
    return [str(problem) for problem in cross_check(loaded.objects, unread)]


def elsewhere(document: Document) -> Document:
    return {**document, "metadata": {**document["metadata"], "namespace": "ml"}}


def test_documents_that_fit_bring_nothing() -> None:
    assert check(backend("fast"), route()) == []


def test_a_model_name_belongs_to_one_route_of_a_namespace() -> None:
    other = route("other", models=["more", "chat"])
    assert check(backend(), route(), other) == [
        'a.yaml:33: spec.models[1]: "chat" belongs to ModelRoute default/chat (a.yaml:14) already: remove it from one of the two'
    ]
    assert check(backend(), route(), elsewhere(backend()), elsewhere(other)) == []


def test_a_backend_that_no_document_declares_is_a_warning() -> None:
    (said,) = check(backend("fast-one"), route(rules=[rule("all", {"name": "fast-one"}, {"name": "fastone"})]))
    assert "warning: spec.rules[0].backendRefs[1].name" in said
    assert 'no ModelBackend "fastone" is among these files; did you mean "fast-one"?' in said
    (said,) = check(elsewhere(backend("fast")), route())
    assert said.endswith("declare it, in namespace default")


def test_a_backend_whose_document_is_bad_is_not_missed() -> None:
    assert check(route(), unread=(ObjectKey("ModelBackend", "default", "fast"),)) == []


def test_plain_http_to_another_machine_is_a_warning() -> None:
    for url in ("http://127.0.0.1:11434/v1", "http://[::1]/v1", "http://localhost/v1", "https://api.example.com"):
        assert check(external(url)) == []
    (said,) = check(external("http://10.0.0.1/v1"))
    assert "use https, or allow 10.0.0.1 there" in said
    (said,) = check(external("http://gpu-box/v1"))
    assert "warning: spec.external.url" in said
