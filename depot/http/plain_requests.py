"""What a plain request looks like, byte for byte: one that nothing but its path decides about.

Rules kept here:
- What is recognised is what the HTTP library would read in the same way: one head and not a byte
  more, each header in one plain form, known to change nothing, and there once. Anything else,
  however right it may be, is left to the library.
- What was found out about a head is remembered, since a client sends the same one again and again;
  for so many heads, and none that is long (S1).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Final

from depot.errors import ApiVersion
from depot.http.browsers import OwnNames
from depot.http.negotiation import Wish, zstd_wish

MAX_HEAD_BYTES: Final = 2048
NOT_PLAIN: Final = -1
REMEMBERED: Final = 256
_VERSION: Final = b" HTTP/1.1\r\n"
_END: Final = b"\r\n\r\n"
_TEXT: Final = rb"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?"
_HEADER: Final = re.compile(rb"([A-Za-z-]{1,32}): (%b)" % _TEXT)
_HOST: Final = re.compile(r"[A-Za-z0-9.:\[\]-]{1,255}")
HARMLESS: Final = frozenset(
    {"host", "user-agent", "accept", "accept-encoding", "accept-language", "connection"}
    | {"api-version"}
)


class PlainRequests:
    """Judges what follows the path of a GET for an artifact.

    Args:
        check_version: raises ApiVersion for an `api-version` that is not supported.
        encoded_from_bytes: size from which an artifact is encoded for whoever wishes that; None:
            none ever is.
        own: the names of the server.
    """

    def __init__(
        self,
        check_version: Callable[[str | None], None],
        encoded_from_bytes: int | None,
        own: OwnNames,
    ) -> None:
        self._check_version = check_version
        self._own = own
        self._encoded_from_bytes = encoded_from_bytes
        self._judged: dict[bytes, int] = {}

    def __len__(self) -> int:
        """How many heads are remembered."""
        return len(self._judged)

    def most_bytes(self, rest: bytes) -> int:
        """The size up to which an artifact, whole and as it is, answers the request.

        `NOT_PLAIN` is less than any size.
        """
        most_bytes = self._judged.get(rest)
        if most_bytes is None:
            most_bytes = self._judge(rest)
            if len(self._judged) >= REMEMBERED:
                self._judged.clear()
            self._judged[rest] = most_bytes
        return most_bytes

    def _judge(self, rest: bytes) -> int:
        headers = plain_headers(rest, HARMLESS)
        if headers is None or not goes_on(headers, self._own):
            return NOT_PLAIN
        try:
            self._check_version(headers.get("api-version"))
        except ApiVersion:
            return NOT_PLAIN
        return self._most_identity_bytes(headers.get("accept-encoding"))

    def _most_identity_bytes(self, accept_encoding: str | None) -> int:
        if self._encoded_from_bytes is None:
            return sys.maxsize
        wish = zstd_wish(accept_encoding)
        if wish is Wish.ZSTD:
            return self._encoded_from_bytes - 1
        return sys.maxsize if wish is Wish.IDENTITY else NOT_PLAIN


def goes_on(headers: Mapping[str, str], own: OwnNames) -> bool:
    """Tell whether they name a host that is ours in the plain form, and keep the connection."""
    keeps = headers.get("connection", "keep-alive").lower() == "keep-alive"
    host = headers.get("host", "")
    return keeps and _HOST.fullmatch(host) is not None and own.serve_programs_at(host)


def plain_headers(rest: bytes, known: Collection[str]) -> dict[str, str] | None:
    """The headers by their lower-case names; None when there are others than the known ones."""
    if not (rest.startswith(_VERSION) and rest.endswith(_END)):
        return None
    headers: dict[str, str] = {}
    for name, value in _lines(rest[len(_VERSION) : -len(_END)]):
        if name not in known or name in headers:
            return None
        headers[name] = value
    return headers


def _lines(block: bytes) -> Iterator[tuple[str, str]]:
    for line in block.split(b"\r\n"):
        match = _HEADER.fullmatch(line)
        # What is no header has a name that none has.
        yield (match[1].decode().lower(), match[2].decode()) if match else ("", "")
