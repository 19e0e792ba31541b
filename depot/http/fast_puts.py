"""Plain puts of small artifacts, past the HTTP library.

Rules kept here:
- What is taken is a put that has come whole, head and body, in one plain form. The store says
  whether it can take it like this; anything else is left to the plain path, as it came.
- A success has the status, headers and body that the plain path gives it; but for the date and the
  request's id, byte for byte. What went wrong is told by the plain path.
- What the plain path counts is counted, as work that runs and as an answer. A put that a server
  which ends does not wait for any longer is refused, whatever becomes of it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from functools import partial
from typing import Final, Protocol

from aiohttp import web

from depot.artifact import ArtifactHash, Generation
from depot.http.activity import Activity
from depot.http.answer_lines import DateLines, RequestIds
from depot.http.plain_puts import PlainPuts
from depot.http.plain_requests import MAX_HEAD_BYTES
from depot.writing.stored import Stored

PATH: Final = "/artifacts/"
_LINE: Final = f"PUT {PATH}".encode()
_NAME_START: Final = len(_LINE)
_NAME_END: Final = _NAME_START + 64
_NAME: Final = re.compile(rb"[0-9a-f]{64}")
_HEAD_END: Final = b"\r\n\r\n"

Tell = Callable[[bytes | Exception | None], None]
"""Is told how a request ended: with its answer, with what went wrong, or not begun with (None)."""


class Taker(Protocol):
    """What of a store takes whole bodies; see `depot.writing.short_puts`."""

    def begin(
        self,
        artifact: ArtifactHash,
        generation: Generation,
        content: bytes,
        tell: Callable[[Stored | Exception | None], None],
    ) -> bool:
        """Begin a put; False: not like this, and `tell` is not called."""


class FastPuts:
    """The puts of one server.

    Args:
        reply: the answer to a put that has ended well.

    Attributes:
        answers: how many were given.
        body_bytes: how long their bodies were together.
        received_bytes: how long those of their requests were.
    """

    def __init__(
        self,
        taker: Taker,
        plain: PlainPuts,
        activity: Activity,
        reply: Callable[[Stored], web.Response],
    ) -> None:
        self.answers = 0
        self.body_bytes = 0
        self.received_bytes = 0
        self._taker = taker
        self._plain = plain
        self._activity = activity
        self._reply = reply
        self._answers: dict[tuple[int, int], tuple[bytes, bytes]] = {}
        self._dates = DateLines()
        self._ids = RequestIds()

    def begin(self, request: bytes, tell: Tell) -> bool:
        """Begin what a client has sent, if that is one plain put; False: it is not taken.

        Otherwise `tell` is called once, later.
        """
        if not request.startswith(_LINE) or self._activity.draining:
            return False
        head_bytes = request.find(_HEAD_END, _NAME_END, MAX_HEAD_BYTES) + len(_HEAD_END)
        plain = self._plain.judge(request[_NAME_END:head_bytes])
        if plain is None or len(request) - head_bytes != plain.length_bytes:
            return False
        name = request[_NAME_START:_NAME_END]
        if not _NAME.fullmatch(name):
            return False
        artifact, content = ArtifactHash(bytes.fromhex(name.decode())), request[head_bytes:]
        under_way = _UnderWay(self._activity, tell, partial(self._answer, plain.length_bytes))
        if not self._taker.begin(artifact, plain.generation, content, under_way.ended):
            return False
        self._activity.begin(under_way.give_up)
        return True

    def _answer(self, length_bytes: int, stored: Stored) -> bytes:
        counts = (stored.datasets, stored.copies)
        made = self._answers.get(counts)
        if made is None:
            made = self._answers[counts] = _parts_of(self._reply(stored))
        head, body = made
        self.answers += 1
        self.received_bytes += length_bytes
        self.body_bytes += len(body)
        return b"".join((head, self._dates.now(), self._ids.next(), _HEAD_END, body))


class _UnderWay:
    """A put that the store carries out, as long as somebody is to hear of it."""

    __slots__ = ("_activity", "_answer", "_tell")

    def __init__(self, activity: Activity, tell: Tell, answer: Callable[[Stored], bytes]) -> None:
        self._activity = activity
        self._tell: Tell | None = tell
        self._answer = answer

    def ended(self, outcome: Stored | Exception | None) -> None:
        tell, self._tell = self._tell, None
        if tell is None:
            return
        try:
            tell(self._answer(outcome) if isinstance(outcome, Stored) else outcome)
        finally:
            self._activity.end(self.give_up)

    def give_up(self) -> None:
        """Have the plain path say that the server ends; what the store has begun with goes on."""
        self.ended(None)


class TakenPut:
    """A put that is carried out, as its connection knows it.

    Attributes:
        request: head and body, as they came.
        behind: what the client has sent since.
        all_is_heard: it will send no more.
    """

    __slots__ = ("all_is_heard", "behind", "request")

    def __init__(self, request: bytes) -> None:
        self.request = request
        self.behind = b""
        self.all_is_heard = False

    def comes_behind(self, data: bytes, transport: asyncio.Transport | None) -> None:
        """Keep what has come, and take no more until the put has ended (S1)."""
        self.behind += data
        if transport is not None:
            transport.pause_reading()


FAST_PUTS: Final = web.AppKey("fast_puts", FastPuts)


def _parts_of(reply: web.Response) -> tuple[bytes, bytes]:
    """The beginning of an answer's head, and its body."""
    body = reply.body
    assert isinstance(body, bytes), "made whole"
    lines = [f"HTTP/1.1 {reply.status} {reply.reason}"]
    lines += [f"{name}: {value}" for name, value in reply.headers.items()]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", ""]).encode(), body
