"""Peers to heal from: those that are configured, those that copies came from, those that lie."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from agent.copies.peer_book import ASKED_AT_ONCE, PEERS_NAME, HealingPeers, PeerBook
from agent.copies.record import CopyRecord
from depot.artifact import ArtifactHash, Generation
from depot.errors import DepotCopy, QuotaExceeded
from depot.writing.stored import Stored

X = ArtifactHash.of(b"x")
ONE = Generation(1)
P, Q, R = (f"http://[fd00::{number}]:12348" for number in (1, 2, 3))


@dataclass
class FakeCopies:
    """Copies that succeed from the peers in `good`, and fail as `error` says otherwise."""

    good: Sequence[str] = ()
    forbidden: Sequence[str] = ()
    error: Exception = field(default_factory=lambda: DepotCopy("not there"))
    asked: list[Sequence[str]] = field(default_factory=list)

    async def fetch(
        self, sha256: ArtifactHash, generation: Generation, urls: Sequence[str]
    ) -> CopyRecord:
        self.asked.append(tuple(urls))
        if not set(urls) & set(self.good):
            raise self.error
        return CopyRecord(
            copy_id="1",
            sha256=sha256,
            generation=generation,
            sources=tuple(urls),
            state="succeeded",
            bytes_done=1,
            bytes_total=1,
            started_at=0.0,
            datasets=2,
            successful_writes=2,
        )

    def may_ask(self, url: str) -> bool:
        return url not in self.forbidden


async def open_book(state_dir: Path, *configured: str, most: int = 64) -> PeerBook:
    staging = state_dir / ".sled-depot/staging"
    await asyncio.to_thread(staging.mkdir, parents=True, exist_ok=True)
    return await PeerBook.open(state_dir, configured=configured, max_learnt=most)


def learn(book: PeerBook, *urls: str) -> None:
    for url in urls:
        book.learn("copied", {"sha256": str(X), "served_by": url})


async def test_configured_peers_come_first_then_the_most_recent(tmp_path: Path) -> None:
    book = await open_book(tmp_path, P)
    learn(book, Q, R, Q, P)
    assert book.urls() == (P, Q, R)


async def test_only_a_copy_that_succeeded_teaches(tmp_path: Path) -> None:
    book = await open_book(tmp_path)
    book.learn("copy_failed", {"served_by": P})
    book.learn("copied", {"sha256": str(X)})
    assert book.urls() == ()


async def test_s1_no_more_are_remembered_than_the_bound(tmp_path: Path) -> None:
    book = await open_book(tmp_path, most=2)
    learn(book, P, Q, R)
    assert book.urls() == (R, Q)


async def test_a_restart_remembers_them(tmp_path: Path) -> None:
    book = await open_book(tmp_path)
    learn(book, P, Q)
    await book.save()
    assert (await open_book(tmp_path)).urls() == (Q, P)
    assert (await open_book(tmp_path, R, most=1)).urls() == (R, Q)


@pytest.mark.parametrize("content", [b"", b"{", b'{"peers": ["http://x"], "format": 1}', b"\0"])
async def test_a_file_that_cannot_be_believed_is_begun_anew(tmp_path: Path, content: bytes) -> None:
    await asyncio.to_thread((tmp_path / PEERS_NAME).write_bytes, content)
    book = await open_book(tmp_path, P)
    assert book.urls() == (P,)
    learn(book, Q)
    assert book.urls() == (P, Q)


async def test_without_a_peer_there_is_nobody_to_ask(tmp_path: Path) -> None:
    copies = FakeCopies()
    assert await HealingPeers(await open_book(tmp_path), copies).fetch(X, ONE) is None
    assert copies.asked == []


async def test_s4_a_peer_outside_the_allowed_networks_is_not_asked(tmp_path: Path) -> None:
    copies = FakeCopies(good=[Q], forbidden=[P])
    peers = HealingPeers(await open_book(tmp_path, P, Q), copies)
    assert await peers.fetch(X, ONE) == Stored(2, 2)
    assert copies.asked == [(Q,)]


async def test_all_are_asked_some_at_a_time_until_one_gives_it(tmp_path: Path) -> None:
    urls = [f"http://[fd00::{number:x}]:1" for number in range(1, 41)]
    copies = FakeCopies(good=urls[20:21])
    peers = HealingPeers(await open_book(tmp_path, *urls), copies)
    assert await peers.fetch(X, ONE) == Stored(2, 2)
    assert [len(asked) for asked in copies.asked] == [ASKED_AT_ONCE] * 2
    copies.good = ()
    with pytest.raises(DepotCopy):
        await peers.fetch(X, ONE)


async def test_a_disk_that_is_full_is_not_a_peer_that_has_nothing(tmp_path: Path) -> None:
    copies = FakeCopies(error=QuotaExceeded("full"))
    with pytest.raises(QuotaExceeded):
        await HealingPeers(await open_book(tmp_path, P), copies).fetch(X, ONE)
