"""What web pages can do here: nothing, whoever looks at them and from where.

There is no login, and whoever can reach the coordinator may change the fleet; but a browser of
somebody who can would do that for any page it shows. Rules kept here (S4):

- A request that a browser makes for a page from elsewhere is refused; following a link is not one.
- A name that is not ours is no name for us: a page can have its own name resolve to any address
  (DNS rebinding), and is then at home here as far as its browser can tell. An address in place of a
  name cannot be pointed elsewhere.
- A body of a type that a plain HTML form can send is no body of any endpoint.

Programs that are no browsers send none of these headers but `Host`, and are not held up.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final, Self

from aiohttp import hdrs, web
from aiohttp.typedefs import Middleware

from coordinator.errors import CrossSite, UnknownHost
from depot.errors import InvalidRequest
from depot.http.requests import header

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

FORM_TYPES: Final = frozenset(
    {"application/x-www-form-urlencoded", "multipart/form-data", "text/plain"}
)
_LOCAL: Final = "localhost"
_SAFE: Final = frozenset({"GET", "HEAD"})
_OWN_SITE: Final = frozenset({"same-origin", "none"})
_HOST: Final = re.compile(
    r"(\[[0-9a-f:.]+(?:%[a-z0-9%._~-]+)?\]|[a-z0-9._-]+)(?::[0-9]{1,5})?", re.ASCII | re.I
)


@dataclass(frozen=True, slots=True)
class OwnNames:
    """What the coordinator may be called in a request's `Host`."""

    names: frozenset[str]

    @classmethod
    def of(cls, listen_host: str, allowed: Iterable[str]) -> Self:
        """The local host, this machine, where it listens, and what the configuration allows."""
        named = (_LOCAL, socket.gethostname(), listen_host, *allowed)
        return cls(frozenset(map(_plain, named)))

    def include(self, host: str) -> bool:
        """Tell whether a `Host`, with or without a port, is ours."""
        match = _HOST.fullmatch(host)
        if match is None:
            return False
        return _is_address(match[1].strip("[]")) or _plain(match[1]) in self.names


def no_strangers(own: OwnNames) -> Middleware:
    """Make the middleware that holds requests to the rules above."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        check_host(header(request, hdrs.HOST), own)
        check_origin(request)
        check_form(request)
        return await handler(request)

    return middleware


def check_host(host: str | None, own: OwnNames) -> None:
    """Raise UnknownHost for a name that is not ours; HTTP/1.0 may say none."""
    if host is not None and not own.include(host):
        raise UnknownHost(
            f"Host: {host[:80]!r} is no name of this coordinator; `allowed_hosts` in its "
            "configuration says which are"
        )


def check_origin(request: web.Request) -> None:
    """Raise CrossSite when a browser says that somebody else's page wants this."""
    origin, site = header(request, hdrs.ORIGIN), header(request, "Sec-Fetch-Site")
    if origin is not None and not _is_own(origin, header(request, hdrs.HOST) or ""):
        raise CrossSite(f"Origin: expected none, or the coordinator's own, found {origin[:80]!r}")
    follows_link = request.method in _SAFE and header(request, "Sec-Fetch-Mode") == "navigate"
    if site is not None and site not in _OWN_SITE and not follows_link:
        raise CrossSite(f"Sec-Fetch-Site: expected same-origin or none, found {site[:80]!r}")


def check_form(request: web.Request) -> None:
    """Raise InvalidRequest for a body that a form could have sent."""
    if hdrs.CONTENT_TYPE in request.headers and request.content_type in FORM_TYPES:
        raise InvalidRequest(
            f"Content-Type: expected that of the endpoint, or none, found {request.content_type!r}"
        )


def _is_own(origin: str, host: str) -> bool:
    # Without the scheme: what ends TLS in front of us is at the same place.
    return origin.partition("://")[2].lower() == host.lower()


def _plain(name: str) -> str:
    return name.lower().removesuffix(".")


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
