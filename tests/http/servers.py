"""Real servers on port 0."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from aiohttp import web, web_app

from depot.http.limits import HttpLimits
from depot.http.openapi import Endpoint
from depot.http.service import HttpService, make_app
from depot.http.versions import ApiInfo

API = ApiInfo(
    title="test", description="test", version="1.0.0", oldest=(1, 0, 0), newest=(48, 0, 0)
)


@asynccontextmanager
async def serve(
    app: web.Application, limits: HttpLimits | None = None
) -> AsyncIterator[HttpService]:
    """Serve `app`; a test that ends cuts what still runs."""
    service = HttpService(app, limits=limits or HttpLimits(), name="test")
    await service.start("127.0.0.1", 0)
    try:
        yield service
    finally:
        await service.stop(0.001)


@asynccontextmanager
async def serve_endpoints(
    endpoints: Sequence[Endpoint], limits: HttpLimits | None = None
) -> AsyncIterator[HttpService]:
    async with serve(make_app(endpoints, api=API, limits=limits), limits) as service:
        yield service


def forget_ended() -> None:
    """Have the HTTP library forget the servers that have ended.

    Its cache keeps the last thousand applications, and with each a whole node: gibibytes.
    """
    for each in vars(web_app).values():
        if hasattr(each, "cache_clear"):
            each.cache_clear()
