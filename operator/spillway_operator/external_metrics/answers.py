"""What the external metrics API answers. Pure.

A metric is one of `reconcile.signals`, a namespace is the ModelBackends', and the label `backend` is a ModelBackend's name. Where one of
the backends that are meant has no figure the answer is an error, since an autoscaler takes what is left out for nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from spillway_operator.reconcile.signals import SIGNALS, Signals

GROUP: Final = "external.metrics.k8s.io"
VERSION: Final = f"{GROUP}/v1beta1"
LABEL: Final = "backend"

Labels = Mapping[str, str]
Document = dict[str, Any]

_IN: Final = re.compile(r"([^\s,!=()]+)\s+(in|notin)\s+\(([^()]*)\)\s*(?:,|$)")
_EQUAL: Final = re.compile(r"([^\s,!=()]+)\s*(==|=|!=)\s*([^\s,!=()]*)\s*(?:,|$)")
_THERE: Final = re.compile(r"(!?)\s*([^\s,!=()]+)\s*(?:,|$)")


class RefusedError(Exception):
    """The answer is an error. `status` is HTTP's."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason

    @property
    def document(self) -> Document:
        """As Kubernetes says it."""
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "status": "Failure",
            "reason": self.reason,
            "message": str(self),
            "code": self.status,
        }


def resources() -> Document:
    """What there is."""
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": VERSION,
        "resources": [
            {"name": name, "singularName": "", "namespaced": True, "kind": "ExternalMetricValueList", "verbs": ["get"]}
            for name in SIGNALS
        ],
    }


def values(metric: str, selector: str, found: Iterable[Signals], moment: datetime) -> Document:
    """The values of a metric in a namespace. Raises `RefusedError`."""
    if metric not in SIGNALS:
        raise RefusedError(404, "NotFound", f"there is no metric {metric}; there are {', '.join(SIGNALS)}")
    means = matcher(selector)
    items = []
    for each in found:
        labels = {LABEL: each.backend.partition("/")[2]}
        if not means(labels):
            continue
        if each.missing:
            raise RefusedError(503, "ServiceUnavailable", each.missing)
        if metric not in each.values:
            if selector:
                raise RefusedError(503, "ServiceUnavailable", f"{metric} of {each.backend} is not known")
            continue
        items.append(
            {
                "metricName": metric,
                "metricLabels": labels,
                "timestamp": moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
                "value": quantity(each.values[metric]),
            }
        )
    return {"kind": "ExternalMetricValueList", "apiVersion": VERSION, "metadata": {}, "items": items}


def quantity(value: float) -> str:
    """As Kubernetes writes numbers: whole ones, else thousandths."""
    thousandths = round(value * 1000)
    return f"{thousandths}m" if thousandths % 1000 else str(thousandths // 1000)


def matcher(selector: str) -> Callable[[Labels], bool]:
    """A label selector as a test. Raises `RefusedError` for one that is none."""
    tests: list[Callable[[Labels], bool]] = []
    rest = selector.strip()
    while rest:
        if found := _IN.match(rest):
            name, verb, listed = found.groups()
            tests.append(_among(name, frozenset(word.strip() for word in listed.split(",")), within=verb == "in"))
        elif found := _EQUAL.match(rest):
            name, verb, value = found.groups()
            tests.append(_among(name, frozenset({value}), within=verb != "!="))
        elif found := _THERE.match(rest):
            tests.append(_present(found[2], there=not found[1]))
        else:
            raise RefusedError(400, "BadRequest", f"{selector!r} is no label selector")
        rest = rest[found.end() :].strip()
    return lambda labels: all(test(labels) for test in tests)


def _among(name: str, listed: frozenset[str], *, within: bool) -> Callable[[Labels], bool]:
    return lambda labels: (labels.get(name) in listed) == within


def _present(name: str, *, there: bool) -> Callable[[Labels], bool]:
    return lambda labels: (name in labels) == there
