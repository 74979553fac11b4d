"""`ModelRoute`: which model names that clients send go to which backends.

Rules are tried in order and the first that matches wins, so their order counts (the list is atomic) and a rule without matches
can only be the last. Within a rule a lower priority number goes first, and weights divide the traffic of one priority.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, model_validator

from spillway_operator.api.base import SpecModel, StatusModel
from spillway_operator.api.durations import Duration
from spillway_operator.api.fields import (
    HEADER_NAME_PATTERN,
    HEADER_VALUE_PATTERN,
    Count,
    DnsLabel,
    DnsSubdomain,
    ModelName,
    Percent,
    Tokens,
)
from spillway_operator.api.lists import ATOMIC, ListMap, ListSet, repeats
from spillway_operator.api.meta import Conditions, ResourceModel
from spillway_operator.api.rules import Location, Rule, check_spec
from spillway_operator.api.schedules import MAX_SCHEDULES, RouteSchedule
from spillway_operator.api.schedules import ROUTE_RULES as SCHEDULE_RULES
from spillway_operator.api.scheduling import RULES as SCHEDULING_RULES
from spillway_operator.api.scheduling import Scheduling
from spillway_wire.names import RequestType

MAX_LAGGING_NAMED: Final = 16


class HeaderMatch(SpecModel):
    """A request header with exactly this value."""

    name: str = Field(
        min_length=1,
        max_length=128,
        pattern=HEADER_NAME_PATTERN,
        description="Name of the header, in lower case (headers match in any case), e.g. x-tier.",
    )
    value: str = Field(
        max_length=1024,
        pattern=HEADER_VALUE_PATTERN,
        description="The value that the header must have, exactly, e.g. premium.",
    )


class TokenRange(SpecModel):
    """Range of the estimated prompt size in tokens, both ends included."""

    min: Tokens | None = Field(default=None, description="Fewest tokens; no lower end where left out.")
    max: Tokens | None = Field(default=None, description="Most tokens; no upper end where left out.")


class Match(SpecModel):
    """A condition on a request. All that is given must hold."""

    request_types: Annotated[tuple[RequestType, ...], Field(max_length=16), ListSet()] = Field(
        default=(), description="The request is one of these: Chat, Completions, Embeddings."
    )
    headers: Annotated[tuple[HeaderMatch, ...], Field(max_length=16), ListMap("name")] = Field(
        default=(), description="The request has all of these headers."
    )
    prompt_tokens: TokenRange | None = Field(default=None, description="The prompt's estimated size is in this range.")


class BackendRef(SpecModel):
    """A backend that a rule sends requests to."""

    name: DnsSubdomain = Field(description="Name of a ModelBackend in this namespace.")
    priority: int = Field(
        default=0,
        strict=True,
        ge=0,
        le=100,
        description="Which backends come first: those with the lowest number, and the next number only when these cannot take a request.",
    )
    weight: int = Field(
        default=1,
        strict=True,
        ge=0,
        le=1_000_000,
        description="Share of the traffic among the backends of the same priority; 0 sends it nothing.",
    )
    model_name_override: ModelName | None = Field(
        default=None, description="Model name to send upstream for this rule, in place of the backend's own."
    )


class Fallback(SpecModel):
    """Leave a priority for the next one while it is worse than this, by what each proxy meets itself."""

    error_rate_percent: int | None = Field(
        default=None,
        strict=True,
        ge=1,
        le=99,
        description="More than this share of the attempts of the last ten seconds failed, e.g. 5.",
    )
    latency_p95: Duration | None = Field(
        default=None,
        description="More than one attempt in twenty waits longer than this for the first byte of the answer's body, e.g. 3s.",
    )


class Spill(SpecModel):
    """Send the excess of a priority on to the next one, and no more than the excess."""

    max_wait: Duration = Field(
        description="A request goes on when it would wait longer than this for its turn at the best endpoint of the priority, e.g. 2s."
    )


class RouteRule(SpecModel):
    """Where requests that match go."""

    name: DnsLabel = Field(description="Name of the rule, once in a route; shows in metrics, logs and decision records.")
    matches: Annotated[tuple[Match, ...], Field(max_length=16), ATOMIC] = Field(
        default=(), description="The rule is for requests that fit any of these; without them it takes the rest and is the last."
    )
    backend_refs: Annotated[tuple[BackendRef, ...], Field(min_length=1, max_length=16), ListMap("name")] = Field(
        description="Backends that take the requests."
    )
    fallback: Fallback | None = Field(
        default=None, description="Leave a priority while it is worse than this; probes bring it back."
    )
    spill: Spill | None = Field(
        default=None, description="Send on what would wait too long; it comes back when the wait has fallen to four fifths."
    )
    scheduling: Scheduling | None = Field(
        default=None, description="By what endpoints and backends are chosen, in place of the route's."
    )


class Timeouts(SpecModel):
    """How long a request may take."""

    first_token: Duration = Field(default=Duration("60s"), description="Until the first byte of the answer's body, e.g. 10s.")
    stream_idle: Duration = Field(default=Duration("60s"), description="Between two pieces of a streamed answer, e.g. 30s.")
    request: Duration = Field(default=Duration("10m"), description="For the whole request, e.g. 10m.")
    connect: Duration = Field(
        default=Duration("2s"), description="Until an endpoint has taken a connection, TLS included, e.g. 1s."
    )
    admission: Duration = Field(
        default=Duration("100ms"), description="Until a sidecar has said whether it takes the request, e.g. 200ms."
    )


class Retries(SpecModel):
    """How often a request is tried again before anything of its answer has gone out, and what becomes of a stream that breaks off."""

    max_attempts: int = Field(default=2, strict=True, ge=1, le=5, description="Tries in all; 1 tries nothing again.")
    budget_percent: Percent = Field(
        default=10, description="Share of the requests under way that may be retries, so that retries never become the load."
    )
    hedge_percent: Percent = Field(
        default=2,
        description="Share of the requests that may be sent to a second endpoint beside the first, whose first token is late; 0 for none.",
    )
    continue_streams: bool = Field(
        default=False,
        strict=True,
        description="Whether a stream whose engine dies goes on at another one, once, with the text so far as the beginning of its answer.",
    )


class HeaderPriority(SpecModel):
    """What one value of the priority header stands for."""

    value: str = Field(
        min_length=1,
        max_length=128,
        pattern=HEADER_VALUE_PATTERN,
        description="The value that the header must have, exactly, e.g. interactive.",
    )
    priority: int = Field(
        strict=True, ge=-100, le=100, description="Higher goes first; requests without a listed value have priority 0."
    )


class FlowControl(SpecModel):
    """How requests wait at a proxy while every endpoint has as much as it can run: by priority, then fair between flows."""

    max_requests: int = Field(
        default=256, strict=True, ge=0, le=10_000, description="Requests of one rule that may wait at one proxy; 0 refuses at once."
    )
    max_bytes: int = Field(
        default=64 * 1024 * 1024,
        strict=True,
        ge=1,
        le=1 << 40,
        description="Bytes of their bodies, all together, e.g. 67108864.",
    )
    max_wait: Duration = Field(
        default=Duration("10s"), description="Longest wait; a request that would wait longer is refused at once, e.g. 5s."
    )
    priority_header: str = Field(
        default="x-llm-d-inference-objective",
        min_length=1,
        max_length=128,
        pattern=HEADER_NAME_PATTERN,
        description="Header that tells the priority, in lower case; it counts for the values in priorities only.",
    )
    priorities: Annotated[tuple[HeaderPriority, ...], Field(max_length=32), ListMap("value")] = Field(
        default=(), description="Values of the header and what they stand for; without them all requests are of one priority."
    )
    fairness_header: str = Field(
        default="x-llm-d-inference-fairness-id",
        min_length=1,
        max_length=128,
        pattern=HEADER_NAME_PATTERN,
        description="Header that tells flows (tenants, users) apart, in lower case; among those that wait each gets its share of tokens.",
    )


def _takes_rest(rule: dict[str, Any]) -> bool:
    return not rule.get("matches")


def _shadowed(rules: list[dict[str, Any]]) -> Iterator[Location]:
    yield from ((index,) for index, rule in enumerate(rules[:-1]) if _takes_rest(rule))


def _repeated_names(rules: list[dict[str, Any]]) -> Iterator[Location]:
    names = [rule.get("name", index) for index, rule in enumerate(rules)]
    yield from ((index, "name") for index in repeats(names))


def _idle_priorities(rule: dict[str, Any]) -> Iterator[Location]:
    refs = rule["backendRefs"]
    busy = {ref["priority"] for ref in refs if ref["weight"] != 0}
    shown: set[int] = set()
    for index, ref in enumerate(refs):
        if ref["priority"] not in busy | shown:
            shown.add(ref["priority"])
            yield "backendRefs", index, "weight"


def _nowhere_to_go_on(rule: dict[str, Any]) -> Iterator[Location]:
    if len({ref["priority"] for ref in rule["backendRefs"] if ref["weight"] != 0}) < 2:
        yield from ((name,) for name in ("fallback", "spill") if name in rule)


def _no_bound(fallback: dict[str, Any]) -> Iterator[Location]:
    if "errorRatePercent" not in fallback and "latencyP95" not in fallback:
        yield ()


def _says_nothing(match: dict[str, Any]) -> Iterator[Location]:
    if not match.get("requestTypes") and not match.get("headers") and "promptTokens" not in match:
        yield ()


def _open_range(tokens: dict[str, Any]) -> Iterator[Location]:
    if "min" not in tokens and "max" not in tokens:
        yield ()


def _reversed_range(tokens: dict[str, Any]) -> Iterator[Location]:
    if "min" in tokens and "max" in tokens and tokens["min"] > tokens["max"]:
        yield ("min",)


RULES: Final = (
    Rule(
        name="unique-rule-names",
        path="spec.rules",
        cel="self.all(a, self.exists_one(b, b.name == a.name))",
        message="a rule's name stands once in a route, since metrics and records tell rules apart by it: rename one of them",
        find=_repeated_names,
    ),
    Rule(
        name="rest-is-last",
        path="spec.rules",
        cel="size(self) == 0 || self.filter(r, !has(r.matches) || size(r.matches) == 0).size() == "
        "(!has(self[size(self) - 1].matches) || size(self[size(self) - 1].matches) == 0 ? 1 : 0)",
        message="a rule without matches takes every request, so the rules after it would never be used: give it matches, or move it"
        " to the end",
        find=_shadowed,
    ),
    Rule(
        name="some-weight",
        path="spec.rules[]",
        cel="self.backendRefs.all(a, self.backendRefs.exists(b, b.priority == a.priority && b.weight != 0))",
        message="the backends of one priority must not all have weight 0: give one of them a weight, or remove them",
        find=_idle_priorities,
        field=".backendRefs",
    ),
    Rule(
        name="somewhere-to-go-on",
        path="spec.rules[]",
        cel="(!has(self.fallback) && !has(self.spill)) || self.backendRefs.exists(a, a.weight != 0"
        " && self.backendRefs.exists(b, b.weight != 0 && b.priority != a.priority))",
        message="fallback and spill lead to the next priority, and there is none: give one of the backendRefs a higher priority number,"
        " or remove them",
        find=_nowhere_to_go_on,
        field=".backendRefs",
    ),
    Rule(
        name="fallback-has-a-bound",
        path="spec.rules[].fallback",
        cel="has(self.errorRatePercent) || has(self.latencyP95)",
        message="a fallback without errorRatePercent and latencyP95 never happens: give one of them, or remove fallback",
        find=_no_bound,
    ),
    Rule(
        name="match-says-something",
        path="spec.rules[].matches[]",
        cel="(has(self.requestTypes) && size(self.requestTypes) > 0) || (has(self.headers) && size(self.headers) > 0)"
        " || has(self.promptTokens)",
        message="a match without requestTypes, headers and promptTokens fits every request: give one of them, or remove matches",
        find=_says_nothing,
    ),
    Rule(
        name="range-has-an-end",
        path="spec.rules[].matches[].promptTokens",
        cel="has(self.min) || has(self.max)",
        message="promptTokens without min and max fits every request: give one of them, or remove promptTokens",
        find=_open_range,
    ),
    Rule(
        name="range-is-forward",
        path="spec.rules[].matches[].promptTokens",
        cel="!has(self.min) || !has(self.max) || self.min <= self.max",
        message="promptTokens.min must not be greater than promptTokens.max: swap them, or remove one",
        find=_reversed_range,
    ),
    *SCHEDULING_RULES,
    *SCHEDULE_RULES,
)


class RouteSpec(SpecModel):
    """What a user says about where requests for some models go."""

    models: Annotated[tuple[ModelName, ...], Field(min_length=1, max_length=64), ListSet()] = Field(
        description="Model names that clients send, e.g. chat-large. One route in a namespace has a name."
    )
    rules: Annotated[tuple[RouteRule, ...], Field(min_length=1, max_length=32), ATOMIC] = Field(
        description="Where requests go. The first rule that matches wins."
    )
    timeouts: Timeouts = Field(default=Timeouts(), description="How long a request may take.")
    retries: Retries = Field(default=Retries(), description="How often a request is tried again.")
    flow_control: FlowControl = Field(default=FlowControl(), description="How requests wait when every endpoint is busy.")
    scheduling: Scheduling | None = Field(
        default=None, description="By what endpoints and backends are chosen; the predicted wait where left out."
    )
    schedules: Annotated[tuple[RouteSchedule, ...], Field(max_length=MAX_SCHEDULES), ATOMIC] = Field(
        default=(), description="Other weights and scorers at some hours of some days. The first that is open counts."
    )

    @model_validator(mode="after")
    def _obey_rules(self) -> Self:
        check_spec(RULES, self.model_dump(mode="json", by_alias=True, exclude_none=True))
        return self


class ProxyCounts(StatusModel):
    """Proxies that run this generation of the route."""

    synced: Count = Field(default=0, description="Connected proxies that run this generation.")
    total: Count = Field(default=0, description="Connected proxies.")
    lagging: Annotated[tuple[Annotated[str, Field(max_length=320)], ...], Field(max_length=MAX_LAGGING_NAMED), ListSet()] = Field(
        default=(), description="Proxies that do not run it yet; the first ones by name."
    )


class RouteBackend(StatusModel):
    """A backend of the route as it stands."""

    name: str = Field(min_length=1, max_length=253, description="Name of the ModelBackend.")
    weight_percent: Percent = Field(
        default=0, description="Share of the route's requests that it got lately; without any, what it is meant to get."
    )
    ready: bool = Field(default=False, description="Whether it has endpoints that take requests.")
    active: bool = Field(default=False, description="Whether requests are sent there: all, a share, or the excess of another.")


class Traffic(StatusModel):
    """Traffic of the route over the last window. What nobody reports is left out."""

    requests_per_second: str | None = Field(default=None, max_length=32, description="Requests per second, e.g. 41.3.")
    error_percent: str | None = Field(default=None, max_length=32, description="Share of requests that failed, e.g. 0.2.")
    ttft_p95_milliseconds: Count | None = Field(default=None, description="Time to the first token that 95 percent stay within.")


class RouteSummary(StatusModel):
    """What printer columns show as a pair, with a unit, or as a list."""

    models: str = Field(default="", max_length=64, description="Model names that clients send, e.g. chat-large,gpt-4o.")
    backends: str = Field(default="", max_length=32, description="Ready backends of all, e.g. 3/4.")
    synced: str = Field(default="", max_length=32, description="Proxies that run this generation of all, e.g. 12/12.")
    ttft_p95: str = Field(default="", max_length=32, description="Time to the first token with its unit, e.g. 310ms.")
    weights: str = Field(default="", max_length=512, description="Backends and their share, e.g. llama-70b=93%,gpt-4o=7%.")
    active: str = Field(
        default="", max_length=128, description="Rules whose requests go past a priority, and why, e.g. all:PredictedWait."
    )

    @classmethod
    def of(
        cls,
        spec: RouteSpec,
        backends: Sequence[RouteBackend],
        proxies: ProxyCounts,
        traffic: Traffic,
        active: Sequence[str] = (),
    ) -> Self:
        """The strings for these figures; a list that is too long for its column ends in `+n`."""
        ttft = traffic.ttft_p95_milliseconds
        return cls(
            models=_fit(spec.models, 40),
            backends=f"{sum(backend.ready for backend in backends)}/{len(backends)}",
            synced=f"{proxies.synced}/{proxies.total}",
            ttft_p95="" if ttft is None else f"{ttft}ms",
            weights=_fit([f"{backend.name}={backend.weight_percent}%" for backend in backends], 500),
            active=_fit(active, 100),
        )


def _fit(texts: Sequence[str], width: int) -> str:
    """`a,b,c` in at most about `width` characters: `a,+2` where not all fit, and the first one cut where not even that does."""
    shown = ",".join(texts)
    count = len(texts)
    while len(shown) > width and count > 1:
        count -= 1
        shown = ",".join([*texts[:count], f"+{len(texts) - count}"])
    if len(shown) <= width:
        return shown
    rest = f",+{len(texts) - 1}" if len(texts) > 1 else ""
    return f"{texts[0][: width - 3 - len(rest)]}...{rest}"


class RouteStatus(StatusModel):
    """What the operator found out about a route."""

    observed_generation: int = Field(default=0, ge=0, description="The generation of the spec that this status is about.")
    conditions: Conditions = ()
    proxies: ProxyCounts = Field(default=ProxyCounts(), description="How many proxies run this generation.")
    backends: Annotated[tuple[RouteBackend, ...], Field(max_length=512), ListMap("name")] = Field(
        default=(), description="The backends that the rules name, as they stand."
    )
    traffic: Traffic = Field(default=Traffic(), description="What went through lately.")
    schedule: str = Field(default="", max_length=63, description="Name of the schedule that is open; empty for none.")
    summary: RouteSummary = Field(default=RouteSummary(), description="Figures in the form that printer columns show.")


class ModelRoute(ResourceModel):
    """A ModelRoute says which model names that clients send go to which backends, and under what conditions."""

    api_version: Literal["spillway.dev/v1alpha1"] = "spillway.dev/v1alpha1"
    kind: Literal["ModelRoute"] = "ModelRoute"
    spec: RouteSpec
    status: RouteStatus = RouteStatus()
