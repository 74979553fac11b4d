"""Whose a token is: TokenReview, remembered for a short while.

An answer is kept for at most a minute and by the token's hash alone; a refusal for a few seconds, so that a proxy with a bad token
does not become a stream of reviews. When the API server does not answer, nobody is let in: a proxy that has a stream keeps it, and
one that has none serves from its last good snapshot.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from spillway_operator.kube.api import KubeApi

POD_NAME: Final = "authentication.kubernetes.io/pod-name"
_SERVICE_ACCOUNT: Final = "system:serviceaccount:"


@dataclass(frozen=True, slots=True)
class Reviewed:
    """Whose a token is. `refusal` says why it is nobody's; empty where it is good."""

    namespace: str = ""
    service_account: str = ""
    pod: str = ""
    refusal: str = ""


class TokenReviews:
    """Asks the API server, or remembers. Raises `KubeError` where no answer comes."""

    def __init__(
        self,
        api: KubeApi,
        *,
        audience: str,
        clock: Callable[[], float],
        good_seconds: float = 60.0,
        bad_seconds: float = 5.0,
        max_remembered: int = 10_000,
        timeout_seconds: float = 3.0,
        concurrency: int = 50,
    ) -> None:
        self._api = api
        self._audience = audience
        self._clock = clock
        self._good_seconds = good_seconds
        self._bad_seconds = bad_seconds
        self._max_remembered = max_remembered
        self._timeout_seconds = timeout_seconds
        self._room = asyncio.Semaphore(concurrency)
        self._known: OrderedDict[bytes, tuple[float, Reviewed]] = OrderedDict()
        self._counts: Counter[str] = Counter()

    async def review(self, token: str) -> Reviewed:
        """Whose it is."""
        mark = hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
        known = self._known.get(mark)
        if known is not None and self._clock() < known[0]:
            self._counts["remembered"] += 1
            return known[1]
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": [self._audience]},
        }
        async with self._room:
            self._counts["asked"] += 1
            answer = await self._api.request(
                "POST", "/apis/authentication.k8s.io/v1/tokenreviews", body, timeout_seconds=self._timeout_seconds
            )
        found = reviewed(answer, self._audience)
        self._counts["refused" if found.refusal else "good"] += 1
        self._known[mark] = (self._clock() + (self._bad_seconds if found.refusal else self._good_seconds), found)
        self._known.move_to_end(mark)
        while len(self._known) > self._max_remembered:
            self._known.popitem(last=False)
        return found

    def info(self) -> dict[str, Any]:
        """Counts."""
        return {"audience": self._audience, "remembered_tokens": len(self._known), "counts": dict(self._counts)}


def reviewed(answer: Any, audience: str) -> Reviewed:
    """What a TokenReview says. Whatever is not plainly good is a refusal."""
    status = answer.get("status") if isinstance(answer, dict) else None
    if not isinstance(status, dict) or status.get("authenticated") is not True:
        error = status.get("error") if isinstance(status, dict) else None
        return Reviewed(refusal=str(error or "the token is not valid")[:200])
    if audience not in (status.get("audiences") or ()):
        return Reviewed(refusal=f"the token is not for the audience {audience}")
    user = status.get("user") or {}
    name = str(user.get("username") or "")
    namespace, colon, account = name.removeprefix(_SERVICE_ACCOUNT).partition(":")
    pods = [str(pod) for pod in (user.get("extra") or {}).get(POD_NAME) or []]
    if not name.startswith(_SERVICE_ACCOUNT) or not colon:
        return Reviewed(refusal="the token is not a service account's")
    if len(pods) != 1 or not pods[0]:
        return Reviewed(refusal="the token is not bound to a pod: mount a projected one")
    return Reviewed(namespace=namespace, service_account=account, pod=pods[0])
