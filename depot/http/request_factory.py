"""Requests as the front wants them: in a version that it speaks, with what is known of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aiohttp import HttpVersion10, HttpVersion11, web

from depot.http.requests import FOREGONE, OTHER_VERSION


def in_our_version(make: Callable[..., web.BaseRequest]) -> Callable[..., web.BaseRequest]:
    """Have a request of another version answered in HTTP/1.1, and marked so that it is refused.

    `context` begins with the body and the connection, a `DepotConnection`.
    """

    def make_request(message: Any, *context: Any) -> web.BaseRequest:
        if message.version in (HttpVersion10, HttpVersion11):
            request = make(message, *context)
            if foregone := context[1].take_foregone():
                request[FOREGONE] = foregone
            return request
        request = make(message._replace(version=HttpVersion11), *context)
        request[OTHER_VERSION] = f"{message.version.major}.{message.version.minor}"
        return request

    return make_request
