"""Successful answers of handlers: a model as JSON, or nothing."""

from __future__ import annotations

from aiohttp import web
from pydantic import BaseModel

from depot.http.problems import JSON_TYPE


def json_reply(content: BaseModel, status: int = 200) -> web.Response:
    """Answer with `content` as JSON."""
    return web.Response(
        status=status, body=content.model_dump_json().encode(), content_type=JSON_TYPE
    )


def no_content() -> web.Response:
    """Answer 204."""
    return web.Response(status=204)


async def alive(_: web.Request) -> web.Response:
    """Answer 200: whoever can, is alive."""
    return web.Response()
