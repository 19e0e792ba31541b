from __future__ import annotations

import asyncio
import gzip
from collections.abc import Callable
from pathlib import Path

import pytest

from depot.artifact import ArtifactHash
from depot.errors import (
    DepotCopy,
)
from depot.http.depot_api import depot_app
from tests.copying import (
    ARTIFACT,
    CONTENT,
    IMPATIENT,
    OTHER,
    RETRY,
    WRONG,
    sled_at,
)
from tests.http.servers import serve
from tests.lying_peer import (
    Answer,
    LyingPeer,
    announcing,
    chunked,
    dripping,
    endless,
    fixed,
    hanging_up,
    honest,
    no_ranges,
    paused,
    raw,
    resetting,
    silent,
    until_closed,
)

# ---- succeed


@pytest.mark.parametrize("make", [honest, no_ranges, chunked, until_closed])
async def test_an_artifact_is_copied_to_every_dataset(
    tmp_path: Path, make: Callable[[bytes], Answer]
) -> None:
    async with LyingPeer([make(CONTENT)]) as peer, sled_at(tmp_path) as sled:
        record = await sled.copy(peer.url + "/")
        assert await sled.stored() == [CONTENT, CONTENT]
        assert record.state == "succeeded"
        assert (record.datasets, record.successful_writes) == (2, 2)
        assert (record.bytes_done, record.error) == (len(CONTENT), None)
        assert record.sources == (peer.url,)
        assert sled.copies.list() == (record,)
        (event,) = sled.events
        assert event[0] == "copied"
        assert event[1]["sha256"] == str(ARTIFACT)
        assert event[1]["size_bytes"] == len(CONTENT)
        assert (event[1]["copies"], event[1]["datasets"]) == (2, 2)


async def test_a_sled_copies_from_a_sled(tmp_path: Path) -> None:
    for name in ("near", "far"):
        await asyncio.to_thread((tmp_path / name).mkdir)
    async with (
        sled_at(tmp_path / "far") as far,
        sled_at(tmp_path / "near") as near,
        LyingPeer([honest(CONTENT)]) as origin,
        serve(depot_app(far.store)) as far_depot,
    ):
        assert (await far.copy(origin.url)).state == "succeeded"
        record = await near.copy(far_depot.url)
        assert record.state == "succeeded"
        assert await near.stored() == [CONTENT, CONTENT]
        with pytest.raises(DepotCopy, match="404"):
            await near.start(far_depot.url, sha256=OTHER)


async def test_a_held_artifact_is_not_asked_for_again(tmp_path: Path) -> None:
    async with LyingPeer([honest(CONTENT)]) as peer, sled_at(tmp_path) as sled:
        first = await sled.copy(peer.url)
        second = await sled.copy(peer.url)
        assert second.copy_id != first.copy_id
        assert second.state == "succeeded"
        assert (second.datasets, second.successful_writes) == (2, 2)
        assert second.finished_at is not None
        assert len(peer.requests) == 1
        assert sled.copies.list() == (first, second)


async def test_a_copy_replaces_a_damaged_mirror(tmp_path: Path) -> None:
    async with LyingPeer([honest(CONTENT)]) as peer, sled_at(tmp_path) as sled:
        await sled.copy(peer.url)

        def damage() -> None:
            file = sled.datasets[1] / str(ARTIFACT)
            file.chmod(0o644)
            file.write_bytes(WRONG)

        await asyncio.to_thread(damage)
        record = await sled.copy(peer.url)
        assert record.state == "succeeded"
        assert record.successful_writes == 2
        assert await sled.stored() == [CONTENT, CONTENT]


async def test_progress_can_be_read_while_the_copy_runs(tmp_path: Path) -> None:
    go_on = asyncio.Event()
    peer_answer = paused(CONTENT, 1000, go_on)
    async with LyingPeer([peer_answer]) as peer, sled_at(tmp_path) as sled:
        copy_id = await sled.start(peer.url)
        record = sled.copies.get(copy_id)
        assert record.state == "running"
        assert record.bytes_total == len(CONTENT)
        assert record.bytes_done <= 1000
        assert record.finished_at is None
        go_on.set()
        assert (await sled.outcome(copy_id)).bytes_done == len(CONTENT)


# ---- copies that fail


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (fixed("404 Not Found"), "404"),
        (fixed("500 Internal Server Error"), "500"),
        (fixed("200 OK", "Content-Type: text/html", body=b"<h1>Log in</h1>"), "a page"),
        (fixed("200 OK", "Content-Encoding: gzip", body=gzip.compress(CONTENT)), "gzip"),
        (raw(b"220 mail.example ESMTP\r\n"), "not HTTP"),
        (raw(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n"), "not HTTP"),
        (hanging_up, "hung up|Connection reset"),
    ],
)
async def test_no_source_that_answers_refuses_the_request(
    tmp_path: Path, answer: Answer, why: str
) -> None:
    async with LyingPeer([answer]) as peer, sled_at(tmp_path) as sled:
        with pytest.raises(DepotCopy, match=why) as caught:
            await sled.start(peer.url)
        assert peer.url in str(caught.value)
        (record,) = sled.copies.list()
        sled.assert_failed(record, peer.url)
        await sled.assert_nothing_is_left()


async def test_a_redirect_is_refused_and_its_target_is_not_asked(tmp_path: Path) -> None:
    async with LyingPeer([honest(CONTENT)]) as target, sled_at(tmp_path) as sled:
        location = f"Location: {target.url}/artifact/sha256/{ARTIFACT}"
        async with LyingPeer([fixed("302 Found", location)]) as peer:
            with pytest.raises(DepotCopy, match="redirects are not followed"):
                await sled.start(peer.url)
        assert target.connections == 0
        sled.assert_failed(sled.copies.list()[0], target.url)


async def test_an_unreachable_source_refuses_the_request(tmp_path: Path) -> None:
    async with LyingPeer([honest(CONTENT)]) as closed:
        pass
    async with sled_at(tmp_path) as sled:
        with pytest.raises(DepotCopy, match="Connection refused"):
            await sled.start(closed.url)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (fixed("200 OK", body=WRONG), str(ArtifactHash.of(WRONG))),
        (fixed("200 OK", body=b""), str(ArtifactHash.of(b""))),
        (announcing(len(CONTENT) - 1, CONTENT), "hash to"),
        (announcing(len(CONTENT) + 1, CONTENT), f"broke off at byte {len(CONTENT)}"),
        (announcing(len(CONTENT), CONTENT[:300_000]), "broke off at byte 300000"),
        (resetting(CONTENT, 300_000), "broke off"),
        (chunked(WRONG), "hash to"),
        (until_closed(CONTENT[:5000]), "hash to"),
        (endless(), "can never fit"),
    ],
)
async def test_a_lying_source_fails_the_copy_and_nothing_is_stored(
    tmp_path: Path, answer: Answer, why: str
) -> None:
    async with LyingPeer([answer]) as peer, sled_at(tmp_path) as sled:
        record = await sled.outcome(await sled.start(peer.url))
        sled.assert_failed(record, peer.url, why)
        await sled.assert_nothing_is_left()


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (announcing(len(CONTENT), b"", then_stall=True), "silent"),
        (announcing(len(CONTENT), CONTENT[:5000], then_stall=True), "silent"),
        (dripping(CONTENT, 0.05), "bytes/s"),
    ],
)
async def test_a_slow_source_is_given_up(tmp_path: Path, answer: Answer, why: str) -> None:
    async with LyingPeer([answer]) as peer, sled_at(tmp_path, IMPATIENT) as sled:
        record = await sled.outcome(await sled.start(peer.url))
        sled.assert_failed(record, peer.url, why)
        assert len(peer.requests) == RETRY.max_tries
        await sled.assert_nothing_is_left()


async def test_a_source_that_never_answers_refuses_the_request(tmp_path: Path) -> None:
    async with LyingPeer([silent]) as peer, sled_at(tmp_path, IMPATIENT) as sled:
        with pytest.raises(DepotCopy, match="no answer within"):
            await sled.start(peer.url)
        assert len(peer.requests) == 1


async def test_a_failed_copy_names_every_source(tmp_path: Path) -> None:
    async with (
        LyingPeer([fixed("404 Not Found")]) as first,
        LyingPeer([fixed("200 OK", body=WRONG)]) as second,
        sled_at(tmp_path) as sled,
    ):
        record = await sled.copy(first.url, second.url)
        sled.assert_failed(record, f"{first.url}: expected 200", f"{second.url}: it sent other")


async def test_a_failed_copy_can_be_asked_for_again(tmp_path: Path) -> None:
    script = [fixed("200 OK", body=WRONG), honest(CONTENT)]
    async with LyingPeer(script) as peer, sled_at(tmp_path) as sled:
        assert (await sled.copy(peer.url)).state == "failed"
        assert (await sled.copy(peer.url)).state == "succeeded"
        assert [record.state for record in sled.copies.list()] == ["failed", "succeeded"]
