from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from depot.artifact import ArtifactConfig, Generation
from depot.errors import (
    ArtifactGeneration,
    BadSource,
    DepotCopy,
    NoConfig,
    NoDataset,
    NotFound,
    NotInConfig,
    QuotaExceeded,
    TooLarge,
    TooManyCopies,
)
from tests.copying import (
    ARTIFACT,
    CONTENT,
    MAX_BYTES,
    ONE,
    OTHER,
    UNWANTED,
    lead_outside,
    sled_at,
)
from tests.lying_peer import (
    LyingPeer,
    announcing,
    fixed,
    honest,
    paused,
)


async def test_refusals_come_in_the_order_of_the_contract(tmp_path: Path) -> None:
    bad = "ftp://node"
    async with sled_at(tmp_path, wanted=None) as sled:
        with pytest.raises(NoConfig):
            await sled.copies.start(UNWANTED, Generation(7), [bad])
        await sled.store.put_config(ArtifactConfig.make(2, [ARTIFACT]))
        for stale in (1, 3):
            with pytest.raises(ArtifactGeneration):
                await sled.copies.start(UNWANTED, Generation(stale), [bad])
        with pytest.raises(NotInConfig):
            await sled.copies.start(UNWANTED, Generation(2), [bad])
        with pytest.raises(BadSource):
            await sled.copies.start(ARTIFACT, Generation(2), [bad])
        assert sled.copies.list() == ()
        assert sled.events == []


async def test_without_datasets_nothing_else_is_judged(tmp_path: Path) -> None:
    async with sled_at(tmp_path) as sled:

        def unplug() -> None:
            for dataset in sled.datasets:
                dataset.rename(dataset.with_suffix(".away"))

        await asyncio.to_thread(unplug)
        await sled.store.check_datasets()
        with pytest.raises(NoDataset):
            await sled.copies.start(UNWANTED, Generation(7), ["ftp://node"])


@pytest.mark.parametrize(
    "url",
    [
        "ftp://127.0.0.1:1",
        "http://user@127.0.0.1:1",
        "http://127.0.0.1:1/?a",
        "http://10.0.0.1:1",
        "http://[::ffff:10.0.0.1]:1",
        "http://0.0.0.0:1",
        "http://127.1:1",
        "http://2130706433:1",
    ],
)
async def test_a_source_that_may_not_be_asked_refuses_the_whole_request(
    tmp_path: Path, url: str
) -> None:
    async with LyingPeer([honest(CONTENT)]) as peer, sled_at(tmp_path) as sled:
        bad = url.replace(":1", f":{peer.port}", 1)
        with pytest.raises(BadSource, match=str(peer.port)):
            await sled.start(peer.url, bad)
        assert peer.connections == 0
        assert sled.copies.list() == ()


async def test_a_source_whose_name_leads_outside_is_a_bad_source(tmp_path: Path) -> None:
    async with (
        LyingPeer([honest(CONTENT)]) as peer,
        sled_at(tmp_path, lookup=lead_outside) as sled,
    ):
        with pytest.raises(BadSource, match="evil is at"):
            await sled.start(f"http://evil:{peer.port}")
        assert peer.connections == 0
        sled.assert_failed(sled.copies.list()[0], "evil is at")


async def test_more_than_an_artifact_may_have_is_too_large(tmp_path: Path) -> None:
    async with (
        LyingPeer([announcing(MAX_BYTES + 1, CONTENT)]) as peer,
        sled_at(tmp_path) as sled,
    ):
        with pytest.raises(TooLarge):
            await sled.start(peer.url)


async def test_a_size_there_is_no_room_for_now_is_refused(tmp_path: Path) -> None:
    async with (
        LyingPeer([honest(CONTENT)]) as peer,
        sled_at(tmp_path, quota_bytes=len(CONTENT) + 10) as sled,
    ):
        async with sled.store.begin_put(OTHER, ONE, 11):
            with pytest.raises(QuotaExceeded, match="no dataset has room"):
                await sled.start(peer.url)
        refused = sled.copies.list()[-1]  # from which the status tells what does not fit
        assert (refused.state, refused.bytes_total) == ("failed", len(CONTENT))
        assert (await sled.copy(peer.url)).state == "succeeded"


async def test_copies_are_bounded(tmp_path: Path) -> None:
    go_on = asyncio.Event()
    async with (
        LyingPeer([paused(CONTENT, 10, go_on)]) as peer,
        sled_at(tmp_path, max_concurrent=1) as sled,
    ):
        copy_id = await sled.start(peer.url)
        with pytest.raises(TooManyCopies):
            await sled.start(peer.url, sha256=OTHER)
        assert await sled.start(peer.url) == copy_id
        go_on.set()
        assert (await sled.outcome(copy_id)).state == "succeeded"
        assert len(peer.requests) == 1


async def test_the_history_is_bounded_and_running_copies_stay(tmp_path: Path) -> None:
    go_on = asyncio.Event()
    async with (
        LyingPeer([paused(CONTENT, 10, go_on)]) as peer,
        LyingPeer([fixed("404 Not Found")]) as empty,
        sled_at(tmp_path, max_finished=2) as sled,
    ):
        running = await sled.start(peer.url)
        for _ in range(3):
            with pytest.raises(DepotCopy):
                await sled.start(empty.url, sha256=OTHER)
        assert len(sled.copies.list()) == 3
        assert sled.copies.list()[0].copy_id == running
        go_on.set()
        assert (await sled.outcome(running)).state == "succeeded"
        assert len(sled.copies.list()) == 2
        with pytest.raises(NotFound):
            sled.copies.get("no-such-copy")
