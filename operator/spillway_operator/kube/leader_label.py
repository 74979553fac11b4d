"""The label `spillway.dev/leads` on our own pod, by which a Service leads to the replica that leads.

It is written when it differs from what is so, and again until that works: also at the start, since the pod may still have it from a life
before this one. Through the pod's `status`, which takes labels and leaves the spec alone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final

from spillway_operator.kube.api import KubeApi, KubeError
from spillway_operator.kube.scale import FIELD_MANAGER, MERGE_PATCH

LABEL: Final = "spillway.dev/leads"
LOOK_SECONDS: Final = 0.5

_log = logging.getLogger(__name__)


class LeaderLabel:
    """Keeps the label of one pod."""

    def __init__(self, api: KubeApi, *, namespace: str, pod: str, leads: Callable[[], bool]) -> None:
        self._api = api
        self._path = f"/api/v1/namespaces/{namespace}/pods/{pod}/status"
        self._leads = leads
        self._written: bool | None = None
        self._trouble = ""

    async def run(self) -> None:
        """Keeps it for ever."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Write it if it is not as it should be."""
        leads = self._leads()
        if leads == self._written:
            return
        body = {"metadata": {"labels": {LABEL: "true" if leads else None}}}
        try:
            await self._api.request("PATCH", self._path, body, params={"fieldManager": FIELD_MANAGER}, content_type=MERGE_PATCH)
        except KubeError as error:
            if str(error) != self._trouble:
                self._trouble = str(error)
                _log.warning("leader label: written later: %s", error)
            return
        self._written, self._trouble = leads, ""

    def info(self) -> dict[str, Any]:
        """What was written, and what is in the way."""
        return {"written": self._written, "trouble": self._trouble}
