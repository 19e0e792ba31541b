"""Where on a connection one request ends and the next begins, as far as that can be told.

The HTTP library's parser says only what it has found. What it has been given tells whether it may
hold a part of another request, too: whoever looks at a request before it does has to be sure that
there is none.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from aiohttp import EMPTY_PAYLOAD, StreamReader, hdrs

HEAD_END: Final = b"\r\n\r\n"


class Boundary:
    """What is known of the requests that one connection's parser was given.

    Attributes:
        content: the newest request's body; None: there was no request.
        length_bytes: what its head says of that; None: nothing.
    """

    __slots__ = ("_left_bytes", "_tail", "content", "length_bytes")

    def __init__(self) -> None:
        self.content: StreamReader | None = None
        self.length_bytes: int | None = None
        self._tail = b""
        # How much of the newest request's body is to come; None: nobody knows.
        self._left_bytes: int | None = None

    def parsed(
        self, data: bytes, found: Collection[tuple[Any, StreamReader]], *, new: bool
    ) -> None:
        """Take note of bytes that were parsed, and of the requests that wait to be answered.

        They are `new` when nothing was left of what came before, and no request was under way.
        """
        if found:
            *_, newest = found
            self._note(*newest)
        if not data:
            return
        self._tail = (self._tail + data)[-len(HEAD_END) :]
        self._left_bytes = self._left_behind(data, alone=len(found) == 1, new=new)

    def _note(self, message: Any, content: StreamReader) -> None:
        self.content = content
        headers = getattr(message, "headers", {})  # what cannot be parsed has none
        length = headers.get(hdrs.CONTENT_LENGTH)
        self.length_bytes = None if length is None else int(length)

    @property
    def is_clean(self) -> bool:
        """Nothing is left of a request: what the parser is given next begins one."""
        if self.content is None:
            return not self._tail
        if self._left_bytes == 0:
            return True
        return self.content is EMPTY_PAYLOAD and self._tail == HEAD_END

    @property
    def next_has_begun(self) -> bool:
        """A part of a head has arrived behind the newest request.

        Only a request without a body ends where its head does; behind one with a body the next head
        is timed from its second part on.
        """
        return self.content is EMPTY_PAYLOAD and self._tail != HEAD_END

    def _left_behind(self, data: bytes, *, alone: bool, new: bool) -> int | None:
        left_bytes = self._left_bytes
        if new:
            left_bytes = self._whole_bytes(data) if alone else None
        if left_bytes is None or left_bytes < len(data):
            return None
        return left_bytes - len(data)

    def _whole_bytes(self, data: bytes) -> int | None:
        """The length of the request that begins with `data`, head and body."""
        head_bytes = data.find(HEAD_END) + len(HEAD_END)
        head = data[:head_bytes]
        # Its head ends there and nowhere else, whatever the parser puts up with.
        if head[:1].isspace() or b"\n" in head.replace(b"\r\n", b""):
            return None
        if self.length_bytes is None or b"transfer-encoding" in head.lower():
            return None
        return head_bytes + self.length_bytes
