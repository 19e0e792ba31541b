"""The depots that an artifact may be healed from: those in the configuration, and those learnt.

A depot is learnt when a copy from it succeeded: the last to have given bytes is remembered first,
up to a bound. They are kept in `peers.json` in the state directory, one small checksummed document,
so that a restart knows them; one that cannot be read is begun anew, since it is only a help. What
a peer sends goes through the ordinary copy: allowed networks, bounds, the whole hash (S2, S4).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol, Self

from agent.copies.record import CopyRecord
from agent.copies.source_url import SourceUrl
from depot.artifact import ArtifactHash, Generation
from depot.dataset.small_files import open_root, read_document, write_document
from depot.document import Unreadable, decode, encode
from depot.errors import BadSource, DepotCopy, FormatTooNew
from depot.writing.stored import Stored

PEERS_NAME: Final = "peers.json"
FORMAT: Final = 1
ASKED_AT_ONCE: Final = 16
"""Sources of one copy; the others are asked when none of these had the artifact."""


class PeerBook:
    """Which peers to ask, best first.

    Args:
        configured: asked first, in this order.
        learnt: from a run before, the most recent first.
        max_learnt: how many learnt ones are kept.
    """

    def __init__(
        self, state_dir: Path, configured: Sequence[str], learnt: Sequence[str], max_learnt: int
    ) -> None:
        self._state_dir = state_dir
        self._configured = tuple(configured)
        self._learnt = tuple(learnt)[:max_learnt]
        self._max_learnt = max_learnt
        self._changed = asyncio.Event()

    @classmethod
    async def open(cls, state_dir: Path, *, configured: Sequence[str], max_learnt: int) -> Self:
        """Read what was learnt before."""
        learnt = await asyncio.to_thread(_read, state_dir)
        return cls(state_dir, configured, learnt, max_learnt)

    def urls(self) -> tuple[str, ...]:
        """Every peer once, in the order in which they are to be asked."""
        return tuple(dict.fromkeys((*self._configured, *self._learnt)))

    def learn(self, kind: str, fields: Mapping[str, object]) -> None:
        """Take note of an event: a copy that succeeded says who has artifacts to give."""
        url = fields.get("served_by")
        if kind == "copied" and isinstance(url, str) and self._learnt[:1] != (url,):
            others = (each for each in self._learnt if each != url)
            self._learnt = (url, *others)[: self._max_learnt]
            self._changed.set()

    async def run(self) -> None:
        """Keep what is learnt in the state directory, until cancelled."""
        while True:
            await self._changed.wait()
            await self.save()

    async def save(self) -> None:
        """Write what is known now."""
        self._changed.clear()
        await asyncio.to_thread(_write, self._state_dir, self._learnt)


class Copies(Protocol):
    """What of `agent.copies.manager.CopyManager` fetches from peers."""

    async def fetch(
        self, sha256: ArtifactHash, generation: Generation, urls: Sequence[str], /
    ) -> CopyRecord:
        """Copy an artifact and wait until it is stored."""

    def may_ask(self, url: str, /) -> bool:
        """Tell whether a depot may be asked."""


class HealingPeers:
    """Gets artifacts from the peers in a book; see `depot.healing.healer.Peers`."""

    def __init__(self, book: PeerBook, copies: Copies) -> None:
        self._book = book
        self._copies = copies

    async def fetch(self, artifact: ArtifactHash, generation: Generation) -> Stored | None:
        """Store an artifact; None when no peer is known that may be asked.

        Raises:
            DepotError: no peer gave it, and why.
        """
        urls = [url for url in self._book.urls() if self._copies.may_ask(url)]
        failures: list[str] = []
        for start in range(0, len(urls), ASKED_AT_ONCE):
            try:
                stored = await self._fetch(artifact, generation, urls[start:][:ASKED_AT_ONCE])
            except (DepotCopy, BadSource) as error:
                failures.append(str(error))
            else:
                return stored
        if failures:
            raise DepotCopy("; ".join(failures))
        return None

    async def _fetch(
        self, artifact: ArtifactHash, generation: Generation, urls: Sequence[str]
    ) -> Stored:
        record = await self._copies.fetch(artifact, generation, urls)
        return Stored(record.datasets or 0, record.successful_writes or 0)


def _read(state_dir: Path) -> tuple[str, ...]:
    try:
        with open_root(state_dir) as root:
            content = read_document(root, PEERS_NAME)
        found = decode(content, name=PEERS_NAME, newest=FORMAT).get("peers") if content else None
    except (OSError, Unreadable, FormatTooNew):
        return ()
    urls = []
    for text in found if isinstance(found, list) else []:
        with suppress(BadSource):
            urls.append(str(SourceUrl.parse(text if isinstance(text, str) else "")))
    return tuple(urls)


def _write(state_dir: Path, urls: Sequence[str]) -> None:
    with open_root(state_dir) as root:
        write_document(root, PEERS_NAME, encode({"peers": list(urls)}, version=FORMAT))
