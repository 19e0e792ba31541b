"""Query strings: exactly the parameters that an endpoint documents, each at most once.

A parameter that is ignored is a mistake nobody notices: `?generatoin=3` must not pass.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import replace
from typing import Final

from aiohttp import web
from multidict import MultiMapping

from depot.errors import InvalidRequest
from depot.http.openapi import Endpoint, Handler, Parameter

_DIGITS: Final = re.compile(r"[0-9]{1,19}", re.ASCII)


def strict_about_queries(endpoint: Endpoint) -> Endpoint:
    """The endpoint with its query checked against its own documentation before its handler runs."""
    parameters = [each for each in endpoint.parameters if each.where == "query"]
    handler: Handler = endpoint.handler

    async def check_first(request: web.Request) -> web.StreamResponse:
        check_query(request.query, parameters)
        return await handler(request)

    return replace(endpoint, handler=check_first)


def check_query(query: MultiMapping[str], parameters: Collection[Parameter]) -> None:
    """Raise InvalidRequest for a parameter that is unknown, repeated, or required and missing."""
    known = {each.name for each in parameters}
    for name in query:
        if name not in known:
            documented = ", ".join(sorted(known)) or "none"
            raise InvalidRequest(
                f"{name[:40]!r} is not a query parameter here; known: {documented}"
            )
    for each in parameters:
        found = len(query.getall(each.name, []))
        if found > 1 or (each.required and found == 0):
            raise InvalidRequest(
                f"{each.name}: expected it once in the query, found it {found} times"
            )


def number(query: MultiMapping[str], name: str, *, default: int, most: int, least: int = 0) -> int:
    """A whole number in ASCII digits, or `default` when it is not there.

    Raises:
        InvalidRequest: anything else, or outside `least` .. `most`.
    """
    text = query.get(name)
    if text is None:
        return default
    value = int(text) if _DIGITS.fullmatch(text) else -1
    if not least <= value <= most:
        raise InvalidRequest(f"{name}: expected an integer {least} .. {most}, found {text[:40]!r}")
    return value


def switch(query: MultiMapping[str], name: str) -> bool:
    """`true` or `false`; off when it is not there.

    Raises:
        InvalidRequest: anything else.
    """
    text = query.get(name, "false")
    if text not in ("true", "false"):
        raise InvalidRequest(f"{name}: expected true or false, found {text[:40]!r}")
    return text == "true"
