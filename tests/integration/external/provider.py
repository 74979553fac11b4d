"""A model server of somebody else: speaks OpenAI style over TLS or plain HTTP, keeps what it was sent, answers as told."""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import trustme

# Status, headers, body; None is an ordinary answer.
Answer = tuple[int, dict[str, str], bytes]


@dataclass
class Asked:
    """One request as it came."""

    path: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> list[str]:
        """All values of a header."""
        return [value for key, value in self.headers if key.lower() == name]


@dataclass
class Provider:
    """One server. `answer` decides for each request; `asked` and `names` (of TLS) are what it was sent."""

    text: str
    port: int = 0
    answer: Callable[[Asked], Answer | None] = lambda _: None
    asked: list[Asked] = field(default_factory=list)
    names: list[str | None] = field(default_factory=list)
    delay_seconds: float = 0.0

    @property
    def keys(self) -> list[str]:
        """Who each request said it comes from."""
        return [value for asked in self.asked for value in asked.header("authorization")]

    def says(self, status: int, body: bytes = b"", **headers: str) -> None:
        """From here on this to everybody."""
        given = {"content-type": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()}}
        self.answer = lambda _: (status, given, body)

    def is_well(self) -> None:
        """From here on ordinary answers."""
        self.answer = lambda _: None


def _handler(provider: Provider) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
            pass

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            asked = Asked(self.path, list(self.headers.items()), body)
            provider.asked.append(asked)
            time.sleep(provider.delay_seconds)
            answer = provider.answer(asked)
            if answer is None and json.loads(body).get("stream"):
                self._stream()
                return
            status, headers, content = answer or (200, {"content-type": "application/json"}, _completion(provider.text))
            self._head(status, {**headers, "content-length": str(len(content))})
            self.wfile.write(content)

        def _stream(self) -> None:
            self._head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"})
            for word in [*provider.text.split(), None]:
                event = b"data: [DONE]\n\n" if word is None else b"data: %b\n\n" % _chunk(word)
                self.wfile.write(b"%x\r\n%b\r\n" % (len(event), event))
            self.wfile.write(b"0\r\n\r\n")

        def _head(self, status: int, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in {**headers, "set-cookie": "who=you", "openai-organization": "org-of-ours"}.items():
                self.send_header(name, value)
            self.end_headers()

    return Handler


def _completion(text: str) -> bytes:
    message = {"role": "assistant", "content": text}
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    return json.dumps({"object": "chat.completion", "choices": [{"index": 0, "message": message}], "usage": usage}).encode()


def _chunk(word: str) -> bytes:
    return json.dumps({"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": word}}]}).encode()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(address, handler)
        self.accepted: list[socket.socket] = []

    def get_request(self) -> tuple[socket.socket, object]:
        connection, address = super().get_request()
        self.accepted.append(connection)
        return connection, address

    def cut(self) -> None:
        """Ends what connections there still are, as the end of the process would."""
        for connection in self.accepted:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def serving(provider: Provider, certificate: trustme.LeafCert | None = None) -> Iterator[Provider]:
    """Serves on 127.0.0.1, with TLS if a certificate is given, on the provider's port or any."""
    with _Server(("127.0.0.1", provider.port), _handler(provider)) as server:
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            certificate.configure_cert(context)
            context.sni_callback = lambda _socket, name, _context: provider.names.append(name)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        provider.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield provider
        finally:
            server.shutdown()
            thread.join(5)
            server.cut()
