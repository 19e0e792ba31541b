"""What differs from answer to answer that is made without the HTTP library, each made ahead."""

from __future__ import annotations

import os
import time
from email.utils import formatdate
from typing import Final

from depot.http.middleware import SERVER_NAME
from depot.http.problems import REQUEST_ID_HEADER

_ID_CHARACTERS: Final = 32
_IDS_AT_ONCE: Final = 256


class DateLines:
    """The lines that begin what differs from answer to answer, made once in a second."""

    def __init__(self) -> None:
        self._second = 0
        self._lines = b""

    def now(self) -> bytes:
        """From `Date` up to the name of the request's id."""
        second = int(time.time())
        if second != self._second:
            self._second = second
            date = formatdate(second, usegmt=True)
            lines = f"Date: {date}\r\nServer: {SERVER_NAME}\r\n{REQUEST_ID_HEADER}: "
            self._lines = lines.encode()
        return self._lines


class RequestIds:
    """Random ids; asking the system for each would take longer than the rest of an answer."""

    def __init__(self) -> None:
        self._ids: list[bytes] = []

    def next(self) -> bytes:
        """An id that no other request has."""
        if not self._ids:
            digits = os.urandom(_IDS_AT_ONCE * _ID_CHARACTERS // 2).hex().encode()
            self._ids = [
                digits[start : start + _ID_CHARACTERS]
                for start in range(0, len(digits), _ID_CHARACTERS)
            ]
        return self._ids.pop()
