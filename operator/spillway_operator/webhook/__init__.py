"""The mutating webhook: what the API server asks when a labelled pod is made."""

from __future__ import annotations

from spillway_operator.webhook.backends import backends_of
from spillway_operator.webhook.server import WebhookServer
from spillway_operator.webhook.source import InjectionSource

__all__ = ["InjectionSource", "WebhookServer", "backends_of"]
