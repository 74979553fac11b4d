"""One GET against a server that may send anything: a whole, well-formed, bounded answer or `FetchError`."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import pytest

from spillway_sidecar.reporting.fetch import MAX_HEAD_BYTES, Fetched, FetchError, fetch


class Server:
    """Answers each connection with `reply`, then closes, or stays silent and open."""

    def __init__(self) -> None:
        self.reply = b""
        self.close = True
        self.requests: list[bytes] = []
        self.gone = asyncio.Event()
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.requests.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(self.reply)
        if not self.close:
            with contextlib.suppress(ConnectionResetError):
                await reader.read()
            self.gone.set()
        writer.close()

    async def get(self, reply: bytes, *, path: str = "/metrics", max_bytes: int = 100, deadline_seconds: float = 10) -> Fetched:
        self.reply = reply
        return await fetch(self.url + path, deadline_seconds=deadline_seconds, max_bytes=max_bytes)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    fake = Server()
    listener = await asyncio.start_server(fake.serve, "127.0.0.1", 0)
    fake.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    yield fake
    listener.close()
    await listener.wait_closed()


def reply(*headers: str, body: bytes = b"", status: str = "200 OK") -> bytes:
    return "\r\n".join((f"HTTP/1.1 {status}", *headers, "", "")).encode() + body


async def test_the_request_is_plain_and_closes(server: Server) -> None:
    await server.get(reply("content-length: 0"), path="/a?b=c")
    (request,) = server.requests
    host = server.url.removeprefix("http://")
    assert request == f"GET /a?b=c HTTP/1.1\r\nhost: {host}\r\naccept-encoding: identity\r\nconnection: close\r\n\r\n".encode()
    await server.get(reply("content-length: 0"), path="")
    assert server.requests[1].startswith(b"GET / HTTP/1.1\r\n")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (reply("Content-Length: 3", body=b"abc"), Fetched(200, b"abc")),
        (reply("content-length:3 ", body=b"abcdef"), Fetched(200, b"abc")),
        (reply("content-length: 0"), Fetched(200, b"")),
        (reply("content-encoding: identity", "content-length: 1", body=b"a"), Fetched(200, b"a")),
        (reply("content-length: 2", body=b"no", status="503 Loading"), Fetched(503, b"no")),
        (reply("location: /x", "content-length: 0", status="302 Found"), Fetched(302, b"")),
        (reply(status="204 No Content"), Fetched(204, b"")),
        (b"HTTP/1.0 200\r\n\r\na 1\nb 2\n", Fetched(200, b"a 1\nb 2\n")),
        (b"HTTP/1.0 200 OK\r\n\r\na 1\nb 12", Fetched(200, b"a 1\n")),
        (
            reply("transfer-encoding: chunked", body=b"3\r\nabc\r\n0A;x=y\r\n0123456789\r\n0\r\n\r\n"),
            Fetched(200, b"abc0123456789"),
        ),
        (reply(status="103 Early Hints") + reply("content-length: 1", body=b"a"), Fetched(200, b"a")),
    ],
)
async def test_answers_that_are_whole(server: Server, answer: bytes, expected: Fetched) -> None:
    assert await server.get(answer) == expected


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"hello\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 999 x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n",
        reply(status="100 Continue") * 4 + reply("content-length: 0"),
        reply("no colon"),
        reply("a : b"),
        reply("content-length: 3", body=b"ab"),
        reply("content-length: -1"),
        reply("content-length: +1", body=b"a"),
        reply("content-length: 1", "content-length: 1", body=b"a"),
        reply("content-length: 101", body=b"a" * 101),
        reply("content-length: 1", "transfer-encoding: chunked", body=b"1\r\na\r\n0\r\n\r\n"),
        reply("transfer-encoding: gzip, chunked", body=b"1\r\na\r\n0\r\n\r\n"),
        reply("content-encoding: gzip", "content-length: 1", body=b"a"),
        reply("transfer-encoding: chunked", body=b"x\r\n"),
        reply("transfer-encoding: chunked", body=b"1\r\nabc\r\n0\r\n\r\n"),
        reply("transfer-encoding: chunked", body=b"5\r\nabc"),
        reply("transfer-encoding: chunked", body=b"60\r\n" + b"a" * 96 + b"\r\n60\r\n" + b"a" * 96 + b"\r\n0\r\n\r\n"),
        reply("transfer-encoding: chunked", body=b"fffffffff\r\n"),
        reply(body=b"a\n" * 51),
        reply("x: " + "y" * MAX_HEAD_BYTES, "content-length: 0"),
    ],
)
async def test_answers_that_are_not(server: Server, answer: bytes) -> None:
    with pytest.raises(FetchError):
        await server.get(answer)


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab", b"HTTP/1.1 200 OK\r\n\r\na 1\n"])
async def test_a_server_that_stops_talking_is_left_at_the_deadline(server: Server, sent: bytes) -> None:
    server.close = False
    with pytest.raises(FetchError, match=r"no whole answer within 0\.05 s"):
        await server.get(sent, deadline_seconds=0.05)
    await asyncio.wait_for(server.gone.wait(), 10)


async def test_nobody_there(unused_tcp_port_factory: Callable[[], int]) -> None:
    with pytest.raises(FetchError, match="ConnectionRefusedError"):
        await fetch(f"http://127.0.0.1:{unused_tcp_port_factory()}/", deadline_seconds=10, max_bytes=1)


@pytest.mark.parametrize(
    "url", ["https://127.0.0.1/", "127.0.0.1:80", "http:///x", "http://[::1", "http://h:99999/", "http://127.0.0.1/é"]
)
async def test_urls_that_are_not_asked(url: str) -> None:
    with pytest.raises(FetchError):
        await fetch(url, deadline_seconds=10, max_bytes=1)


async def test_a_cancelled_request_closes_its_connection(server: Server) -> None:
    server.close = False
    task = asyncio.create_task(server.get(b""))
    async with asyncio.timeout(10):
        while not server.requests:  # noqa: ASYNC110 - the request is what is waited for
            await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(server.gone.wait(), 10)
