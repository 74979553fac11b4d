"""The store: entries, endpoints, problems and statuses by key."""

from __future__ import annotations

from tests.fakes.operator_core import backend, endpoint, entry, route

from spillway_operator.api import BackendStatus, ObjectKey
from spillway_operator.api.documents import Problem
from spillway_operator.store import BACKEND, ENDPOINTS, ROUTE, Entry, Store

FAST = ObjectKey(BACKEND, "default", "fast")


def _watched() -> tuple[Store, list[ObjectKey]]:
    store, seen = Store(), []
    store.watch(seen.append)
    return store, seen


def test_watchers_are_told_of_changes_and_of_nothing_else():
    store, seen = _watched()
    assert store.put(entry(backend()))
    assert not store.put(entry(backend()))
    assert store.put(entry(backend(model="other")))
    assert store.remove(FAST)
    assert not store.remove(FAST)
    assert seen == [FAST, FAST, FAST]


def test_entries_are_found_by_kind_and_namespace():
    store, _ = _watched()
    for model in (backend("a"), backend("b", namespace="ml"), route()):
        store.put(entry(model))
    assert [found.key.name for found in store.entries(BACKEND)] == ["a", "b"]
    assert [found.key.name for found in store.entries(BACKEND, "ml")] == ["b"]
    assert [found.key.name for found in store.entries(ROUTE)] == ["chat"]


def test_endpoints_mark_the_backends_whose_endpoints_changed():
    store, seen = _watched()
    store.set_endpoints({"default/a": [endpoint("a-0")], "default/b": [endpoint("b-0")]})
    seen.clear()
    store.set_endpoints({"default/a": [endpoint("a-0")], "ml/c": [endpoint("c-0")]})
    assert seen == [ObjectKey(ENDPOINTS, "default", "b"), ObjectKey(ENDPOINTS, "ml", "c")]
    assert store.endpoints("default/b") == ()
    assert store.endpoints("ml/c") == (endpoint("c-0"),)


def test_problems_of_objects_and_of_files_are_listed_by_place():
    store, _ = _watched()
    of_object = Problem("b.yaml", 7, "spec.model", "missing", FAST)
    store.put(Entry(key=FAST, object=None, problems=(of_object,)))
    loose = Problem("a.yaml", 3, "", "a tab")
    store.set_problems("a.yaml", [loose])
    assert store.problems() == (loose, of_object)
    store.set_problems("a.yaml", [])
    assert store.problems() == (of_object,)


def test_documents_carry_their_status_and_no_nulls():
    store, _ = _watched()
    store.put(entry(backend("b")))
    store.put(entry(backend("a")))
    store.set_status(ObjectKey(BACKEND, "default", "a"), BackendStatus(observed_generation=3))
    first, second = store.documents(BACKEND)
    assert (first["metadata"]["name"], second["metadata"]["name"]) == ("a", "b")
    assert first["status"]["observedGeneration"] == 3
    assert first["apiVersion"] == "spillway.dev/v1alpha1"
    assert "external" not in first["spec"]
    assert store.documents(BACKEND, "elsewhere") == []


def test_an_object_that_never_was_good_is_listed_with_its_name():
    store, _ = _watched()
    store.put(Entry(key=FAST, object=None, problems=(Problem("a.yaml", 1, "", "bad", FAST),)))
    (document,) = store.documents(BACKEND)
    assert document == {
        "apiVersion": "spillway.dev/v1alpha1",
        "kind": "ModelBackend",
        "metadata": {"name": "fast", "namespace": "default"},
    }
    assert Entry(key=FAST, object=None).generation == 0


def test_statuses_live_and_die_with_their_object():
    store, _ = _watched()
    store.set_status(FAST, BackendStatus())
    assert store.status(FAST) is None
    store.put(entry(backend()))
    store.set_status(FAST, BackendStatus(observed_generation=1))
    assert store.status(FAST) is not None
    store.remove(FAST)
    assert store.status(FAST) is None


def test_info_counts():
    store, _ = _watched()
    store.put(entry(backend()))
    store.put(entry(route()))
    store.set_endpoints({"default/fast": [endpoint("a"), endpoint("b")]})
    info = store.info()
    assert (info["backends"], info["routes"], info["endpoints"]) == (1, 1, 2)
