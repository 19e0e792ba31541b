from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from agent.copies import CopyManager, CopyOptions, CopyRecord
from agent.lineup import RetryPolicy
from agent.networks import DEFAULT_ALLOWED_SOURCES, AllowedNetworks
from agent.peers import Lookup, PeerFetcher, PeerLimits, look_up
from depot.artifact import ArtifactConfig, ArtifactHash, Generation
from depot.errors import (
    ArtifactGeneration,
    BadSource,
    DepotCopy,
    DepotError,
    NoConfig,
    NoDataset,
    NotFound,
    NotInConfig,
    QuotaExceeded,
    ShuttingDown,
    TooLarge,
    TooManyCopies,
)
from depot.initialise import init_datasets
from depot.store import ArtifactStore, StoreOptions
from tests.lying_peer import (
    Answer,
    Connection,
    LyingPeer,
    Request,
    announcing,
    chunked,
    dripping,
    endless,
    fixed,
    hanging_up,
    held_back,
    honest,
    no_ranges,
    part_head,
    paused,
    raw,
    resetting,
    silent,
    until_closed,
)

CONTENT = bytes(range(256)) * 8000  # enough to be read past the HTTP library
ARTIFACT = ArtifactHash.of(CONTENT)
WRONG = CONTENT[:-1] + b"!"
OTHER = ArtifactHash.of(b"other")
UNWANTED = ArtifactHash.of(b"unwanted")
ONE = Generation(1)
MAX_BYTES = 4 << 20

NETWORKS = AllowedNetworks.of(DEFAULT_ALLOWED_SOURCES)
PATIENT = PeerLimits(connect_timeout_s=30, idle_timeout_s=30, max_artifact_size_bytes=MAX_BYTES)
IMPATIENT = PeerLimits(
    connect_timeout_s=0.3,
    idle_timeout_s=0.3,
    min_bytes_per_s=100_000,
    rate_window_s=0.3,
    max_artifact_size_bytes=MAX_BYTES,
)
RETRY = RetryPolicy(max_tries=2, first_delay_s=0.01, max_delay_s=0.02)


@dataclass
class Sled:
    """A real store on two datasets, and the copies into it."""

    store: ArtifactStore
    datasets: Sequence[Path]
    copies: CopyManager = field(init=False)
    owner: asyncio.Task[None] = field(init=False)
    events: list[tuple[str, Mapping[str, object]]] = field(default_factory=list)
    happened: asyncio.Event = field(default_factory=asyncio.Event)

    def on_event(self, kind: str, fields: Mapping[str, object]) -> None:
        self.events.append((kind, fields))
        self.happened.set()

    async def start(self, *urls: str, sha256: ArtifactHash = ARTIFACT) -> str:
        return await self.copies.start(sha256, ONE, urls)

    async def outcome(self, copy_id: str) -> CopyRecord:
        """The copy's record, once it has ended."""
        while (record := self.copies.get(copy_id)).state == "running":
            self.happened.clear()
            await self.happened.wait()
        return record

    async def copy(self, *urls: str) -> CopyRecord:
        """The copy's record, once it was refused, failed or succeeded."""
        try:
            return await self.outcome(await self.start(*urls))
        except DepotError:
            return self.copies.list()[-1]

    async def stored(self) -> list[bytes | None]:
        """What each dataset has under the artifact's name."""
        return await asyncio.to_thread(lambda: [content_of(path) for path in self.datasets])

    async def assert_nothing_is_left(self) -> None:
        """No artifact, no staged file, no reservation."""
        assert await self.stored() == [None, None]
        assert await asyncio.to_thread(staged_files, self.datasets) == []
        for status in self.store.status().datasets:
            assert (status.reserved_bytes, status.used_bytes) == (0, 0)

    def assert_failed(self, record: CopyRecord, *reasons: str) -> None:
        """The record, the event and nobody's imagination say why."""
        assert record.state == "failed"
        assert record.finished_at is not None
        kind, fields = self.events[-1]
        assert kind == "copy_failed"
        assert fields["copy_id"] == record.copy_id
        assert fields["error"] == record.error
        for reason in reasons:
            assert reason in str(record.error)


def content_of(dataset: Path) -> bytes | None:
    file = dataset / str(ARTIFACT)
    return file.read_bytes() if file.exists() else None


def staged_files(datasets: Sequence[Path]) -> list[Path]:
    return [file for dataset in datasets for file in (dataset / ".sled-depot/staging").iterdir()]


def prepare(root: Path) -> list[Path]:
    datasets = [root / "a", root / "b"]
    for path in [*datasets, root / "state"]:
        path.mkdir()
    init_datasets(datasets)
    return datasets


@asynccontextmanager
async def sled_at(
    root: Path,
    limits: PeerLimits = PATIENT,
    *,
    wanted: Sequence[ArtifactHash] | None = (ARTIFACT, OTHER),
    quota_bytes: int = 64 << 20,
    max_concurrent: int = 8,
    max_finished: int = 1000,
    lookup: Lookup = look_up,
) -> AsyncIterator[Sled]:
    """A sled whose config has `wanted`; no config when None."""
    datasets = await asyncio.to_thread(prepare, root)
    options = StoreOptions(quota_bytes=quota_bytes, max_artifact_size_bytes=MAX_BYTES)
    store = await ArtifactStore.open(datasets, state_dir=root / "state", options=options)
    async with (
        store,
        PeerFetcher(NETWORKS, limits, lookup=lookup) as fetcher,
        asyncio.TaskGroup() as group,
    ):
        if wanted is not None:
            await store.put_config(ArtifactConfig.make(1, wanted))
        sled = Sled(store, datasets)
        bounds = CopyOptions(max_concurrent=max_concurrent, max_finished=max_finished, retry=RETRY)
        sled.copies = CopyManager(store, fetcher, bounds, on_event=sled.on_event)
        sled.owner = group.create_task(sled.copies.run())
        try:
            yield sled
        finally:
            await sled.copies.stop(0)


async def lead_outside(_host: str, _port: int) -> Sequence[str]:
    """A resolver whose every name leads where no copy may come from."""
    return ["192.0.2.1", "::ffff:10.0.0.1", "0.0.0.0"]


# ---- copies that succeed


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


# ---- falling over


@pytest.mark.parametrize(
    "broken",
    [
        fixed("404 Not Found"),
        fixed("500 Internal Server Error"),
        fixed("200 OK", "Content-Type: text/html", body=b"<h1>Log in</h1>"),
        fixed("200 OK", "Content-Encoding: gzip", body=gzip.compress(CONTENT)),
        fixed("200 OK", body=WRONG),
        fixed("200 OK", body=b""),
        raw(b"220 mail.example ESMTP\r\n"),
        hanging_up,
        announcing(len(CONTENT) - 1, CONTENT),
        announcing(len(CONTENT) + 1, CONTENT),
        announcing(MAX_BYTES + 1, CONTENT),
        chunked(WRONG),
        chunked(CONTENT[:-1]),
        chunked(CONTENT + b"!"),
        until_closed(CONTENT[:5000]),
        resetting(CONTENT, 0),
        resetting(CONTENT, 300_000),
        endless(),
    ],
)
async def test_an_honest_source_behind_a_broken_one_is_enough(
    tmp_path: Path, broken: Answer
) -> None:
    async with (
        LyingPeer([broken]) as first,
        LyingPeer([honest(CONTENT)]) as second,
        sled_at(tmp_path) as sled,
    ):
        record = await sled.copy(first.url, second.url)
        assert record.error is None
        assert record.state == "succeeded"
        assert await sled.stored() == [CONTENT, CONTENT]
        assert first.requests


@pytest.mark.parametrize(
    "slow",
    [
        silent,
        announcing(len(CONTENT), b"", then_stall=True),
        announcing(len(CONTENT), CONTENT[:5000], then_stall=True),
        dripping(CONTENT, 0.05),
    ],
)
async def test_an_honest_source_behind_a_slow_one_is_enough(tmp_path: Path, slow: Answer) -> None:
    async with (
        LyingPeer([slow]) as first,
        LyingPeer([honest(CONTENT)]) as second,
        sled_at(tmp_path, IMPATIENT) as sled,
    ):
        record = await sled.copy(first.url, second.url)
        assert record.state == "succeeded"
        assert await sled.stored() == [CONTENT, CONTENT]
        assert len(first.requests) == 1


async def test_the_next_source_goes_on_where_the_last_one_broke(tmp_path: Path) -> None:
    async with (
        LyingPeer([resetting(CONTENT, 300_000)]) as first,
        LyingPeer([honest(CONTENT)]) as second,
        sled_at(tmp_path) as sled,
    ):
        record = await sled.copy(first.url, second.url)
        assert record.state == "succeeded"
        assert first.offsets == [0]
        (resumed,) = second.requests
        assert 0 < resumed.offset <= 300_000
        assert resumed.headers["if-range"] == f'"sha256:{ARTIFACT}"'
        assert await sled.stored() == [CONTENT, CONTENT]


async def test_a_single_source_is_asked_to_go_on_itself(tmp_path: Path) -> None:
    script = [announcing(len(CONTENT), CONTENT[:300_000]), honest(CONTENT)]
    async with LyingPeer(script) as peer, sled_at(tmp_path) as sled:
        assert (await sled.copy(peer.url)).state == "succeeded"
        assert peer.offsets == [0, 300_000]
        assert await sled.stored() == [CONTENT, CONTENT]


@pytest.mark.parametrize("make", [no_ranges, chunked, until_closed])
async def test_a_source_without_ranges_resumes_by_sending_all_again(
    tmp_path: Path, make: Callable[[bytes], Answer]
) -> None:
    script = [announcing(len(CONTENT), CONTENT[:300_000]), make(CONTENT)]
    async with LyingPeer(script) as peer, sled_at(tmp_path) as sled:
        record = await sled.copy(peer.url)
        assert record.state == "succeeded"
        assert record.bytes_done == len(CONTENT)
        assert await sled.stored() == [CONTENT, CONTENT]


async def test_an_unknown_length_is_learned_from_the_source_that_knows_it(tmp_path: Path) -> None:
    async def broken_chunks(_request: object, connection: Connection) -> None:
        await connection.head("200 OK", "Transfer-Encoding: chunked")
        await connection.send(b"%x\r\n%b" % (len(CONTENT), CONTENT[:300_000]))

    script = [broken_chunks, honest(CONTENT)]
    async with LyingPeer(script) as peer, sled_at(tmp_path) as sled:
        record = await sled.copy(peer.url)
        assert record.state == "succeeded"
        assert record.bytes_total == len(CONTENT)
        assert await sled.stored() == [CONTENT, CONTENT]


async def test_bytes_of_a_liar_are_never_mixed_with_those_of_an_honest_source(
    tmp_path: Path,
) -> None:
    # The first source's part is wrong, so what it and the second give together is wrong as well.
    liar = announcing(len(CONTENT), b"!" * 300_000)
    async with (
        LyingPeer([liar]) as first,
        LyingPeer([honest(CONTENT)]) as second,
        sled_at(tmp_path) as sled,
    ):
        record = await sled.copy(first.url, second.url)
        assert record.state == "succeeded"
        assert second.offsets == [300_000, 0]
        assert await sled.stored() == [CONTENT, CONTENT]


async def test_a_wrong_range_is_not_taken_for_the_rest(tmp_path: Path) -> None:
    wrong_range = fixed(
        "206 Partial Content",
        f"Content-Range: bytes 0-{len(CONTENT) - 1}/{len(CONTENT)}",
        body=CONTENT,
    )
    script = [announcing(len(CONTENT), CONTENT[:300_000]), wrong_range]
    async with LyingPeer(script) as peer, sled_at(tmp_path) as sled:
        record = await sled.copy(peer.url)
        sled.assert_failed(record, peer.url)
        await sled.assert_nothing_is_left()


async def test_a_source_whose_name_leads_outside_is_passed_over(tmp_path: Path) -> None:
    async with (
        LyingPeer([honest(CONTENT)]) as peer,
        sled_at(tmp_path, lookup=lead_outside) as sled,
    ):
        record = await sled.copy(f"http://evil:{peer.port}", peer.url)
        assert record.state == "succeeded"


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


# ---- refusals


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


async def move_on(sled: Sled, wanted: Sequence[ArtifactHash]) -> ArtifactConfig:
    config = ArtifactConfig.make(2, wanted)
    await sled.store.put_config(config)
    return config


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
