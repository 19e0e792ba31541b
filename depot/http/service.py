"""An app made of an endpoint table, and a listening server for it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

from aiohttp import web

from depot.http.activity import Activity
from depot.http.limits import HttpLimits
from depot.http.middleware import add_request_id, defer_continue, front, unknown_path
from depot.http.openapi import Endpoint, openapi_document
from depot.http.problems import JSON_TYPE
from depot.http.requests import LIMITS
from depot.http.versions import ApiInfo

ACTIVITY: Final = web.AppKey("activity", Activity)


def make_app(
    endpoints: Sequence[Endpoint], *, api: ApiInfo, limits: HttpLimits | None = None
) -> web.Application:
    """Make the app that serves `endpoints` and, at /openapi.json, their description."""
    activity = Activity()
    app = web.Application(middlewares=[front(api, activity)])
    app[ACTIVITY] = activity
    app[LIMITS] = limits or HttpLimits()
    app.on_response_prepare.append(add_request_id)
    table = with_description(endpoints, api)
    routed = {(endpoint.method, endpoint.path) for endpoint in table}
    for endpoint in table:
        _add_route(app, endpoint.method, endpoint)
        if endpoint.method == "GET" and ("HEAD", endpoint.path) not in routed:
            _add_route(app, "HEAD", endpoint)
    app.router.add_route("*", "/{tail:(?s:.*)}", unknown_path, expect_handler=defer_continue)
    return app


def with_description(endpoints: Sequence[Endpoint], api: ApiInfo) -> tuple[Endpoint, ...]:
    """The table with a row for the document that describes it."""

    async def describe(_: web.Request) -> web.Response:
        return web.Response(body=document, content_type=JSON_TYPE)

    own = Endpoint(
        method="GET",
        path="/openapi.json",
        operation_id="api_description",
        handler=describe,
        summary="This document.",
        response=JSON_TYPE,
    )
    table = (*endpoints, own)
    document = json.dumps(openapi_document(table, api)).encode()
    return table


def _add_route(app: web.Application, method: str, endpoint: Endpoint) -> None:
    app.router.add_route(method, endpoint.path, endpoint.handler, expect_handler=defer_continue)
