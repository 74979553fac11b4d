"""Objects for tests: good ones by hand, and strategies that make any good one, or spoil one."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

from spillway_operator.api.meta import API_VERSION
from spillway_wire.names import Provider, RequestType

Document = dict[str, Any]


def backend(name: str = "fast", **spec: Any) -> Document:
    """A good ModelBackend in pods; fields of the spec as given, None takes one away."""
    fields = {"provider": "VLLM", "model": "m", "pods": {"selector": {"matchLabels": {"app": "m"}}, "port": 8000}, **spec}
    return {
        "apiVersion": API_VERSION,
        "kind": "ModelBackend",
        "metadata": {"name": name},
        "spec": {field: value for field, value in fields.items() if value is not None},
    }


def external(url: str = "https://api.example.com/v1", **spec: Any) -> Document:
    """A good ModelBackend outside."""
    return backend(pods=None, provider="OpenAICompatible", external={"url": url}, **spec)


def route(name: str = "chat", **spec: Any) -> Document:
    """A good ModelRoute with one rule."""
    fields = {"models": ["chat"], "rules": [{"name": "all", "backendRefs": [{"name": "fast"}]}], **spec}
    return {"apiVersion": API_VERSION, "kind": "ModelRoute", "metadata": {"name": name}, "spec": fields}


def rule(name: str = "all", *refs: Document, **fields: Any) -> Document:
    """A good rule of a route."""
    return {"name": name, "backendRefs": list(refs) or [{"name": "fast"}], **fields}


_labels = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)
_services = st.from_regex(r"[a-z]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)
_subdomains = st.lists(_labels, min_size=1, max_size=3).map(".".join)
_label_values = st.from_regex(r"([A-Za-z0-9]([A-Za-z0-9._-]{0,20}[A-Za-z0-9])?)?", fullmatch=True)
_models = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=20)
_ports = st.integers(1, 65535)
_durations = st.one_of(
    st.builds("{}ms".format, st.integers(1, 86_400_000)),
    st.builds("{}s".format, st.integers(1, 86_400)),
    st.builds("{}m{}s".format, st.integers(0, 1000), st.integers(1, 100)),
    st.builds("{}.5h".format, st.integers(0, 23)),
)
_hosts = st.one_of(_subdomains, st.just("[::1]"), st.just("127.0.0.1"))
_urls = st.builds(
    "{}://{}{}{}{}".format,
    st.sampled_from(["http", "https"]),
    _hosts,
    st.one_of(st.just(""), _ports.map(":{}".format)),
    st.lists(st.from_regex(r"[A-Za-z0-9._~-]{1,8}", fullmatch=True), max_size=3).map(
        lambda parts: "".join(f"/{part}" for part in parts)
    ),
    st.sampled_from(["", "/"]),
)


def _some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Document]:
    return st.fixed_dictionaries({}, optional=fields)


_metadata = st.fixed_dictionaries(
    {"name": _subdomains},
    optional={
        "namespace": _labels,
        "labels": st.dictionaries(_labels, _label_values, max_size=3),
        "annotations": st.just({"note": "x"}),
    },
)
_health = _some(path=st.from_regex(r"/[!-~]{0,10}", fullmatch=True), interval=_durations, timeout=_durations)
_concurrency = st.integers(1, 100_000)
_queue = st.integers(0, 100_000)
_about = {
    "model": _models,
    "capabilities": st.lists(st.sampled_from([each.value for each in RequestType]), min_size=1, unique=True),
}
_scale_rules = _some(
    stabilizationWindowSeconds=st.integers(0, 3600),
    policies=st.lists(
        st.fixed_dictionaries(
            {"type": st.sampled_from(["Pods", "Percent"]), "value": st.integers(1, 10_000), "periodSeconds": st.integers(1, 1800)}
        ),
        max_size=3,
    ),
    selectPolicy=st.sampled_from(["Max", "Min", "Disabled"]),
)
_windows: Document = {
    "timeZone": st.sampled_from(["UTC", "Europe/Berlin", "America/Argentina/Ushuaia"]),
    "days": st.lists(st.sampled_from(["Mon", "Sat", "Sun"]), unique=True),
}
_clock = st.builds("{:02d}:{:02d}".format, st.integers(0, 23), st.integers(0, 59))


def _schedules(**says: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Document]]:
    """One or two schedules that say all of it."""
    required = {"name": _labels, "start": _clock, "end": _clock, **says}
    return st.lists(st.fixed_dictionaries(required, optional=_windows), max_size=2, unique_by=lambda each: str(each["name"]))


_scaling = st.fixed_dictionaries(
    {
        "targetRef": st.fixed_dictionaries({"name": _subdomains}, optional={"kind": st.just("StatefulSet")}),
        "maxReplicas": st.integers(5, 1000),
    },
    optional={
        "minReplicas": st.integers(0, 5),
        "replicas": st.integers(0, 5),
        "target": _some(
            queueDepth=st.integers(1, 100), gpuUtilizationPercent=st.integers(1, 100), kvCachePercent=st.integers(1, 100)
        ),
        "windowSeconds": st.integers(6, 3600),
        "behavior": _some(scaleUp=_scale_rules, scaleDown=_scale_rules),
        "idleAfter": _durations,
        "holdTimeout": _durations,
        "forecast": st.sampled_from(["None", "Daily"]),
        "schedules": _schedules(minReplicas=st.integers(0, 5), lead=_durations),
    },
)
_in_pods = st.fixed_dictionaries(
    {
        "provider": st.sampled_from([each.value for each in Provider]),
        "model": _models,
        "pods": st.fixed_dictionaries(
            {
                "selector": st.fixed_dictionaries({"matchLabels": st.dictionaries(_labels, _label_values, min_size=1, max_size=4)}),
                "port": _ports,
            }
        ),
    },
    optional={
        "capabilities": _about["capabilities"],
        "limits": _some(maxConcurrency=_concurrency, maxQueue=_queue),
        "health": _health,
        "scaling": _scaling,
        "cost": st.just({"gpuHourly": "2.10"}),
    },
)
_behind_service = st.fixed_dictionaries(
    {
        "provider": st.sampled_from([each.value for each in Provider]),
        "model": _models,
        "service": st.fixed_dictionaries({"name": _services, "port": _ports}),
    },
    optional={"capabilities": _about["capabilities"], "limits": _some(maxConcurrency=_concurrency)},
)
_secret = st.fixed_dictionaries({"name": _subdomains, "key": st.from_regex(r"[A-Za-z0-9._-]{1,20}", fullmatch=True)})
_outside = st.fixed_dictionaries(
    {
        "provider": st.just("OpenAICompatible"),
        "model": _models,
        "external": st.fixed_dictionaries({"url": _urls}, optional={"auth": st.fixed_dictionaries({"secretRef": _secret})}),
    },
    optional={"capabilities": _about["capabilities"], "limits": _some(maxConcurrency=_concurrency)},
)

_headers = st.lists(
    st.fixed_dictionaries(
        {
            "name": st.from_regex(r"[a-z0-9!#$%&'*+.^|~-]{1,12}", fullmatch=True),
            "value": st.from_regex(r"([!-~]([\t -~]{0,8}[!-~])?)?", fullmatch=True),
        }
    ),
    max_size=3,
    unique_by=lambda header: header["name"],
)


@st.composite
def _token_ranges(draw: st.DrawFn) -> Document:
    low, high = sorted((draw(st.integers(0, 10_000_000)), draw(st.integers(0, 10_000_000))))
    return draw(st.sampled_from([{"min": low}, {"max": high}, {"min": low, "max": high}]))


_matches = _some(
    requestTypes=st.lists(st.sampled_from([each.value for each in RequestType]), unique=True),
    headers=_headers,
    promptTokens=_token_ranges(),
).filter(lambda match: any(match.values()))


@st.composite
def _backend_refs(draw: st.DrawFn) -> list[Document]:
    names = draw(st.lists(_subdomains, min_size=1, max_size=4, unique=True))
    refs = [
        {
            "name": name,
            **draw(_some(priority=st.integers(0, 2), weight=st.integers(0, 1_000_000), modelNameOverride=_models)),
        }
        for name in names
    ]
    for ref in refs:
        peers = [other for other in refs if other.get("priority", 0) == ref.get("priority", 0)]
        if not any(other.get("weight", 1) for other in peers):
            ref["weight"] = 1
    return refs


_fallback = _some(errorRatePercent=st.integers(1, 99), latencyP95=_durations).filter(bool)


@st.composite
def _rules(draw: st.DrawFn) -> list[Document]:
    names = draw(st.lists(_labels, min_size=1, max_size=4, unique=True))
    rules = []
    for index, name in enumerate(names):
        made: Document = {"name": name, "backendRefs": draw(_backend_refs())}
        if index < len(names) - 1 or draw(st.booleans()):
            made["matches"] = draw(st.lists(_matches, min_size=1, max_size=2))
        if len({ref.get("priority", 0) for ref in made["backendRefs"] if ref.get("weight", 1)}) > 1:
            made |= draw(_some(fallback=_fallback, spill=st.fixed_dictionaries({"maxWait": _durations})))
        rules.append(made)
    return rules


_route_specs = st.fixed_dictionaries(
    {"models": st.lists(_models, min_size=1, max_size=4, unique=True), "rules": _rules()},
    optional={
        "timeouts": _some(
            firstToken=_durations, streamIdle=_durations, request=_durations, connect=_durations, admission=_durations
        ),
        "retries": _some(
            maxAttempts=st.integers(1, 5),
            budgetPercent=st.integers(0, 100),
            hedgePercent=st.integers(0, 100),
            continueStreams=st.booleans(),
        ),
        "schedules": _schedules(scheduling=_some(profile=st.sampled_from(["NodeLoad", "RoundRobin"]))),
    },
)


def _objects(kind: str, spec: st.SearchStrategy[Document]) -> st.SearchStrategy[Document]:
    return st.fixed_dictionaries({"apiVersion": st.just(API_VERSION), "kind": st.just(kind), "metadata": _metadata, "spec": spec})


backends = _objects("ModelBackend", st.one_of(_in_pods, _behind_service, _outside))
routes = _objects("ModelRoute", _route_specs)
objects = st.one_of(backends, routes)

# What people, and programs, put where it does not belong. No None: the models take it for "not given", a document may not.
_odd = st.sampled_from(
    [
        *("", "x", "X y", "9", "10s", "0s", "25h", "-1s", "a\n", "é", "Chat", "https://a@b", "http://h:0/", "a" * 2000),
        *(0, -1, 1, 2, 70_000, 10**12, True, [], {}, {"x": 1}, {"a b": "x"}, {"name": "x"}),
        *(["x"], ["x", "x"], ["Chat", "Chat"], [{}], [{"name": "x"}, {"name": "x"}]),
    ]
)


def _places(node: Any, at: tuple[str | int, ...]) -> Iterator[tuple[str | int, ...]]:
    entries = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, child in entries:
        yield (*at, key)
        yield from _places(child, (*at, key))


@st.composite
def spoilt(draw: st.DrawFn) -> Document:
    """A good object with one to three changes below its spec, which may or may not make it bad."""
    made = copy.deepcopy(draw(objects))
    for _ in range(draw(st.integers(1, 3))):
        places = list(_places(made["spec"], ("spec",)))
        if not places:
            break
        *parents, last = draw(st.sampled_from(places))
        node: Any = made
        for part in parents:
            node = node[part]
        change = draw(st.sampled_from(["replace", "remove", "add", "repeat"]))
        repeats = change == "repeat" and isinstance(node, list)
        if change == "remove":
            del node[last]
        elif change == "add" and isinstance(node, dict):
            node[draw(st.sampled_from(["zzz", "name", "pods", "service", "health", "matches", "min", "weight"]))] = copy.deepcopy(
                draw(_odd)
            )
        elif repeats:
            node.append(copy.deepcopy(node[last]))
        else:
            node[last] = copy.deepcopy(draw(_odd))
    return made
