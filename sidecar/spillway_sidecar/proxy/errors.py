"""What a client is told when a request does not succeed: an HTTP status and an OpenAI-shaped body, never anybody else's text."""

from __future__ import annotations

import enum
from http import HTTPStatus

import msgspec

from spillway_wire.names import HEADER_REASON


class Outcome(enum.StrEnum):
    """How a request ended: low cardinality, for metrics, logs and `x-spillway-reason`."""

    __hash__ = str.__hash__  # the one of Enum is written in Python, and each request is counted under its outcome

    OK = "ok"
    UPSTREAM_ERROR = "upstream_error"  # the engine answered with an error and that is what the client got
    INTERRUPTED = "interrupted"  # the body broke off after its first byte
    CLIENT_GONE = "client_gone"
    BAD_REQUEST = "bad_request"
    NOT_FOUND = "not_found"
    MODEL_NOT_FOUND = "model_not_found"
    NO_RULE = "no_rule"
    UNSUPPORTED = "unsupported"
    METHOD = "method_not_allowed"
    TOO_LARGE = "too_large"
    ENCODING = "unsupported_encoding"
    SLOW_CLIENT = "slow_client"
    OVERLOADED = "overloaded"  # every place that could take it is full, and it was not let into the queue
    EVICTED = "evicted"  # it waited for room, and gave way to another
    QUEUE_TIMEOUT = "queue_timeout"  # it waited for room as long as it may
    COLD_START_TIMEOUT = "cold_start_timeout"  # it waited for a first replica as long as it may
    NO_ENDPOINT = "no_endpoint"  # nothing there that could take it
    CONNECT = "connect_failed"
    CONNECT_TIMEOUT = "connect_timeout"
    TLS = "tls_failed"  # no TLS with this server, or a certificate that is not to be trusted
    KEY_REFUSED = "key_refused"  # an external server does not take our key
    RESET = "upstream_reset"
    PROTOCOL = "upstream_protocol"
    ADMISSION_TIMEOUT = "admission_timeout"
    FIRST_TOKEN_TIMEOUT = "first_token_timeout"  # noqa: S105 - a model's token
    SILENT = "endpoint_silent"  # the first token is overdue there, while other endpoints answer
    STREAM_IDLE_TIMEOUT = "stream_idle_timeout"
    REQUEST_TIMEOUT = "request_timeout"
    SECRET_MISSING = "secret_missing"  # noqa: S105 - a reason, not a secret
    DRAINING = "draining"
    PROXY_OVERLOADED = "proxy_overloaded"  # the proxy itself has more to do than it can
    TOO_MANY_CONNECTIONS = "too_many_connections"
    INTERNAL = "internal_error"  # a defect of ours


class Refusal(Exception):
    """A request that gets an error for an answer. `close`: the connection's framing cannot be trusted after it."""

    def __init__(
        self,
        status: int,
        outcome: Outcome,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        close: bool = False,
        retry_after: int | None = None,
        allow: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.outcome = outcome
        self.message = message
        self.param = param
        self.code = code
        self.close = close
        self.retry_after = retry_after
        self.allow = allow


def malformed(message: str) -> Refusal:
    """400 for a request whose framing we do not accept; the connection closes."""
    return Refusal(400, Outcome.BAD_REQUEST, message, code="malformed_request", close=True)


_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "invalid_request_error",
    429: "rate_limit_error",
}


def error_body(status: int, message: str, code: str | None, param: str | None = None) -> bytes:
    """`{"error": {"message", "type", "param", "code"}}`."""
    kind = _TYPES.get(status) or ("invalid_request_error" if status < 500 else "server_error")
    return msgspec.json.encode({"error": {"message": message, "type": kind, "param": param, "code": code}})


def error_response(refusal: Refusal, request_id: bytes, *, close: bool, extra: bytes = b"") -> bytes:
    """The whole answer, head and body. `extra` holds further header lines, each with its CRLF."""
    body = error_body(refusal.status, refusal.message, refusal.code or refusal.outcome.value, refusal.param)
    lines = [
        b"HTTP/1.1 %d %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n"
        % (refusal.status, HTTPStatus(refusal.status).phrase.encode(), len(body)),
        b"%s: %s\r\n" % (HEADER_REASON.encode(), refusal.outcome.encode()),
    ]
    if request_id:
        lines.append(b"x-request-id: %s\r\n" % request_id)
    if refusal.retry_after is not None:
        lines.append(b"retry-after: %d\r\n" % refusal.retry_after)
    if refusal.allow:
        lines.append(b"allow: %s\r\n" % refusal.allow.encode())
    if close:
        lines.append(b"connection: close\r\n")
    return b"".join([*lines, extra, b"\r\n", body])


def error_event(refusal: Refusal) -> bytes:
    """The last event of a stream that is refused after its head has gone out: what the answer would have said."""
    error = msgspec.json.decode(error_body(refusal.status, refusal.message, refusal.code or refusal.outcome.value))["error"]
    return b"data: " + msgspec.json.encode({"error": {**error, "reason": refusal.outcome.value}}) + b"\n\n"


def upstream_error_event(body: bytes) -> bytes:
    """The same, of what an engine says in the body of an error; ours where that is nothing to pass on."""
    try:
        said = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        said = None
    if not isinstance(said, dict) or "error" not in said:
        return error_event(Refusal(502, Outcome.UPSTREAM_ERROR, "The model's server refused the request.", code="upstream_error"))
    return b"data: " + msgspec.json.encode(said) + b"\n\n"


def interrupted_event(outcome: Outcome) -> bytes:
    """The last event of a stream that broke off: an error, and no `[DONE]`."""
    error = {
        "message": "The stream was interrupted before it was complete.",
        "type": "server_error",
        "param": None,
        "code": "stream_interrupted",
        "reason": outcome.value,
    }
    return b"data: " + msgspec.json.encode({"error": error}) + b"\n\n"
