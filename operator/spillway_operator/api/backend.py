"""`ModelBackend`: one place that serves one model.

It says where (pods, a Service, or a server outside), what is spoken there (`provider`) and how much of it one endpoint may be
given. `health` and `limits.maxQueue` are about the listener that stands before an engine in its pod; where there is none, the
rules below refuse them rather than accept and ignore them. For the same reason their defaults are applied here, for pods only, and
not in the schema, where they would collide with the rule.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Final, Literal, NamedTuple, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from spillway_operator.api.base import SpecModel, StatusModel
from spillway_operator.api.durations import Duration
from spillway_operator.api.fields import (
    CURRENCY_PATTERN,
    LABEL_KEY_PATTERN,
    MONEY_PATTERN,
    PATTERN_HINTS,
    SECRET_KEY_PATTERN,
    URL_PATH_PATTERN,
    Count,
    DnsSubdomain,
    LabelValue,
    ModelName,
    Percent,
    Port,
    ServiceName,
)
from spillway_operator.api.lists import ListSet
from spillway_operator.api.meta import Conditions, ResourceModel
from spillway_operator.api.rules import Finder, Location, Rule, check_spec
from spillway_operator.api.scaling import RULES as SCALING_RULES
from spillway_operator.api.scaling import Scaling
from spillway_wire.names import Provider, RequestType

DEFAULT_MAX_QUEUE: Final = 128

_HOST = r"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?)"
_PORT = r"(:([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]))?"
_PATH = r"(/[A-Za-z0-9._~%:+=,;!$&()*-]+)*/?"
URL_PATTERN: Final = f"^https?://{_HOST}{_PORT}{_PATH}$"
_URL = re.compile(URL_PATTERN.removesuffix("$") + r"\Z")
_LABEL_KEY = re.compile(LABEL_KEY_PATTERN.removesuffix("$") + r"\Z")


class Selector(SpecModel):
    """Which pods."""

    match_labels: dict[str, LabelValue] = Field(
        min_length=1,
        max_length=16,
        description="Labels that a pod must have, all of them, e.g. app: llama-70b.",
    )


class Pods(SpecModel):
    """An engine in pods of this namespace."""

    selector: Selector = Field(description="Which pods of this namespace run the engine.")
    port: Port = Field(description="Port on which the engine listens in its pod.")


class Service(SpecModel):
    """An engine behind a Service of this namespace."""

    name: ServiceName = Field(description="Name of the Service, in this namespace.")
    port: Port = Field(description="Port of the Service.")


class SecretKeyRef(SpecModel):
    """A key of a Secret."""

    name: DnsSubdomain = Field(description="Name of the Secret, in this namespace.")
    key: str = Field(
        min_length=1, max_length=253, pattern=SECRET_KEY_PATTERN, description="Key inside the Secret whose value is the token."
    )


class Auth(SpecModel):
    """How a server outside knows us."""

    secret_ref: SecretKeyRef = Field(
        description="Where the bearer token is. The proxies read it there; it is never copied anywhere else."
    )


class Address(NamedTuple):
    """An external url in its parts. `path_prefix` has no slash at the end and may be empty."""

    tls: bool
    host: str
    port: int
    path_prefix: str


class External(SpecModel):
    """A server outside the cluster."""

    url: str = Field(
        min_length=1,
        max_length=512,
        description="Base url of an OpenAI-style API, up to and including its version, e.g. https://api.openai.com/v1. Plain http"
        " only to hosts that the operator was told to allow. No user name, query or fragment.",
    )
    auth: Auth | None = Field(default=None, description="How the server knows us; left out where it asks for no key.")

    @property
    def address(self) -> Address:
        """The url in its parts, with the scheme's usual port where it names none."""
        parts = urlsplit(self.url)
        tls = parts.scheme == "https"
        return Address(tls, parts.hostname or "", parts.port or (443 if tls else 80), parts.path.rstrip("/"))


class Limits(SpecModel):
    """What one endpoint may be given."""

    max_concurrency: int = Field(
        default=256, strict=True, ge=1, le=100_000, description="Requests that may be under way at one endpoint at a time."
    )
    max_queue: int | None = Field(
        default=None,
        strict=True,
        ge=0,
        le=100_000,
        description="Requests that may wait before one engine when it has no room; beyond it a request is refused and goes elsewhere."
        f" Only with pods. {DEFAULT_MAX_QUEUE} where left out.",
    )


class Cost(SpecModel):
    """What the backend's tokens cost: by the token, or by the hour."""

    input_per_million_tokens: str | None = Field(
        default=None,
        max_length=16,
        pattern=MONEY_PATTERN,
        description='Price of a million prompt tokens as a decimal, e.g. "0.60".',
    )
    output_per_million_tokens: str | None = Field(
        default=None,
        max_length=16,
        pattern=MONEY_PATTERN,
        description='Price of a million generated tokens as a decimal, e.g. "2.40".',
    )
    gpu_hourly: str | None = Field(
        default=None,
        max_length=16,
        pattern=MONEY_PATTERN,
        description='Price of one replica for an hour as a decimal, e.g. "2.10"; what a token costs is measured. Only with pods.',
    )
    currency: str = Field(
        default="USD",
        max_length=3,
        pattern=CURRENCY_PATTERN,
        description="Currency of all of it, e.g. USD; backends are compared in one only.",
    )


class Health(SpecModel):
    """How an engine is asked whether it is well."""

    path: str = Field(
        default="/health",
        min_length=1,
        max_length=512,
        pattern=URL_PATH_PATTERN,
        description="Path that answers 200 while the engine is well.",
    )
    interval: Duration = Field(default=Duration("5s"), description="Time between two checks, e.g. 5s.")
    timeout: Duration = Field(default=Duration("1s"), description="Time after which a check has failed, e.g. 1s.")


def _one_price(cost: dict[str, Any]) -> bool:
    given = ["inputPerMillionTokens" in cost, "outputPerMillionTokens" in cost]
    return not any(given) if "gpuHourly" in cost else all(given)


def _one_place(spec: dict[str, Any]) -> Iterator[Location]:
    given = [place for place in ("pods", "service", "external") if spec.get(place) is not None]
    if not given:
        yield ()
    yield from ((place,) for place in given[1:])


def _breaks(test: Callable[[Any], bool], at: Location = ()) -> Finder:
    """A finder for a rule that is one test of the whole node; what breaks it is shown at `at`."""
    return lambda node: () if test(node) else (at,)


RULES: Final = (
    Rule(
        name="label-keys",
        path="spec.pods.selector.matchLabels",
        cel=f"self.all(key, key.matches(r'{LABEL_KEY_PATTERN}'))",
        message=f"a label's key has another form: {PATTERN_HINTS[LABEL_KEY_PATTERN]}",
        find=lambda labels: [(key,) for key in labels if not _LABEL_KEY.match(key)],
    ),
    Rule(
        name="one-place",
        path="spec",
        cel="[has(self.pods), has(self.service), has(self.external)].filter(given, given).size() == 1",
        message="where the model is served is said by exactly one of pods, service and external: declare one, and no other",
        find=_one_place,
    ),
    Rule(
        name="health-needs-pods",
        path="spec",
        cel="!has(self.health) || has(self.pods)",
        message="health is checked by the sidecar beside an engine and goes with pods only: remove health, or declare pods",
        find=_breaks(lambda spec: "health" not in spec or "pods" in spec, ("health",)),
        field=".health",
    ),
    Rule(
        name="queue-needs-pods",
        path="spec",
        cel="!has(self.limits) || !has(self.limits.maxQueue) || has(self.pods)",
        message="limits.maxQueue is the queue of the sidecar beside an engine and goes with pods only: remove it, or declare pods",
        find=_breaks(lambda spec: "maxQueue" not in spec.get("limits", {}) or "pods" in spec, ("limits", "maxQueue")),
        field=".limits.maxQueue",
    ),
    Rule(
        name="one-price",
        path="spec.cost",
        cel="has(self.gpuHourly) ? !has(self.inputPerMillionTokens) && !has(self.outputPerMillionTokens)"
        " : has(self.inputPerMillionTokens) && has(self.outputPerMillionTokens)",
        message="a price is said by the token or by the hour: declare inputPerMillionTokens and outputPerMillionTokens, or gpuHourly",
        find=_breaks(_one_price),
    ),
    Rule(
        name="hourly-needs-pods",
        path="spec",
        cel="!has(self.cost) || !has(self.cost.gpuHourly) || has(self.pods)",
        message="cost.gpuHourly is the price of a replica and goes with pods only: declare prices by the token, or pods",
        find=_breaks(lambda spec: "gpuHourly" not in spec.get("cost", {}) or "pods" in spec, ("cost", "gpuHourly")),
        field=".cost.gpuHourly",
    ),
    Rule(
        name="external-speaks-openai",
        path="spec",
        cel="!has(self.external) || self.provider == 'OpenAICompatible'",
        message="an external server is spoken to in OpenAI style: set provider to OpenAICompatible",
        find=_breaks(lambda spec: "external" not in spec or spec["provider"] == Provider.OPENAI_COMPATIBLE, ("provider",)),
        field=".provider",
    ),
    Rule(
        name="url-scheme",
        path="spec.external.url",
        cel="self.startsWith('https://') || self.startsWith('http://')",
        message="a url begins with https://, or http:// for a host that the operator allows: give it in full",
        find=_breaks(lambda url: url.startswith(("https://", "http://"))),
    ),
    Rule(
        name="url-without-user",
        path="spec.external.url",
        cel="!self.contains('@')",
        message="a url holds no user name or password: remove what stands before the @ and name a Secret in auth.secretRef",
        find=_breaks(lambda url: "@" not in url),
    ),
    Rule(
        name="url-without-query",
        path="spec.external.url",
        cel="!self.contains('?') && !self.contains('#')",
        message="a url holds no query and no fragment: remove what begins with ? or #",
        find=_breaks(lambda url: "?" not in url and "#" not in url),
    ),
    Rule(
        name="url-form",
        path="spec.external.url",
        cel="!(self.startsWith('https://') || self.startsWith('http://')) || self.contains('@') || self.contains('?')"
        f" || self.contains('#') || self.matches(r'{URL_PATTERN}')",
        message="a url is scheme://host, a port (1 to 65535) if it is not the usual one, and a path without empty parts,"
        " e.g. https://api.openai.com/v1",
        find=_breaks(
            lambda url: not url.startswith(("https://", "http://")) or any(sign in url for sign in "@?#") or bool(_URL.match(url))
        ),
    ),
    *SCALING_RULES,
)


class BackendSpec(SpecModel):
    """What a user says about one place that serves one model."""

    provider: Provider = Field(
        description="What serves the model: which metrics it has and how it is asked. OpenAICompatible for any server with an OpenAI-style API."
    )
    model: ModelName = Field(description="Name of the model as it is sent upstream, e.g. meta-llama/Llama-3.3-70B-Instruct.")
    pods: Pods | None = Field(
        default=None, description="The model is served by pods of this namespace. One of pods, service, external."
    )
    service: Service | None = Field(
        default=None, description="The model is served behind a Service of this namespace. One of pods, service, external."
    )
    external: External | None = Field(
        default=None,
        description="The model is served outside, by a server with an OpenAI-style API. One of pods, service, external.",
    )
    capabilities: Annotated[tuple[RequestType, ...], Field(min_length=1, max_length=16), ListSet()] = Field(
        default=tuple(RequestType), description="What may be asked of the model. All of them where left out."
    )
    limits: Limits = Field(default=Limits(), description="What one endpoint may be given.")
    health: Health | None = Field(
        default=None,
        description="How the engine is asked whether it is well. Only with pods, which are asked at /health each 5s where it is left out.",
    )
    cost: Cost | None = Field(default=None, description="What its tokens cost, for routes that go by Cost.")
    scaling: Scaling | None = Field(
        default=None, description="How many replicas; they follow the load. Only with pods; left out, nobody here sets them."
    )

    @model_validator(mode="after")
    def _obey_rules(self) -> Self:
        check_spec(RULES, self.model_dump(mode="json", by_alias=True, exclude_none=True))
        return self

    @property
    def effective_max_queue(self) -> int:
        """The declared queue, or the default."""
        return DEFAULT_MAX_QUEUE if self.limits.max_queue is None else self.limits.max_queue

    @property
    def effective_health(self) -> Health | None:
        """The declared check, or the default one for pods; None where nothing is checked."""
        return self.health or (Health() if self.pods else None)


class EndpointCounts(StatusModel):
    """Endpoints of a backend."""

    ready: Count = Field(default=0, description="Endpoints that take requests.")
    total: Count = Field(default=0, description="Endpoints in all.")


class BackendLoad(StatusModel):
    """Load of a backend over its endpoints. What nobody reports is left out: unknown is not zero."""

    queue_depth: Count | None = Field(default=None, description="Requests that wait before or in the engines.")
    running: Count | None = Field(default=None, description="Requests under way at the engines.")
    gpu_utilization_percent: Percent | None = Field(default=None, description="GPU utilisation, mean over endpoints.")
    kv_cache_percent: Percent | None = Field(default=None, description="Use of the KV cache, mean over endpoints.")
    tokens_per_second: Count | None = Field(default=None, description="Output tokens per second, all endpoints together.")


class ReplicaCounts(StatusModel):
    """Replicas of a backend that is scaled."""

    current: Count = Field(default=0, description="Replicas that are ready, or that there are where the target does not say.")
    desired: Count = Field(default=0, description="Replicas that there should be.")
    tokens_per_second: Count | None = Field(
        default=None, description="Tokens that one of them does in a second, prompts and answers, when it has all it can do."
    )


class MeasuredCost(StatusModel):
    """What tokens cost, as measured."""

    per_million_tokens: str = Field(default="", max_length=32, description="Of a million tokens, prompts and answers, as served.")


class BackendSummary(StatusModel):
    """What printer columns show as a pair."""

    endpoints: str = Field(default="", max_length=32, description="Ready endpoints of all, e.g. 3/4.")
    replicas: str | None = Field(default=None, max_length=32, description="Current and desired replicas, e.g. 4/5.")

    @classmethod
    def of(cls, endpoints: EndpointCounts, replicas: ReplicaCounts | None = None) -> Self:
        """The strings for these figures."""
        return cls(
            endpoints=f"{endpoints.ready}/{endpoints.total}",
            replicas=None if replicas is None else f"{replicas.current}/{replicas.desired}",
        )


class BackendStatus(StatusModel):
    """What the operator found out about a backend."""

    observed_generation: int = Field(default=0, ge=0, description="The generation of the spec that this status is about.")
    conditions: Conditions = ()
    endpoints: EndpointCounts = Field(default=EndpointCounts(), description="How many endpoints there are.")
    replicas: ReplicaCounts | None = Field(
        default=None, description="How many replicas there are and should be, where they are scaled."
    )
    load: BackendLoad = Field(default=BackendLoad(), description="How busy they are.")
    cost: MeasuredCost | None = Field(
        default=None, description="What its tokens cost, where a cost is declared and tokens were served."
    )
    schedule: str = Field(
        default="",
        max_length=640,
        description="Name of the scaling schedule that is open; of one whose replicas are asked for ahead, with (ahead).",
    )
    summary: BackendSummary = Field(default=BackendSummary(), description="Figures in the form that printer columns show.")


class ModelBackend(ResourceModel):
    """A ModelBackend is one place that serves one model: pods in the cluster, a Service, or a server outside."""

    api_version: Literal["spillway.dev/v1alpha1"] = "spillway.dev/v1alpha1"
    kind: Literal["ModelBackend"] = "ModelBackend"
    spec: BackendSpec
    status: BackendStatus = BackendStatus()
