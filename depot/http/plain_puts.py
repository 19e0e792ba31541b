"""What a plain put looks like, byte for byte; see `depot.http.plain_requests`."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, NamedTuple

from depot.artifact import Generation
from depot.errors import ApiVersion, InvalidRequest
from depot.http.browsers import OwnNames
from depot.http.plain_requests import HARMLESS, REMEMBERED, goes_on, plain_headers

_QUERY: Final = re.compile(rb"\?generation=(0|[1-9][0-9]{0,18})(?= )")
_LENGTH: Final = re.compile(r"[1-9][0-9]{0,5}")
# A body's type says nothing about an artifact.
_HEADERS: Final = HARMLESS | {"content-length", "content-type"}


class PlainPut(NamedTuple):
    """What the head of a plain put says, beside the artifact's name."""

    generation: Generation
    length_bytes: int


class PlainPuts:
    """Judges what follows the path of a PUT of an artifact, up to the end of its head.

    Args:
        check_version: raises ApiVersion for an `api-version` that is not supported.
        own: the names of the server.
    """

    def __init__(self, check_version: Callable[[str | None], None], own: OwnNames) -> None:
        self._check_version = check_version
        self._own = own
        self._judged: dict[bytes, PlainPut | None] = {}

    def __len__(self) -> int:
        """How many heads are remembered."""
        return len(self._judged)

    def judge(self, rest: bytes) -> PlainPut | None:
        """What it says; None when it is not plain."""
        if rest in self._judged:
            return self._judged[rest]
        if len(self._judged) >= REMEMBERED:
            self._judged.clear()
        found = self._judged[rest] = self._read(rest)
        return found

    def _read(self, rest: bytes) -> PlainPut | None:
        query = _QUERY.match(rest)
        headers = plain_headers(rest[query.end() :], _HEADERS) if query else None
        if query is None or headers is None or not goes_on(headers, self._own):
            return None
        length = headers.get("content-length", "")
        if not _LENGTH.fullmatch(length):
            return None
        try:
            self._check_version(headers.get("api-version"))
            return PlainPut(Generation.parse(query[1].decode()), int(length))
        except (ApiVersion, InvalidRequest):
            return None
