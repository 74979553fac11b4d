"""What has replicas, as the scaling loop sees it: a port, with one implementation over the API server and one over processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class TargetRef:
    """The object that has the replicas of one backend or of several; any kind with a scale subresource."""

    namespace: str
    name: str
    api_version: str = "apps/v1"
    kind: str = "Deployment"

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}"


@dataclass(frozen=True, slots=True)
class TargetState:
    """A target as it was last seen."""

    replicas: int = 0  # as its spec says
    ready: int | None = None  # None: it does not say
    other_writer: str = ""  # an autoscaler that sets its replicas too, e.g. "HorizontalPodAutoscaler/llama"
    problem: str = ""  # a reason of the condition ScalingActive: TargetNotFound, TargetForbidden, ScaleFailed
    message: str = ""  # what the other side said of it


class ScaleTargets(Protocol):
    """Reads and sets the replicas of targets. No call waits."""

    def state(self, ref: TargetRef) -> TargetState | None:
        """The target from what is kept of it; None: not known yet."""

    def scale(self, ref: TargetRef, replicas: int) -> None:
        """Ask for so many replicas. Carried out in the background, the latest call wins; the outcome shows in `state`."""

    def retain(self, refs: Mapping[TargetRef, str]) -> None:
        """Keep these targets' states fresh, and forget all others. With each the backend (`namespace/name`) that has its replicas."""
