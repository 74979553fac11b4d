"""What thirty lines of aiohttp do: the proxy one writes first. `python -m bench.baseline PORT URL...`"""

import itertools
import sys

import aiohttp
import uvloop
from aiohttp import web

PORT, *TARGETS = sys.argv[1:]
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "host"}
targets = itertools.cycle(TARGETS)


async def relay(request: web.Request) -> web.StreamResponse:
    headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP_BY_HOP}
    body = await request.read()
    async with request.app["client"].request(
        request.method, next(targets) + request.path_qs, data=body, headers=headers
    ) as upstream:
        kept = {name: value for name, value in upstream.headers.items() if name.lower() not in HOP_BY_HOP}
        if "content-length" in upstream.headers:
            return web.Response(status=upstream.status, headers=kept, body=await upstream.read())
        response = web.StreamResponse(status=upstream.status, headers=kept)
        await response.prepare(request)
        async for chunk in upstream.content.iter_any():
            await response.write(chunk)
        return response


async def application() -> web.Application:
    app = web.Application(client_max_size=64 << 20)
    app["client"] = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), auto_decompress=False)
    app.router.add_route("*", "/{path:.*}", relay)
    return app


uvloop.install()
web.run_app(application(), host="127.0.0.1", port=int(PORT), access_log=None, print=None, backlog=4096)
