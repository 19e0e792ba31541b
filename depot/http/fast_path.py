"""Answers to plain requests for small artifacts, past the HTTP library.

Rules kept here:
- What is answered here would have been answered by the plain path, at this moment, with the same
  status, headers and body; but for the date and the request's id, byte for byte. Whatever is not
  certain is not answered: the plain path gets the request as it came.
- What is in memory, ours or the kernel's, is answered at once. What is not, or is too much for one
  turn of the event loop (B4), is read together with what others ask for at the same time. Whatever
  was read is hashed (B2), and a read that does not work out is left to the plain path as well.
- What the plain path counts is counted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from aiohttp import web

from depot.artifact import ArtifactHash
from depot.http.activity import Activity
from depot.http.answer_lines import DateLines, RequestIds
from depot.http.hot_artifacts import SMALL_BYTES, HotArtifact, HotArtifacts, head_of
from depot.http.plain_requests import MAX_HEAD_BYTES, PlainRequests
from depot.http.shared_reads import SharedReads
from depot.http.small_artifacts import GoodCopies, ReadsAtOnce, SmallArtifacts
from depot.streams.budget import Budget

PATH: Final = "/artifact/sha256/"
_LINE: Final = f"GET {PATH}".encode()
_NAME_START: Final = len(_LINE)
_NAME_END: Final = _NAME_START + 64


class FastPath:
    """The answers of one server.

    Args:
        headers: of an answer with all of an artifact of some size.
        budget: what all answers together may send; None: no limit.

    Attributes:
        answers: how many were given.
        body_bytes: how long their bodies were together.
        received_bytes: of the bodies of the requests, which have none.
    """

    def __init__(
        self,
        hot: HotArtifacts,
        copies: GoodCopies,
        plain: PlainRequests,
        activity: Activity,
        headers: Callable[[ArtifactHash, int], Mapping[str, str]],
        budget: Budget | None = None,
    ) -> None:
        self.answers = 0
        self.body_bytes = 0
        self.received_bytes = 0
        self._hot = hot
        self._copies = copies
        self._plain = plain
        self._activity = activity
        self._headers = headers
        self._budget = budget or Budget()
        self._small = SmallArtifacts(copies, self._head)
        self._now = ReadsAtOnce(hot)
        self._reads = SharedReads(self._load, activity)
        self._dates = DateLines()
        self._ids = RequestIds()

    def answer(self, request: bytes) -> bytes | None:
        """The answer to what a client has sent, if that is one plain request; None: not at once."""
        if not request.startswith(_LINE) or len(request) > MAX_HEAD_BYTES:
            return None
        if self._activity.draining:
            return None
        name = request[_NAME_START:_NAME_END]
        most_bytes = self._plain.most_bytes(request[_NAME_END:])
        if most_bytes < 0:
            return None
        hot = self._hot.find(name) or self._read_now(name, most_bytes)
        if hot is None or most_bytes < len(hot.content):
            return None
        return self.answer_with(hot)

    def _read_now(self, name: bytes, most_bytes: int) -> HotArtifact | None:
        if (hot := self._now.find(name)) is not None:
            return hot
        small = None if self._budget.limited else self._small.find(name)
        if small is None or small.size_bytes > most_bytes:
            return None
        return self._now.read(name, small)

    def fetch(self, request: bytes, tell: Callable[[HotArtifact | None], None]) -> bool:
        """Begin to read what a plain request is for; False: it is for the plain path.

        `tell` is called later, with what is to be answered, or None: for the plain path after all.
        """
        if not request.startswith(_LINE) or len(request) > MAX_HEAD_BYTES:
            return False
        most_bytes = self._plain.most_bytes(request[_NAME_END:])
        if self._budget.limited:
            return False  # it would be read, and then read again when its turn has come
        if self._activity.draining or most_bytes < 0:
            return False
        small = self._small.find(request[_NAME_START:_NAME_END])
        if small is None or small.size_bytes > most_bytes:
            return False
        return self._reads.ask(small.artifact, small.size_bytes, tell)

    def answer_with(self, hot: HotArtifact) -> bytes | None:
        """The answer that an artifact is for, if it may be given now."""
        revision = self._copies.revision
        if hot.found_at != revision:
            if self._copies.size_of(hot.artifact) != len(hot.content):
                self._hot.drop(hot.artifact)
                return None
            hot.found_at = revision
        if not self._budget.pay_now(len(hot.content)):
            return None
        self.answers += 1
        self.body_bytes += len(hot.content)
        return b"".join((hot.head, self._dates.now(), self._ids.next(), b"\r\n\r\n", hot.content))

    async def close(self) -> None:
        """End what is being read."""
        await self._reads.close()

    async def _load(self, artifacts: Sequence[ArtifactHash]) -> Sequence[HotArtifact | None]:
        contents = await self._copies.read(artifacts, SMALL_BYTES)
        return [
            None
            if content is None
            else self._hot.keep(artifact, self._head(artifact, len(content)), content)
            for artifact, content in zip(artifacts, contents, strict=True)
        ]

    def _head(self, artifact: ArtifactHash, size_bytes: int) -> bytes:
        return head_of(self._headers(artifact, size_bytes))


FAST_PATH: Final = web.AppKey("fast_path", FastPath)
