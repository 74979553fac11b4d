"""What routing needs to know of a request, read in one typed pass over its body."""

from __future__ import annotations

from typing import Final

import msgspec

from spillway_sidecar.routing.bodies import decode_body
from spillway_sidecar.scheduling.request import Request
from spillway_wire.names import RequestType

BYTES_PER_TOKEN: Final = 4  # the usual rule of thumb for English text in a byte-pair encoding
MAX_MODEL_LENGTH: Final = 256
TOO_DEEP: Final = "The request body is nested too deeply."

PATHS: Final[dict[bytes, RequestType]] = {
    b"/v1/chat/completions": RequestType.CHAT,
    b"/v1/completions": RequestType.COMPLETIONS,
    b"/v1/embeddings": RequestType.EMBEDDINGS,
}


class Facts(Request):
    """A classified request. `prompt_tokens` is an estimate from the body's size."""

    __slots__ = ("model", "stream", "type")

    def __init__(self, type: RequestType, model: str, stream: bool, prompt_tokens: int, prefix: int = 0) -> None:  # noqa: A002
        super().__init__(prompt_tokens, prefix)
        self.type = type
        self.model = model
        self.stream = stream


class BadRequest(Exception):
    """The body cannot be routed. `param` names the field at fault; becomes a 400 `invalid_request_error`."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param


def estimate_tokens(body_bytes: int) -> int:
    """Tokens in a prompt whose request body has that many bytes; at least one."""
    return body_bytes // BYTES_PER_TOKEN or 1


def classify(request_type: RequestType, body: bytes) -> Facts:
    """The facts of a request. Raises `BadRequest` for a body that is no JSON object with a model's name."""
    try:
        fields = decode_body(body)
    except msgspec.ValidationError as error:
        raise _explain(error) from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise BadRequest("The request body is not valid JSON.") from None
    except RecursionError:
        raise BadRequest(TOO_DEEP) from None
    model = fields.model
    if not model or len(model) > MAX_MODEL_LENGTH:
        raise BadRequest(f"'model' must have 1 to {MAX_MODEL_LENGTH} characters.", "model")
    return Facts(request_type, model, fields.stream is True, len(body) // BYTES_PER_TOKEN or 1)


def _explain(error: msgspec.ValidationError) -> BadRequest:
    """Our own words for what msgspec found, so that no parser's text reaches a client."""
    text = str(error)
    if "$.model" in text:
        return BadRequest("'model' must be a string.", "model")
    if "$.stream" in text:
        return BadRequest("'stream' must be true, false or null.", "stream")
    if "missing required field" in text:
        return BadRequest("'model' is missing.", "model")
    return BadRequest("The request body must be a JSON object.")
