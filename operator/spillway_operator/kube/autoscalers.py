"""Who else sets the replicas of a target: HorizontalPodAutoscalers, and KEDA's ScaledObjects where that CRD is installed.

The autoscalers of a namespace are listed as often as its targets are read, from the API server's cache. A list that fails leaves what
was known; one that is forbidden is a trouble of all targets in the namespace, since nobody can then say that we are the only writer.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from spillway_operator.kube.api import ApiError, KubeApi
from spillway_operator.scaling.ports import TargetRef

# Where they are, and the first of them that is found is named: KEDA makes an HPA of its own for each ScaledObject.
_KINDS: Final = (
    ("ScaledObject", "/apis/keda.sh/v1alpha1", "scaledobjects"),
    ("HorizontalPodAutoscaler", "/apis/autoscaling/v2", "horizontalpodautoscalers"),
)

Target = tuple[str, str, str]  # group, kind, name
Raw = Mapping[str, Any]


@dataclass(slots=True)
class Writers:
    """The autoscalers of one namespace, by what they scale."""

    by_target: Mapping[Target, str] = field(default_factory=dict)
    forbidden: str = ""  # what the API server said
    absent: frozenset[str] = frozenset()  # kinds that are not installed

    def of(self, ref: TargetRef) -> str:
        """The autoscaler of a target, e.g. `HorizontalPodAutoscaler/llama`; empty where it has none."""
        return self.by_target.get((_group(ref.api_version), ref.kind, ref.name), "")


async def read_writers(api: KubeApi, namespace: str, timeout_seconds: float, absent: Collection[str] = ()) -> Writers:
    """The autoscalers of a namespace; of `absent` kinds there are none. Raises `KubeError` where that is not known."""
    found: dict[Target, str] = {}
    missing = set()
    for kind, base, plural in _KINDS:
        if kind in absent:
            continue
        try:
            answer = await api.request(
                "GET",
                f"{base}/namespaces/{namespace}/{plural}",
                params={"resourceVersion": "0"},
                timeout_seconds=timeout_seconds,
            )
        except ApiError as error:
            if error.status == 404 or (error.status == 403 and not await _served(api, base, timeout_seconds)):
                missing.add(kind)
                continue
            if error.status == 403:
                return Writers(forbidden=str(error))
            raise
        for target, name in targets_of(kind, answer):
            found.setdefault(target, name)
    return Writers(found, absent=frozenset(missing))


async def _served(api: KubeApi, base: str, timeout_seconds: float) -> bool:
    """Whether there is such a group: who lacks the right to a kind is refused before anybody looks for the kind."""
    try:
        await api.request("GET", base, timeout_seconds=timeout_seconds)
    except ApiError as error:
        if error.status == 404:
            return False
        raise
    return True


def targets_of(kind: str, answer: Any) -> Iterable[tuple[Target, str]]:
    """What the autoscalers of a list scale, each with its name. KEDA's default is a Deployment."""
    for item in (answer or {}).get("items") or ():
        reference = (item.get("spec") or {}).get("scaleTargetRef") or {}
        target = (
            _group(str(reference.get("apiVersion") or "apps/v1")),
            str(reference.get("kind") or "Deployment"),
            str(reference.get("name") or ""),
        )
        yield target, f"{kind}/{(item.get('metadata') or {}).get('name', '')}"


def _group(api_version: str) -> str:
    group, slash, _ = api_version.partition("/")
    return group if slash else ""
