"""Metadata and conditions: the parts of an object that are alike in every kind."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal, NamedTuple

from pydantic import AwareDatetime, Field, PlainSerializer, SerializerFunctionWrapHandler, model_serializer

from spillway_operator.api.base import StatusModel
from spillway_operator.api.fields import CONDITION_WORD_PATTERN, DnsLabel, DnsSubdomain
from spillway_operator.api.lists import ListMap

GROUP: Final = "spillway.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
DEFAULT_NAMESPACE: Final = "default"


def format_timestamp(moment: datetime) -> str:
    """A moment as Kubernetes writes it: UTC, whole seconds, `2026-01-31T12:00:00Z`."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


Timestamp = Annotated[AwareDatetime, PlainSerializer(format_timestamp, return_type=str, when_used="json")]


class ObjectKey(NamedTuple):
    """Address of an object among all."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


class ObjectMeta(StatusModel):
    """What an object is called and who made it when. The API server's other fields are skipped."""

    name: DnsSubdomain = Field(description="What the object is called, once in its namespace, e.g. llama-70b.")
    namespace: DnsLabel = DEFAULT_NAMESPACE
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    generation: int = 0
    uid: str = ""
    resource_version: str = ""
    creation_timestamp: Timestamp | None = None

    @model_serializer(mode="wrap")
    def _without_empty_parts(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in dump(self).items() if value}


class Condition(StatusModel):
    """One aspect of an object's state, as every Kubernetes tool reads it."""

    type: str = Field(
        min_length=1, max_length=316, pattern=CONDITION_WORD_PATTERN, description="What the condition is about, e.g. Ready."
    )
    status: Literal["True", "False", "Unknown"] = Field(description="Whether it holds: True, False or Unknown.")
    reason: str = Field(
        min_length=1,
        max_length=256,
        pattern=CONDITION_WORD_PATTERN,
        description="Why, as a constant for programs, e.g. BackendNotFound.",
    )
    message: str = Field(default="", max_length=32768, description="Why, and what to do about it, for people.")
    observed_generation: int = Field(
        default=0,
        ge=0,
        description="The generation of the object that this was found for; older than the object's: not judged yet.",
    )
    last_transition_time: Timestamp = Field(description="When the status last changed from one value to another.")


Conditions = Annotated[
    tuple[Condition, ...],
    Field(max_length=16, description="The object's state, one entry per aspect."),
    ListMap("type"),
]


class ResourceModel(StatusModel):
    """An object: what it is called, beside the spec and status that each kind adds."""

    api_version: str
    kind: str
    metadata: ObjectMeta

    @property
    def key(self) -> ObjectKey:
        """Its address."""
        return ObjectKey(self.kind, self.metadata.namespace, self.metadata.name)

    def to_document(self) -> dict[str, Any]:
        """The object as plain JSON data, in the order and form in which a person would write it."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def condition_of(conditions: tuple[Condition, ...], name: str) -> Condition | None:
    """The condition of a type, if there is one."""
    return next((condition for condition in conditions if condition.type == name), None)
