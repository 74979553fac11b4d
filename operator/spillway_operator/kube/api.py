"""One request to the API server and its answer. Every request has a deadline; what fails is one of two errors.

`ApiError`: the server answered with a refusal. `UnreachableError`: no answer came in time, or none that could be read; whether
the request was carried out is not known.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final, NoReturn

import aiohttp
import msgspec

from spillway_operator.kube.access import KubeAccess

APPLY: Final = "application/apply-patch+yaml"  # JSON is YAML
JSON: Final = "application/json"
REQUEST_SECONDS: Final = 5.0
_MAX_MESSAGE: Final = 500


class KubeError(Exception):
    """What any request can end with."""


class ApiError(KubeError):
    """The server refused. `status` is HTTP's, `reason` Kubernetes' constant (NotFound, Conflict, Expired ...)."""

    def __init__(self, status: int, reason: str, message: str, retry_after_seconds: float | None = None) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.retry_after_seconds = retry_after_seconds

    @property
    def passing(self) -> bool:
        """Whether the same request may succeed later without anyone's doing."""
        return self.status in {408, 409, 429} or self.status >= 500


class UnreachableError(KubeError):
    """No answer."""


class KubeApi:
    """Requests in JSON. `start` on the loop that is to use it, `close` at the end."""

    def __init__(self, access: KubeAccess) -> None:
        self._access = access
        self._session: aiohttp.ClientSession | None = None
        self._counts: Counter[str] = Counter()

    async def start(self) -> None:
        """Opens the session."""
        self._session = self._access.session()

    async def close(self) -> None:
        """Closes it."""
        if self._session is not None:
            await self._session.close()

    async def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        params: Mapping[str, str] | None = None,
        content_type: str = JSON,
        timeout_seconds: float = REQUEST_SECONDS,
    ) -> Any:
        """The answer's JSON. Raises `KubeError`."""
        if self._session is None:
            raise UnreachableError("the session is not open")
        self._counts[method] += 1
        try:
            async with asyncio.timeout(timeout_seconds):
                async with self._session.request(
                    method,
                    self._access.server + path,
                    params=params,
                    data=None if body is None else msgspec.json.encode(body),
                    headers={"Content-Type": content_type, "Accept": JSON},
                    allow_redirects=False,
                ) as response:
                    data = await response.read()
                    if response.status >= 300:
                        self._refused(response, data)
            return msgspec.json.decode(data) if data else None
        except (aiohttp.ClientError, TimeoutError, OSError, msgspec.DecodeError) as error:
            self._counts["unreachable"] += 1
            text = str(error) or f"no answer in {timeout_seconds:g} s"
            raise UnreachableError(f"{method} {path}: {type(error).__name__}: {text}"[:_MAX_MESSAGE]) from error

    def _refused(self, response: aiohttp.ClientResponse, data: bytes) -> NoReturn:
        self._counts["refused"] += 1
        reason, message = response.reason or "", data[:_MAX_MESSAGE].decode("utf-8", "replace")
        try:
            status = msgspec.json.decode(data)
            reason, message = str(status.get("reason") or reason), str(status.get("message") or message)
        except (msgspec.DecodeError, AttributeError):
            pass
        retry_after = response.headers.get("Retry-After", "")
        seconds = float(retry_after) if retry_after.isdecimal() else None
        raise ApiError(response.status, reason, message[:_MAX_MESSAGE], seconds)

    def info(self) -> dict[str, Any]:
        """Where, and how many requests by method."""
        return {**self._access.info(), "requests": dict(self._counts)}
