"""A small real reverse proxy, and one more web process of a controller behind it."""

from __future__ import annotations

import asyncio
import socket
import threading
from contextlib import contextmanager

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.responses import StreamingResponse
from starlette.routing import Route

from controller.api.stream import Announcer
from controller.app import build_app

from .everything import open_services

HOST = "127.0.0.1"
NOT_PASSED_ON = {"transfer-encoding", "content-length", "connection", "host"}


def _proxy(client, prefix, keeps):
    """Passes on what is below `prefix`, with it or without it."""

    async def pass_on(request):
        path = request.url.path
        if not path.startswith(f"{prefix}/"):
            return StreamingResponse(iter([b"not below the prefix"]), 404)
        path = path if keeps else path.removeprefix(prefix)
        headers = [pair for pair in request.headers.items() if pair[0] not in NOT_PASSED_ON]
        asked = client.build_request(
            request.method,
            f"{path}?{request.url.query}",
            headers=headers,
            content=await request.body(),
        )
        answer = await client.send(asked, stream=True)
        headers = {k: v for k, v in answer.headers.items() if k not in NOT_PASSED_ON}
        closing = BackgroundTask(answer.aclose)
        return StreamingResponse(
            answer.aiter_raw(), answer.status_code, headers, background=closing
        )

    return Starlette(routes=[Route("/{path:path}", pass_on, methods=["GET", "POST"])])


def _server(app):
    listening = socket.create_server((HOST, 0))
    config = uvicorn.Config(app, log_level="warning", lifespan="off", timeout_graceful_shutdown=1)
    return uvicorn.Server(config), listening


@contextmanager
def second_process(config, prefix, *, keeps):
    """Serve a controller's database once more, below `prefix`; yields the proxy's address."""
    services = open_services(config, root_path=prefix)
    services.announcer = announcer = Announcer(services)
    server, listening = _server(build_app(services))
    upstream = f"http://{HOST}:{listening.getsockname()[1]}"
    client = httpx.AsyncClient(base_url=upstream, timeout=None)
    proxy, outside = _server(_proxy(client, prefix, keeps))

    async def run():
        watching = asyncio.create_task(announcer.run())
        async with client:
            await asyncio.gather(server.serve([listening]), proxy.serve([outside]))
        watching.cancel()

    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    try:
        yield f"http://{HOST}:{outside.getsockname()[1]}"
    finally:
        services.stopping.set()
        server.should_exit = proxy.should_exit = True
        thread.join(20)
        services.engine.dispose()
