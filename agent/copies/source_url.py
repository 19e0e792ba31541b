"""The URL of a depot that a copy may be asked to come from.

Read by one strict grammar, so that no two URL libraries can disagree on what the host is: printable
ASCII, `http` or `https`, a host, an optional port, an optional path prefix; no credentials, no
query, no fragment, no dot segments. Two spellings of the same depot are equal once parsed.

A host whose last label is a number is an IPv4 address, and has to be written as four decimal
numbers: resolvers also take `127.1`, `2130706433` and `0x7f.1`, and nobody who means well does.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final, Self

from yarl import URL

from depot.artifact import ArtifactHash
from depot.errors import BadSource

MAX_URL_LENGTH: Final = 2048
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_URL: Final = re.compile(r"([a-z]+)://([^/?#]*)([^?#]*)(\?[^#]*)?(#.*)?", re.ASCII | re.IGNORECASE)
_HOST_PORT: Final = re.compile(
    r"(?:\[([0-9a-f:.]+(?:%(?:25)?[a-z0-9._~-]+)?)\]|([a-z0-9_.-]+))(?::([0-9]{1,5}))?",
    re.ASCII | re.IGNORECASE,
)
_PATH: Final = re.compile(r"(?:/(?:[a-z0-9._~!$&'()*+,;=:@-]|%[0-9a-f]{2})*)*", re.I | re.A)
_DOT_SEGMENT: Final = re.compile(r"/(?:\.|%2e){1,2}(?=/|$)", re.IGNORECASE)
_ENDS_IN_A_NUMBER: Final = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)\.?", re.IGNORECASE)
_LABEL: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?", re.ASCII)


@dataclass(frozen=True, slots=True)
class SourceUrl:
    """A depot's base URL, normalised.

    Attributes:
        scheme: `http` or `https`.
        host: lower-case name or address; IPv6 without brackets, a scope id after `%`.
        port: always given.
        prefix: path before `/artifact/...`, without a trailing slash; usually empty.
    """

    scheme: str
    host: str
    port: int
    prefix: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a base URL.

        Raises:
            BadSource: anything that is not one; the message names the URL and says why.
        """
        scheme, authority, path = _split(text)
        match = _HOST_PORT.fullmatch(authority)
        if match is None:
            raise _bad(text, "expected a host name or address and an optional port")
        v6, name, port = match.groups()
        return cls(
            scheme=scheme,
            host=_parse_v6(text, v6) if v6 else _parse_name(text, name.lower()),
            port=_parse_port(text, port, scheme),
            prefix=_parse_prefix(text, path),
        )

    @property
    def is_literal(self) -> bool:
        """Whether the host is an address, which no resolver will be asked about."""
        return ":" in self.host or _ENDS_IN_A_NUMBER.fullmatch(self.host) is not None

    @property
    def host_header(self) -> str:
        """The `Host` to send: without a scope id, which means nothing to the peer."""
        host = self.host.partition("%")[0]
        host = f"[{host}]" if ":" in host else host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    def artifact_url(self, sha256: ArtifactHash) -> URL:
        """Where this depot serves `sha256`."""
        return URL(f"{self}/artifact/sha256/{sha256}", encoded=True)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == _DEFAULT_PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{host}{port}{self.prefix}"


def _split(text: str) -> tuple[str, str, str]:
    """Cut into scheme, authority and path; refuse what a base URL does not have."""
    if len(text) > MAX_URL_LENGTH:
        raise _bad(text, f"it has {len(text)} characters, at most {MAX_URL_LENGTH} are read")
    if not all("!" <= character <= "~" for character in text) or "\\" in text:
        raise _bad(text, "it has a space, a backslash or a character outside ASCII")
    match = _URL.fullmatch(text)
    if match is None or match[1].lower() not in _DEFAULT_PORTS:
        raise _bad(text, "expected http://host:port or https://host:port")
    scheme, authority, path, query, fragment = match.groups()
    if "@" in authority:
        raise _bad(_without_credentials(text), "it has credentials")
    if query is not None:
        raise _bad(text, "it has a query")
    if fragment is not None:
        raise _bad(text, "it has a fragment")
    return scheme.lower(), authority, path


def _parse_v6(text: str, host: str) -> str:
    # RFC 6874 writes the scope id's % as %25 inside a URL; people paste it bare.
    address, percent, scope = host.replace("%25", "%", 1).partition("%")
    try:
        # Case matters in the name of an interface, so only the address is normalised.
        return f"{IPv6Address(address)}{percent}{scope}"
    except ValueError:
        raise _bad(text, f"[{host}] is not an IPv6 address") from None


def _parse_name(text: str, host: str) -> str:
    if _ENDS_IN_A_NUMBER.fullmatch(host):
        try:
            return str(IPv4Address(host))
        except ValueError:
            raise _bad(text, f"{host} is not an IPv4 address in its usual form") from None
    labels = host.removesuffix(".").split(".")
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise _bad(text, f"{host[:80]} is not a host name")
    return host


def _parse_port(text: str, port: str | None, scheme: str) -> int:
    if port is None:
        return _DEFAULT_PORTS[scheme]
    if not 1 <= int(port) <= 65535:
        raise _bad(text, f"a port is 1 .. 65535, found {port}")
    return int(port)


def _parse_prefix(text: str, path: str) -> str:
    if not _PATH.fullmatch(path) or _DOT_SEGMENT.search(path):
        raise _bad(text, "its path has a dot segment or a character that must be escaped")
    return path.rstrip("/")


def _without_credentials(text: str) -> str:
    """Hide what stands before the `@`: it may be a secret, and messages end up in logs."""
    return re.sub(r"//.*@", "//***@", text, count=1)


def _bad(text: str, why: str) -> BadSource:
    return BadSource(f"{text[:200]!r} is not a server's base URL: {why}")
