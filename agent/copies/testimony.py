"""Who gave which bytes, kept until it is known which bytes are right.

When several sources give an artifact together and its hash is wrong, any of them may have lied.
What each of them gave is remembered as a digest of each part. The next attempt takes everything
from one source; once its bytes turn out to be the artifact, whoever gave others before is known.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from agent.copies.source_url import SourceUrl

MAX_SPANS: Final = 16384
"""No more are remembered of one attempt (S1): 16 GiB, in parts of the smallest size."""


@dataclass(frozen=True, slots=True)
class Span:
    """The bytes `start` to `end` of an artifact, as `source` gave them."""

    start: int
    end: int
    source: SourceUrl
    digest: bytes


@dataclass(frozen=True, slots=True)
class Account:
    """What was said in an attempt whose sum was wrong.

    Attributes:
        spans: what is known byte for byte.
        others: who gave the rest.
    """

    spans: Sequence[Span] = ()
    others: frozenset[SourceUrl] = frozenset()


class Hearing:
    """Compares a stream, from its first byte on, with what was said before."""

    def __init__(self, testimony: Account) -> None:
        self._testimony = testimony
        self._to_come = sorted(testimony.spans, key=lambda span: span.start)
        self._open: list[tuple[Span, Any]] = []
        self._position = 0
        self._contradicted: set[SourceUrl] = set()

    def hear(self, content: memoryview) -> None:
        """Take the next bytes of the stream."""
        start, end = self._position, self._position + len(content)
        self._position = end
        while self._to_come and self._to_come[0].start < end:
            self._open.append((self._to_come.pop(0), hashlib.sha256()))
        for span, digest in self._open:
            digest.update(content[max(0, span.start - start) : span.end - start])
        self._close(span_digest for span_digest in self._open if span_digest[0].end <= end)
        self._open = [span_digest for span_digest in self._open if span_digest[0].end > end]

    def guilty(self) -> frozenset[SourceUrl]:
        """Who gave wrong bytes, now that what was heard has turned out to be the artifact.

        When nobody is contradicted, the wrong bytes are among those that were not remembered; if
        one source alone gave those, it is that one.
        """
        if self._contradicted or len(self._testimony.others) != 1:
            return frozenset(self._contradicted)
        return self._testimony.others

    def _close(self, over: Iterable[tuple[Span, Any]]) -> None:
        for span, digest in over:
            if digest.digest() != span.digest:
                self._contradicted.add(span.source)
