"""The backends that may select a pod, from the store, as injection takes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from spillway_operator.api import ModelBackend
from spillway_operator.injection import BackendPods
from spillway_operator.store import BACKEND, Store


def backends_of(store: Store) -> Callable[[str], Sequence[BackendPods]]:
    """A look at the backends with pods of a namespace."""

    def look(namespace: str) -> list[BackendPods]:
        found = []
        for entry in store.entries(BACKEND, namespace):
            backend = entry.object
            if isinstance(backend, ModelBackend) and backend.spec.pods is not None:
                pods = backend.spec.pods
                found.append(BackendPods(entry.key.name, tuple(pods.selector.match_labels.items()), pods.port))
        return found

    return look
