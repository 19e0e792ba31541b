"""What web pages can do here: nothing, whoever looks at them and from where.

There is no login, and whoever can reach a server may do what it offers; but a browser of somebody
who can would do that for any page it shows. Rules kept here (S4):

- A request that a browser makes for a page from elsewhere is refused; following a link is not one.
- A name that is not ours is no name for us: a page can have its own name resolve to any address
  (DNS rebinding), and is then at home here as far as its browser can tell. An address in place of a
  name cannot be pointed elsewhere. A server that nobody told its names holds only browsers to them:
  a request that changes something has an `Origin` then, whatever name it is for.
- A POST whose body is of a type that a plain HTML form can send is one to no endpoint.

Programs that are no browsers send none of these headers but `Host`, and are not held up.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address
from typing import Final, Self

from aiohttp import hdrs, web

from depot.errors import CrossSite, InvalidRequest, UnknownHost
from depot.http.requests import header

FORM_TYPES: Final = frozenset(
    {"application/x-www-form-urlencoded", "multipart/form-data", "text/plain"}
)
_LOCAL: Final = "localhost"
_SAFE: Final = frozenset({"GET", "HEAD"})
_OWN_SITE: Final = frozenset({"same-origin", "none"})
_ADDRESS: Final = ""
_MAX_HOST_LENGTH: Final = 300
_HOST: Final = re.compile(
    r"(\[[0-9a-f:.]+(?:%[a-z0-9%._~-]+)?\]|[a-z0-9_][a-z0-9._-]*)(?::[0-9]{1,5})?", re.ASCII | re.I
)


@dataclass(frozen=True, slots=True)
class OwnNames:
    """What a server may be called in a request's `Host`.

    Attributes:
        names: without ports.
        for_all: programs are held to them as browsers are.
    """

    names: frozenset[str]
    for_all: bool

    @classmethod
    def of(cls, allowed: Iterable[str] | None, *others: str) -> Self:
        """The local host, this machine, `others`, and what the configuration allows.

        With None it says nothing of names, and programs may use any.
        """
        named = (_LOCAL, socket.gethostname(), *others, *(allowed or ()))
        return cls(frozenset(map(_plain, named)), allowed is not None)

    def include(self, host: str) -> bool:
        """Tell whether a `Host`, with or without a port, is ours."""
        if len(host) > _MAX_HOST_LENGTH:
            return False
        name = _name_in(host)
        return name == _ADDRESS or name in self.names

    def serve_programs_at(self, host: str) -> bool:
        """Tell whether a request that is no browser's may be for this `Host`."""
        return not self.for_all or self.include(host)


def refuse_strangers(request: web.Request, own: OwnNames) -> None:
    """Hold a request to the rules above.

    Raises:
        UnknownHost: it is for a name that is not ours.
        CrossSite: a browser says that somebody else's page wants this.
        InvalidRequest: its body is one that a form could have sent.
    """
    host, origin = header(request, hdrs.HOST), header(request, hdrs.ORIGIN)
    _check_host(host, own, by_browser=origin is not None)
    if origin is not None and not _is_own(origin, host or ""):
        raise CrossSite(f"Origin: expected none, or this server's own, found {origin[:80]!r}")
    _check_site(request)
    if request.method == hdrs.METH_POST:
        _check_form(request)


def _check_host(host: str | None, own: OwnNames, *, by_browser: bool) -> None:
    if host is None:  # HTTP/1.0 may say none
        return
    if own.include(host) if by_browser else own.serve_programs_at(host):
        return
    raise UnknownHost(
        f"Host: {host[:80]!r} is no name of this server; `allowed_hosts` in its configuration says "
        "which are"
    )


def _check_site(request: web.Request) -> None:
    site = header(request, "Sec-Fetch-Site")
    if site is None or site in _OWN_SITE:
        return
    if request.method in _SAFE and header(request, "Sec-Fetch-Mode") == "navigate":
        return  # a link was followed
    raise CrossSite(f"Sec-Fetch-Site: expected same-origin or none, found {site[:80]!r}")


def _check_form(request: web.Request) -> None:
    if hdrs.CONTENT_TYPE in request.headers and request.content_type in FORM_TYPES:
        raise InvalidRequest(
            f"Content-Type: expected that of the endpoint, or none, found {request.content_type!r}"
        )


def _is_own(origin: str, host: str) -> bool:
    # Without the scheme: what ends TLS in front of us is at the same place.
    place = origin.partition("://")[2].lower()
    return bool(place) and place == host.lower()


@lru_cache(maxsize=256)  # a client says the same one again and again
def _name_in(host: str) -> str | None:
    """The name in a `Host`; `_ADDRESS` in place of an address; None: it is neither."""
    match = _HOST.fullmatch(host)
    if match is None:
        return None
    return _ADDRESS if _is_address(match[1].strip("[]")) else _plain(match[1])


def _plain(name: str) -> str:
    return name.lower().removesuffix(".")


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
