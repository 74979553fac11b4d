"""What all resource models share: camelCase on the outside, frozen inside, and two attitudes to fields they do not know.

A spec refuses an unknown field, because a field that is accepted and ignored lies to its author. Metadata and status skip
it: the API server keeps more there than is read here, and another release may have written it.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


class SpecModel(BaseModel):
    """A part of what a user declares."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)


class StatusModel(BaseModel):
    """A part of what the operator, or the API server, writes."""

    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel, populate_by_name=True)
