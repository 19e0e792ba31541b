"""Answers to plain requests for small artifacts, made from the bytes of the request alone.

Rules kept here:
- What is answered here would have been answered by the plain path, at this moment, with the same
  status, headers and body; but for the date and the request's id, byte for byte. Whatever is not
  certain is not answered: the plain path gets the request as it came.
- Nothing waits and no device is touched.
- What the plain path counts is counted.
"""

from __future__ import annotations

import os
import time
from email.utils import formatdate
from typing import Final, Protocol

from aiohttp import web

from depot.artifact import ArtifactHash
from depot.budget import Budget
from depot.http.activity import Activity
from depot.http.hot_artifacts import HotArtifacts
from depot.http.middleware import SERVER_NAME
from depot.http.plain_requests import MAX_HEAD_BYTES, PlainRequests
from depot.http.problems import REQUEST_ID_HEADER

PATH: Final = "/artifact/sha256/"
_LINE: Final = f"GET {PATH}".encode()
_NAME_START: Final = len(_LINE)
_NAME_END: Final = _NAME_START + 64
_ID_CHARACTERS: Final = 32
_IDS_AT_ONCE: Final = 256


class GoodCopies(Protocol):
    """What of a store's holdings the fast path asks; see `depot.holdings`."""

    @property
    def revision(self) -> int:
        """As long as this stays the same, so does every answer of `has`."""

    def has(self, artifact: ArtifactHash, size_bytes: int, /) -> bool:
        """Tell whether there is a good copy, and every good copy has this size."""


class FastPath:
    """The answers of one server.

    Args:
        budget: what all answers together may send; None: no limit.

    Attributes:
        answers: how many were given.
        body_bytes: how long their bodies were together.
    """

    def __init__(
        self,
        hot: HotArtifacts,
        copies: GoodCopies,
        plain: PlainRequests,
        activity: Activity,
        budget: Budget | None = None,
    ) -> None:
        self.answers = 0
        self.body_bytes = 0
        self._hot = hot
        self._copies = copies
        self._plain = plain
        self._activity = activity
        self._budget = budget or Budget()
        self._dates = _DateLines()
        self._ids = _RequestIds()

    def answer(self, request: bytes) -> bytes | None:
        """The answer to what a client has sent, if that is one plain request; None: not here."""
        if not request.startswith(_LINE) or len(request) > MAX_HEAD_BYTES:
            return None
        hot = self._hot.find(request[_NAME_START:_NAME_END])
        if hot is None or self._activity.draining:
            return None
        if self._plain.most_bytes(request[_NAME_END:]) < len(hot.content):
            return None
        revision = self._copies.revision
        if hot.found_at != revision:
            if not self._copies.has(hot.artifact, len(hot.content)):
                self._hot.drop(hot.artifact)
                return None
            hot.found_at = revision
        if not self._budget.pay_now(len(hot.content)):
            return None
        self.answers += 1
        self.body_bytes += len(hot.content)
        return b"".join((hot.head, self._dates.now(), self._ids.next(), b"\r\n\r\n", hot.content))


FAST_PATH: Final = web.AppKey("fast_path", FastPath)


class _DateLines:
    """The lines that begin what differs from answer to answer, made once in a second."""

    def __init__(self) -> None:
        self._second = 0
        self._lines = b""

    def now(self) -> bytes:
        second = int(time.time())
        if second != self._second:
            self._second = second
            date = formatdate(second, usegmt=True)
            lines = f"Date: {date}\r\nServer: {SERVER_NAME}\r\n{REQUEST_ID_HEADER}: "
            self._lines = lines.encode()
        return self._lines


class _RequestIds:
    """Random ids; asking the system for each would take longer than the rest of an answer."""

    def __init__(self) -> None:
        self._ids: list[bytes] = []

    def next(self) -> bytes:
        if not self._ids:
            digits = os.urandom(_IDS_AT_ONCE * _ID_CHARACTERS // 2).hex().encode()
            self._ids = [
                digits[start : start + _ID_CHARACTERS]
                for start in range(0, len(digits), _ID_CHARACTERS)
            ]
        return self._ids.pop()
