"""Reading admin pages: GET of a loopback HTTP address, without an HTTP library, so that commands start fast.

A request is HTTP/1.0, so the reply is a head and a body up to the end of the connection. `get_json` waits, `fetch` awaits.
"""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any
from urllib.parse import quote, urlsplit

DEFAULT_OPERATOR_URL = "http://127.0.0.1:8081"
DEFAULT_GATEWAY_URL = "http://127.0.0.1:8082"
TIMEOUT_SECONDS = 5.0
_MAX_BYTES = 256 * 1024 * 1024


class AdminError(Exception):
    """The page could not be read; the text says to a person why, and what to do."""


class NotThereError(AdminError):
    """The page answers 404."""


def get_json(url: str, path: str, *, part: str = "operator", timeout_seconds: float = TIMEOUT_SECONDS) -> Any:
    """The JSON at `path` below the admin address `url` of a `part` (named in errors). Raises `AdminError`."""
    host, port = _address(url)
    chunks: list[bytes] = []
    try:
        with socket.create_connection((host, port), timeout=timeout_seconds) as connection:
            connection.sendall(_request(host, path))
            while data := connection.recv(1 << 20):
                chunks.append(data)
    except ConnectionRefusedError:
        raise AdminError(f"no {part} at {url}; is `spillway run` running?") from None
    except TimeoutError:
        raise AdminError(f"the {part} at {url} did not answer within {timeout_seconds:g} s") from None
    except OSError as error:
        raise AdminError(f"cannot reach the {part} at {url}: {error.strerror or error}") from None
    status, body = _parse(b"".join(chunks))
    if status == 404:
        raise NotThereError(f"nothing at {url}{path}")
    if status != 200:
        raise AdminError(f"{url}{path} answered {status}")
    try:
        return json.loads(body)
    except ValueError:
        raise AdminError(f"{url}{path} answered no JSON; is that the {part}'s admin address?") from None


async def fetch(url: str, path: str, *, timeout_seconds: float = TIMEOUT_SECONDS) -> tuple[int, bytes]:
    """Status and body of a page. Raises `OSError` (also for a time-out) if there is no whole answer."""
    host, port = _address(url)
    async with asyncio.timeout(timeout_seconds):
        reader, writer = await asyncio.open_connection(host, port)
        try:
            writer.write(_request(host, path))
            status, body = _parse(await reader.read(_MAX_BYTES))
            while data := await reader.read(_MAX_BYTES):
                body += data
        finally:
            writer.close()
    if not status:
        raise ConnectionError(f"no answer from {url}{path}")
    return status, body


def escaped(part: str) -> str:
    """One segment of a path."""
    return quote(part, safe="")


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url if "://" in url else f"http://{url}")
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if parts.scheme != "http" or not host:
        raise AdminError(f"{url!r} is not an admin address, e.g. {DEFAULT_OPERATOR_URL}")
    return host, port or 80


def _request(host: str, path: str) -> bytes:
    return f"GET {path} HTTP/1.0\r\nHost: {host}\r\nAccept: application/json\r\n\r\n".encode("ascii", "replace")


def _parse(data: bytes) -> tuple[int, bytes]:
    """Status and body; status 0 if it is no HTTP answer."""
    head, _, body = data.partition(b"\r\n\r\n")
    parts = head.split(b" ", 2)
    status = int(parts[1]) if len(parts) > 1 and parts[0].startswith(b"HTTP/1.") and parts[1].isdigit() else 0
    return status, body
