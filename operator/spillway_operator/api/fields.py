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
LABEL_KEY_PATTERN: Final = r"^([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$"
NO_CONTROL_PATTERN: Final = r"^[^\x00-\x1f\x7f]+$"
SECRET_KEY_PATTERN: Final = r"^[A-Za-z0-9._-]+$"  # noqa: S105 - a pattern
URL_PATH_PATTERN: Final = r"^/[!-~]*$"
HEADER_NAME_PATTERN: Final = r"^[a-z0-9!#$%&'*+.^|~-]+$"
HEADER_VALUE_PATTERN: Final = r"^([!-~]([\t -~]*[!-~])?)?$"
CONDITION_WORD_PATTERN: Final = r"^[A-Za-z][A-Za-z0-9]*$"
MONEY_PATTERN: Final = r"^[0-9]{1,7}(\.[0-9]{1,6})?$"
API_VERSION_PATTERN: Final = r"^([a-z0-9]([a-z0-9.-]*[a-z0-9])?/)?v[0-9]+((alpha|beta)[0-9]+)?$"
CURRENCY_PATTERN: Final = r"^[A-Z]{3}$"
CLOCK_PATTERN: Final = r"^([01][0-9]|2[0-3]):[0-5][0-9]$"
TIME_ZONE_PATTERN: Final = r"^[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*$"
DURATION_PATTERN: Final = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$"

DnsLabel = Annotated[str, Field(min_length=1, max_length=63, pattern=LABEL_PATTERN)]
DnsSubdomain = Annotated[str, Field(min_length=1, max_length=253, pattern=SUBDOMAIN_PATTERN)]
ServiceName = Annotated[str, Field(min_length=1, max_length=63, pattern=SERVICE_NAME_PATTERN)]
LabelValue = Annotated[str, Field(max_length=63, pattern=LABEL_VALUE_PATTERN)]
ModelName = Annotated[str, Field(min_length=1, max_length=256, pattern=NO_CONTROL_PATTERN)]
Port = Annotated[int, Field(strict=True, ge=1, le=65535)]
Tokens = Annotated[int, Field(strict=True, ge=0, le=10_000_000)]
Percent = Annotated[int, Field(strict=True, ge=0, le=100)]
Count = Annotated[int, Field(strict=True, ge=0, le=1_000_000_000)]

# What a person is told where a text does not have a field's form. A test holds that each pattern of each kind has its sentence.
PATTERN_HINTS: Final[dict[str, str]] = {
    LABEL_PATTERN: "use lower-case letters, digits and -, with a letter or digit at both ends",
    SUBDOMAIN_PATTERN: "use lower-case letters, digits, - and ., with a letter or digit at both ends",
    SERVICE_NAME_PATTERN: "use lower-case letters, digits and -, with a letter first and a letter or digit last",
    LABEL_VALUE_PATTERN: "use letters, digits, -, _ and ., with a letter or digit at both ends",
    LABEL_KEY_PATTERN: "use letters, digits, -, _ and . (at most 63), after a DNS name and a / where there is one, e.g. app.kubernetes.io/name",
    NO_CONTROL_PATTERN: "remove line breaks, tabs and other control characters",
    SECRET_KEY_PATTERN: "use letters, digits, -, _ and .",
    URL_PATH_PATTERN: 'begin with / and use no spaces, e.g. "/health"',
    HEADER_NAME_PATTERN: 'write it in lower case, without spaces, colons or _, e.g. "x-tier"',
    HEADER_VALUE_PATTERN: "use plain characters (ASCII), with no space at either end",
    CONDITION_WORD_PATTERN: "use letters and digits, e.g. BackendNotFound",
    MONEY_PATTERN: 'write an amount with at most six digits after the point, in quotes, e.g. "0.60"',
    API_VERSION_PATTERN: "write group/version, e.g. apps/v1",
    CURRENCY_PATTERN: "write the currency's three letters, e.g. USD",
    CLOCK_PATTERN: 'write a time of day with two digits each, in quotes, e.g. "06:30"',
    TIME_ZONE_PATTERN: 'write the name of an IANA time zone, e.g. "Europe/Berlin"',
    DURATION_PATTERN: 'write a number with a unit (ms, s, m, h), e.g. "500ms", "10s", "1m30s"',
}
