"""Field types with their bounds, as used by several kinds.

Whatever goes into a snapshot has the bounds that `spillway_wire.snapshot` puts on it, so that a resource that was accepted
never makes a snapshot that a proxy refuses. Patterns are written in what RE2 (the API server), Python and Rust (pydantic)
read alike, and are anchored at both ends.
"""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field

LABEL_PATTERN: Final = r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"
SUBDOMAIN_PATTERN: Final = r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$"
SERVICE_NAME_PATTERN: Final = r"^[a-z]([a-z0-9-]*[a-z0-9])?$"
LABEL_VALUE_PATTERN: Final = r"^([A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?)?$"
NO_CONTROL_PATTERN: Final = r"^[^\x00-\x1f\x7f]+$"

DnsLabel = Annotated[str, Field(min_length=1, max_length=63, pattern=LABEL_PATTERN)]
DnsSubdomain = Annotated[str, Field(min_length=1, max_length=253, pattern=SUBDOMAIN_PATTERN)]
ServiceName = Annotated[str, Field(min_length=1, max_length=63, pattern=SERVICE_NAME_PATTERN)]
LabelValue = Annotated[str, Field(max_length=63, pattern=LABEL_VALUE_PATTERN)]
ModelName = Annotated[str, Field(min_length=1, max_length=256, pattern=NO_CONTROL_PATTERN)]
Port = Annotated[int, Field(strict=True, ge=1, le=65535)]
Tokens = Annotated[int, Field(strict=True, ge=0, le=10_000_000)]
Percent = Annotated[int, Field(strict=True, ge=0, le=100)]
Count = Annotated[int, Field(strict=True, ge=0, le=1_000_000_000)]
