"""Whether a connection is the API server's: it shows a certificate of the authority that the cluster keeps for that.

The authority and the names that it may have are in the ConfigMap `kube-system/extension-apiserver-authentication`. The API server has
asked who a request is from and whether they may, before it hands the request on; so who is not the API server is refused, and
nothing more is asked. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

CONFIG_MAP: Final = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication"


@dataclass(frozen=True, slots=True)
class FrontProxy:
    """Whom to believe: certificates of this authority (PEM) with one of these names, or any where there are none."""

    authority: str
    names: frozenset[str] = frozenset()

    def knows(self, certificate: Mapping[str, Any] | None) -> bool:
        """Whether a certificate that the authority has signed, as `ssl` tells of it, is the API server's."""
        return bool(certificate) and (not self.names or _common_name(certificate or {}) in self.names)


def front_proxy(document: Any) -> FrontProxy:
    """What the ConfigMap says. Raises `ValueError` where it says nothing: then nobody can be believed."""
    data = (document or {}).get("data") or {}
    authority = str(data.get("requestheader-client-ca-file") or "").strip()
    if not authority:
        raise ValueError(
            "the cluster has no authority for front proxies: its API server runs without --requestheader-client-ca-file"
        )
    names = json.loads(data.get("requestheader-allowed-names") or "[]")
    if not isinstance(names, list):
        raise ValueError("requestheader-allowed-names is no list")  # noqa: TRY004 - a document's fault, not a caller's
    return FrontProxy(authority, frozenset(str(name) for name in names))


def _common_name(certificate: Mapping[str, Any]) -> str:
    subject: Sequence[Sequence[Sequence[str]]] = certificate.get("subject") or ()
    return next((value for part in subject for name, value in part if name == "commonName"), "")
