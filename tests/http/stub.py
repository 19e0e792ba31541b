"""Endpoints of servers that are not ours."""

from __future__ import annotations

from aiohttp import web

from depot.http.openapi import Endpoint, Handler


def stub(method: str, path: str, handler: Handler) -> Endpoint:
    return Endpoint(method=method, path=path, operation_id="stub", handler=handler, summary="stub")


def refusing(status: int) -> Handler:
    """Answer with a status and nothing else."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=status)

    return answer
