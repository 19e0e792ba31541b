from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from depot.artifact import ArtifactConfig, Generation
from depot.errors import (
    DepotCopy,
    ShuttingDown,
)
from tests.copying import (
    ARTIFACT,
    CONTENT,
    OTHER,
    WRONG,
    move_on,
    sled_at,
)
from tests.lying_peer import (
    Connection,
    LyingPeer,
    Request,
    announcing,
    fixed,
    held_back,
    honest,
    part_head,
    paused,
    silent,
)

# ---- joining


async def test_requests_for_the_same_artifact_share_one_transfer(tmp_path: Path) -> None:
    answer_now = asyncio.Event()
    async with (
        LyingPeer([held_back(honest(CONTENT), answer_now)]) as peer,
        LyingPeer([honest(CONTENT)]) as spare,
        sled_at(tmp_path) as sled,
    ):
        requests = [
            asyncio.ensure_future(sled.start(*urls))
            for urls in ([peer.url], [peer.url], [spare.url])
        ]
        await peer.asked.wait()
        answer_now.set()
        ids = set(await asyncio.gather(*requests))
        assert len(ids) == 1
        record = await sled.outcome(ids.pop())
        assert record.state == "succeeded"
        assert record.sources == (peer.url, spare.url)
        assert len(peer.requests) == 1
        assert spare.connections == 0


async def test_the_sources_of_a_request_that_joins_are_fallen_back_to(tmp_path: Path) -> None:
    go_on = asyncio.Event()

    async def pause_and_break(request: Request, connection: Connection) -> None:
        await part_head(request, connection, len(CONTENT))
        await connection.send(CONTENT[:300_000])
        await go_on.wait()

    async with (
        LyingPeer([pause_and_break, fixed("404 Not Found")]) as first,
        LyingPeer([honest(CONTENT)]) as second,
        sled_at(tmp_path) as sled,
    ):
        copy_id = await sled.start(first.url)
        assert await sled.start(second.url) == copy_id
        go_on.set()
        assert (await sled.outcome(copy_id)).state == "succeeded"
        assert second.offsets == [300_000]


async def test_everyone_who_joined_learns_of_the_refusal(tmp_path: Path) -> None:
    answer_now = asyncio.Event()
    async with (
        LyingPeer([held_back(fixed("404 Not Found"), answer_now)]) as peer,
        sled_at(tmp_path) as sled,
    ):
        requests = [asyncio.ensure_future(sled.start(peer.url)) for _ in range(3)]
        await peer.asked.wait()
        answer_now.set()
        refusals = await asyncio.gather(*requests, return_exceptions=True)
        assert [type(refusal) for refusal in refusals] == [DepotCopy] * 3


async def test_a_copy_goes_on_when_its_caller_does_not_wait(tmp_path: Path) -> None:
    answer_now = asyncio.Event()
    async with (
        LyingPeer([held_back(honest(CONTENT), answer_now)]) as peer,
        sled_at(tmp_path) as sled,
    ):
        request = asyncio.ensure_future(sled.start(peer.url))
        await peer.asked.wait()
        request.cancel()
        await asyncio.gather(request, return_exceptions=True)
        answer_now.set()
        (record,) = sled.copies.list()
        assert (await sled.outcome(record.copy_id)).state == "succeeded"


# ---- configs that move on


async def test_a_copy_lands_under_a_later_config_that_still_wants_it(tmp_path: Path) -> None:
    go_on = asyncio.Event()
    async with LyingPeer([paused(CONTENT, 10, go_on)]) as peer, sled_at(tmp_path) as sled:
        copy_id = await sled.start(peer.url)
        await move_on(sled, [ARTIFACT])
        go_on.set()
        record = await sled.outcome(copy_id)
        assert record.state == "succeeded"
        assert record.generation == 1
        assert await sled.stored() == [CONTENT, CONTENT]


async def test_a_later_attempt_also_lands_under_a_later_config(tmp_path: Path) -> None:
    go_on = asyncio.Event()
    script = [paused(WRONG, 10, go_on)]
    async with (
        LyingPeer(script) as liar,
        LyingPeer([honest(CONTENT)]) as second,
        sled_at(tmp_path) as sled,
    ):
        copy_id = await sled.start(liar.url, second.url)
        await move_on(sled, [ARTIFACT])
        go_on.set()
        assert (await sled.outcome(copy_id)).state == "succeeded"


@pytest.mark.parametrize("told", [True, False])
async def test_a_copy_of_what_is_no_longer_wanted_is_superseded(tmp_path: Path, told: bool) -> None:
    go_on = asyncio.Event()
    async with LyingPeer([paused(CONTENT, 10, go_on)]) as peer, sled_at(tmp_path) as sled:
        copy_id = await sled.start(peer.url)
        config = await move_on(sled, [OTHER])
        if told:
            sled.copies.config_changed(config)
        else:
            go_on.set()
        record = await sled.outcome(copy_id)
        assert record.state == "superseded"
        assert sled.events[-1][1]["state"] == "superseded"
        await sled.assert_nothing_is_left()
        go_on.set()


async def test_an_artifact_that_comes_back_is_copied_anew(tmp_path: Path) -> None:
    go_on = asyncio.Event()
    script = [paused(CONTENT, 10, go_on), honest(CONTENT)]
    async with LyingPeer(script) as peer, sled_at(tmp_path) as sled:
        first = await sled.start(peer.url)
        sled.copies.config_changed(await move_on(sled, [OTHER]))
        await sled.store.put_config(ArtifactConfig.make(3, [ARTIFACT]))
        second = await sled.copies.start(ARTIFACT, Generation(3), [peer.url])
        assert second != first
        assert (await sled.outcome(first)).state == "superseded"
        assert (await sled.outcome(second)).state == "succeeded"
        go_on.set()


# ---- shutting down


async def test_running_copies_may_end_while_draining(tmp_path: Path) -> None:
    go_on = asyncio.Event()
    async with LyingPeer([paused(CONTENT, 10, go_on)]) as peer, sled_at(tmp_path) as sled:
        copy_id = await sled.start(peer.url)
        stopping = asyncio.ensure_future(sled.copies.stop(60))
        await asyncio.sleep(0)
        with pytest.raises(ShuttingDown):
            await sled.start(peer.url, sha256=OTHER)
        go_on.set()
        await stopping
        assert sled.copies.get(copy_id).state == "succeeded"


async def test_copies_that_do_not_end_in_time_are_given_up(tmp_path: Path) -> None:
    async with (
        LyingPeer([announcing(len(CONTENT), CONTENT[:10], then_stall=True)]) as peer,
        LyingPeer([silent]) as mute,
        sled_at(tmp_path) as sled,
    ):
        copy_id = await sled.start(peer.url)
        opening = asyncio.ensure_future(sled.start(mute.url, sha256=OTHER))
        await mute.asked.wait()
        await sled.copies.stop(0)
        with pytest.raises(ShuttingDown):
            await opening
        assert sled.copies.get(copy_id).state == "failed"
        assert {record.error for record in sled.copies.list()} == {"the sled agent is stopping"}
        await sled.assert_nothing_is_left()


async def test_nothing_is_left_when_the_owner_is_cancelled(tmp_path: Path) -> None:
    async with (
        LyingPeer([announcing(len(CONTENT), CONTENT[:10], then_stall=True)]) as peer,
        sled_at(tmp_path) as sled,
    ):
        copy_id = await sled.start(peer.url)
        sled.owner.cancel()
        await asyncio.gather(sled.owner, return_exceptions=True)
        sled.assert_failed(sled.copies.get(copy_id), "the sled agent is stopping")
        await sled.assert_nothing_is_left()
