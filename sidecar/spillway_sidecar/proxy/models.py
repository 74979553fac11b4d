"""`GET /v1/models`: the model names of the routes, in OpenAI's shape."""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

import msgspec

from spillway_sidecar.proxy.errors import Outcome, Refusal

_PREFIX = b"/v1/models"


def models_response(path: bytes, names: tuple[str, ...], request_id: bytes) -> bytes:
    """The whole reply to `/v1/models` or `/v1/models/NAME`. Raises `Refusal` for a name that no route has."""
    body: object
    if len(path) <= len(_PREFIX) + 1:
        body = {"object": "list", "data": [_model(name) for name in names]}
    else:
        name = unquote_to_bytes(path[len(_PREFIX) + 1 :]).decode("utf-8", "replace")
        if name not in names:
            raise Refusal(404, Outcome.MODEL_NOT_FOUND, "This model does not exist here.", param="model", code="model_not_found")
        body = _model(name)
    data = msgspec.json.encode(body)
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\nx-request-id: %b\r\n\r\n%b" % (
        len(data),
        request_id,
        data,
    )


def _model(name: str) -> dict[str, object]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "spillway"}
