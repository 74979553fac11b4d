"""`spec.scaling` of a ModelBackend: how many replicas it may have, what each is to be given, and how fast that changes.

Names are the HorizontalPodAutoscaler's where they mean the same (`minReplicas`, `behavior`, `stabilizationWindowSeconds`, `policies`,
`selectPolicy`).
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import Annotated, Any, Final

from pydantic import Field

from spillway_operator.api.base import SpecModel
from spillway_operator.api.durations import Duration
from spillway_operator.api.fields import API_VERSION_PATTERN, CONDITION_WORD_PATTERN, DnsSubdomain
from spillway_operator.api.lists import ATOMIC
from spillway_operator.api.rules import Location, Rule
from spillway_operator.api.schedules import MAX_SCHEDULES, REPLICA_RULES, ReplicaSchedule

MAX_REPLICAS: Final = 1000

Replicas = Annotated[int, Field(strict=True, ge=0, le=MAX_REPLICAS)]
Share = Annotated[int, Field(strict=True, ge=1, le=100)]


class SelectPolicy(enum.StrEnum):
    """Which of several policies counts."""

    MAX = "Max"
    MIN = "Min"
    DISABLED = "Disabled"


class PolicyType(enum.StrEnum):
    """What a policy counts in."""

    PODS = "Pods"
    PERCENT = "Percent"


class Forecast(enum.StrEnum):
    """Whether demand of earlier days counts."""

    NONE = "None"  # Off would be a boolean in YAML
    DAILY = "Daily"


class TargetRef(SpecModel):
    """The object that has the replicas."""

    api_version: str = Field(
        default="apps/v1", min_length=1, max_length=128, pattern=API_VERSION_PATTERN, description="Its API version, e.g. apps/v1."
    )
    kind: str = Field(
        default="Deployment",
        min_length=1,
        max_length=63,
        pattern=CONDITION_WORD_PATTERN,
        description="Its kind, e.g. Deployment; any that has a scale subresource.",
    )
    name: DnsSubdomain = Field(description="Its name, in this namespace.")


class Target(SpecModel):
    """What one replica is to be given, beside the demand in tokens that always counts."""

    queue_depth: int | None = Field(
        default=None, strict=True, ge=1, le=100_000, description="Requests that wait, a replica; more of them ask for another."
    )
    gpu_utilization_percent: Share | None = Field(default=None, description="GPU utilisation, mean over the replicas.")
    kv_cache_percent: Share | None = Field(default=None, description="Use of the KV cache, mean over the replicas.")


class ScalingPolicy(SpecModel):
    """A bound on how fast the number changes."""

    type: PolicyType = Field(description="What value counts: Pods, or Percent of the replicas at the begin of the period.")
    value: int = Field(strict=True, ge=1, le=10_000, description="How much the number may change within the period.")
    period_seconds: int = Field(strict=True, ge=1, le=1800, description="Length of the period.")


Policies = Annotated[tuple[ScalingPolicy, ...], Field(max_length=8), ATOMIC]

_POLICIES: Final = "Bounds on how fast; without any, the decider's own."
_SELECT: Final = (
    "Which of the policies counts: Max the one that allows most, Min the one that allows least; Disabled allows no change in this"
    " direction."
)


class ScaleUp(SpecModel):
    """How the number goes up."""

    stabilization_window_seconds: int = Field(
        default=0, strict=True, ge=0, le=3600, description="The lowest recommendation of so many seconds counts."
    )
    policies: Policies = Field(default=(), description=_POLICIES)
    select_policy: SelectPolicy = Field(default=SelectPolicy.MAX, description=_SELECT)


class ScaleDown(SpecModel):
    """How the number goes down."""

    stabilization_window_seconds: int = Field(
        default=300, strict=True, ge=0, le=3600, description="The highest recommendation of so many seconds counts."
    )
    policies: Policies = Field(default=(), description=_POLICIES)
    select_policy: SelectPolicy = Field(default=SelectPolicy.MAX, description=_SELECT)


class Behavior(SpecModel):
    """How fast the number changes."""

    scale_up: ScaleUp = Field(default=ScaleUp(), description="On the way up.")
    scale_down: ScaleDown = Field(default=ScaleDown(), description="On the way down.")


class Scaling(SpecModel):
    """How many replicas."""

    target_ref: TargetRef = Field(description="The object whose replicas are set.")
    min_replicas: Replicas = Field(
        default=1, description="Fewest replicas. With 0 the backend goes to zero when it is idle; requests then wait for the first."
    )
    max_replicas: int = Field(strict=True, ge=1, le=MAX_REPLICAS, description="Most replicas.")
    replicas: Replicas | None = Field(
        default=None,
        description="So many replicas, whatever the load asks for, while this is set. What kubectl scale modelbackend writes.",
    )
    target: Target | None = Field(
        default=None, description="What one replica is to be given. The signal that asks for most counts."
    )
    window_seconds: int = Field(
        default=60,
        strict=True,
        ge=6,
        le=3600,
        description="Over how long demand is averaged; a tenth of it, 6 at least, tells a sudden rise.",
    )
    behavior: Behavior | None = Field(default=None, description="How fast the number changes.")
    idle_after: Duration = Field(
        default=Duration("5m"), description="To zero when there was no request for so long. With minReplicas 0."
    )
    hold_timeout: Duration = Field(
        default=Duration("5m"),
        description="How long a request may wait for the first replica, within its route's timeouts.request.",
    )
    forecast: Forecast = Field(
        default=Forecast.NONE,
        description="Daily: what was asked for at this time on earlier days raises the least ahead of time; it never lowers anything.",
    )
    schedules: Annotated[tuple[ReplicaSchedule, ...], Field(max_length=MAX_SCHEDULES), ATOMIC] = Field(
        default=(), description="Fewest and most replicas at some hours of some days. The first that is open counts."
    )

    @property
    def effective_target(self) -> Target:
        """The declared one; without it nothing but the demand in tokens counts."""
        return self.target or Target()

    @property
    def effective_behavior(self) -> Behavior:
        """The declared one, or the default one."""
        return self.behavior or Behavior()


def _above(spec: dict[str, Any], field: str) -> Iterator[Location]:
    if spec[field] > spec["maxReplicas"]:
        yield (field,)


RULES: Final = (
    Rule(
        name="scaling-needs-pods",
        path="spec",
        cel="!has(self.scaling) || has(self.pods)",
        message="scaling is about replicas in pods: remove scaling, or declare pods",
        find=lambda spec: [("scaling",)] if "scaling" in spec and "pods" not in spec else (),
        field=".scaling",
    ),
    Rule(
        name="least-below-most",
        path="spec.scaling",
        cel="self.minReplicas <= self.maxReplicas",
        message="minReplicas is more than maxReplicas: lower one, or raise the other",
        find=lambda scaling: _above(scaling, "minReplicas"),
        field=".minReplicas",
    ),
    Rule(
        name="pinned-below-most",
        path="spec.scaling",
        cel="!has(self.replicas) || self.replicas <= self.maxReplicas",
        message="replicas is more than maxReplicas: lower one, or raise the other",
        find=lambda scaling: _above(scaling, "replicas") if "replicas" in scaling else (),
        field=".replicas",
    ),
    *REPLICA_RULES,
)
