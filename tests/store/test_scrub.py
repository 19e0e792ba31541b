"""Every copy is verified again and again, and what rotted is found before anybody asks for it."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import threading
import time

import pytest

from depot.scrub.copy_records import CopyRecords
from depot.scrub.dataset import DatasetScrubber
from depot.scrub.pause import Pause
from depot.scrub.report import MAX_PAUSE_S, DatasetScrub, ScrubPass, decode_passes, encode_passes
from depot.store import ArtifactStore
from tests.store.builders import (
    MIB,
    ONE,
    THREE,
    TWO,
    A,
    B,
    BytesSource,
    GatedSource,
    Node,
    config,
    copies,
    hash_of,
    off_loop,
    put,
    states,
)
from tests.store.duties import done_at_the_start, running
from tests.store.faulty import WAIT_S
from tests.store.test_copy_records import rot, verified_at

ALL = (ONE, TWO, THREE)


async def put_all(store: ArtifactStore) -> None:
    await store.put_config(config(1, *ALL))
    for content in ALL:
        await put(store, content)


async def stored(node: Node) -> None:
    async with node.open() as store:
        await put_all(store)


def scrubs(store: ArtifactStore) -> tuple[DatasetScrub, ...]:
    return store.scrub_status().datasets


# ---- what a pass finds


@pytest.mark.parametrize("index", [A, B])
async def test_b5_a_rotten_copy_is_found_and_healed_within_one_pass(node: Node, index: int) -> None:
    await stored(node)
    await rot(node, index, TWO)
    async with running(node) as (store, happened):
        await store.start_scrub()
        await happened.wait_for("scrub_finished", 2)
        await happened.wait_for("healed")
        assert await node.read(index, TWO) == TWO
        assert copies(store) == dict.fromkeys(map(hash_of, ALL), 2)
        (found,) = [scrub for scrub in scrubs(store) if scrub.bad_found]
        assert (found.dataset, found.healed, found.waiting) == (str(node.paths[index]), 1, 0)
        assert found.last_heal_s is not None
        assert found.heal_s == found.last_heal_s


async def test_b5_a_copy_that_is_gone_is_noticed_and_healed_too(node: Node) -> None:
    await stored(node)
    async with running(node) as (store, happened):
        await off_loop(node.file(B, TWO).unlink)
        await store.start_scrub()
        await happened.wait_for("healed")
        assert await node.read(B, TWO) == TWO


async def test_a_pass_says_how_it_went(node: Node) -> None:
    async with node.open() as store:
        await put_all(store)
        await rot(node, B, ONE)
        passes = await store.scrub()
        total = sum(map(len, ALL))
        assert [(scrub.copies, scrub.bytes_done, scrub.bad) for scrub in passes] == [
            (3, total, 0),
            (3, total, 1),
        ]
        said = [fields for kind, fields in node.events if kind == "scrub_finished"]
        assert sorted((str(f["dataset"]), f["copies"], f["bytes"], f["bad"]) for f in said) == [
            (str(node.paths[A]), 3, total, 0),
            (str(node.paths[B]), 3, total, 1),
        ]
        assert copies(store)[hash_of(ONE)] == 1


async def test_every_file_named_by_a_hash_is_verified_wanted_or_not(node: Node) -> None:
    async with node.open() as store:
        await store.put_config(config(1, ONE))
        await put(store, ONE)
        await node.write_file(A, str(hash_of(TWO)), TWO)
        await node.write_file(A, "somebody-elses", TWO)
    async with node.open() as store:
        assert [scrub.copies for scrub in await store.scrub()] == [2, 1]
        assert None not in [(await verified_at(store, TWO))[A]]


@pytest.mark.parametrize("change", ["short", "empty", "gone"])
async def test_a_copy_that_lost_its_bytes_is_found(node: Node, change: str) -> None:
    async with node.open() as store:
        await put_all(store)

        def harm() -> None:
            path = node.file(A, ONE)
            if change == "gone":
                path.unlink()
            else:
                path.chmod(0o644)
                os.truncate(path, 0 if change == "empty" else 5)

        await off_loop(harm)
        bad = [scrub.bad for scrub in await store.scrub()]
        assert bad == [1, 0]
        assert copies(store)[hash_of(ONE)] == 1


async def test_an_empty_file_found_at_the_start_is_bad(node: Node) -> None:
    await stored(node)
    await node.write_file(A, str(hash_of(ONE)), b"")
    async with node.open() as store:
        assert copies(store)[hash_of(ONE)] == 1
        assert await store.remirror() == 1
        assert copies(store)[hash_of(ONE)] == 2
    assert await node.read(A, ONE) == ONE


async def test_both_datasets_are_scrubbed_at_once_and_a_hung_one_holds_nobody_up(
    node: Node,
) -> None:
    await stored(node)
    async with running(node) as (store, happened):
        hang = node.disk(A).hang("pread", name=str(hash_of(ONE)))
        await store.start_scrub()
        await off_loop(hang.wait_begun)
        await happened.wait_for("scrub_finished")
        assert [f["dataset"] for f in happened.of("scrub_finished")] == [str(node.paths[B])]
        hang.let_go()
        await happened.wait_for("scrub_finished", 2)


async def test_a_copy_that_was_replaced_while_it_was_read_is_not_judged(node: Node) -> None:
    async with node.open() as store:
        await store.put_config(config(1, ONE))
        await put(store, ONE)
        await rot(node, A, ONE)
        hang = node.disk(A).hang("pread", name=str(hash_of(ONE)))
        scrubbing = asyncio.ensure_future(store.scrub())
        await off_loop(hang.wait_begun)
        node.disk(A).fail("pread", times=1)
        assert (await put(store, ONE)).copies == 2
        hang.let_go()
        assert [scrub.bad for scrub in await scrubbing] == [0, 0]
        assert copies(store)[hash_of(ONE)] == 2


# ---- the cursor


async def test_a_restart_goes_on_where_the_pass_was(node: Node) -> None:
    await stored(node)
    async with running(node) as (store, _):
        hang = node.disk(A).hang("pread", name=str(hash_of(TWO)))
        await store.start_scrub()
        await off_loop(hang.wait_begun)
        await store.pause_scrub(3600)
        hang.let_go()
    node.disk(A).calls.clear()
    async with running(node) as (store, happened):
        await store.resume_scrub()
        await happened.wait_for("scrub_finished", dataset=str(node.paths[A]))
        read = [name for call, name in node.disk(A).calls if call == "pread"]
        assert not [name for name in read if str(hash_of(ONE)) in name]
        assert [name for name in read if str(hash_of(THREE)) in name]
        (done,) = happened.of("scrub_finished", dataset=str(node.paths[A]))
        assert (done["copies"], done["requested"]) == (3, True)


async def test_what_was_not_verified_for_longest_comes_first(node: Node) -> None:
    async with node.open() as store:
        await store.put_config(config(1, *ALL))
        for content in (TWO, ONE, THREE):
            await put(store, content)
        before = len(node.disk(B).calls)
        await store.scrub()
        read = [name for call, name in node.disk(B).calls[before:] if call == "pread"]
        order = [c for name in read for c in ALL if str(hash_of(c)) in name]
        assert order == [TWO, ONE, THREE]


def test_a_pass_survives_being_written_down_and_anything_else_is_begun_anew() -> None:
    current = ScrubPass(started_at_s=1.5, since_s=1.0, requested=True, copies=3, bad=1)
    assert decode_passes(encode_passes(current, None)) == (current, None)
    for text in (None, "", "{", "[]", '{"current": 7}', '{"current": {"bad": "x"}}'):
        assert decode_passes(text) == (None, None)
    newer = json.dumps({"current": {"started_at_s": 1.0, "since_s": 1.0, "mood": 7}})
    assert decode_passes(newer)[0] == ScrubPass(started_at_s=1.0, since_s=1.0)


# ---- when


async def test_what_was_never_verified_is_verified_without_anybody_asking(node: Node) -> None:
    await stored(node)
    for index in (A, B):
        await node.write_file(index, str(hash_of(ONE)), ONE)
    async with running(node) as (store, happened):
        await happened.wait_for("scrub_finished", 2)
        assert None not in await verified_at(store, ONE)
        assert [f["copies"] for f in happened.of("scrub_finished")] == [1, 1]
        assert [f["requested"] for f in happened.of("scrub_finished")] == [False, False]
        assert [scrub.never_verified for scrub in scrubs(store)] == [0, 0]


async def test_what_was_verified_lately_is_left_alone(node: Node) -> None:
    await stored(node)
    async with running(node) as (store, happened):
        await store.check_datasets()
        assert [scrub.state for scrub in scrubs(store)] == ["idle", "idle"]
        assert happened.of("scrub_finished") == []


async def test_copies_are_verified_again_before_the_interval_ends(node: Node) -> None:
    await stored(node)
    async with running(node, scrub_interval_s=1.0) as (store, happened):
        before = await verified_at(store, ONE)
        await happened.wait_for("scrub_finished", 4)
        after = await verified_at(store, ONE)
        assert all(
            b is not None and a is not None and a > b for a, b in zip(after, before, strict=True)
        )


async def test_a_rate_that_is_too_low_for_the_interval_is_a_warning(node: Node) -> None:
    await stored(node)
    async with node.open(scrub_interval_s=60.0, scrub_max_bytes_per_s=10) as store:
        assert any("scrub.max_bytes_per_s" in warning for warning in store.status().warnings)
    async with node.open() as store:
        assert not any("scrub" in warning for warning in store.status().warnings)


async def test_a_pass_reads_no_faster_than_it_may(node: Node) -> None:
    contents = [os.urandom(MIB) for _ in range(6)]
    rate = 2 * MIB
    async with node.open(scrub_max_bytes_per_s=rate) as store:
        await store.put_config(config(1, *contents))
        for content in contents:
            await put(store, content)
        begin_s = time.monotonic()
        await store.scrub()
        # What was read last needs no wait after it; a twentieth of a second may be made up for.
        assert time.monotonic() - begin_s >= 0.9 * (5 * MIB / rate - 0.05)
        assert [scrub.verified_bytes for scrub in scrubs(store)] == [6 * MIB] * 2


async def test_a_pass_that_begins_by_itself_reads_at_least_20_mb_a_second(node: Node) -> None:
    await stored(node)
    for index in (A, B):  # nobody has verified it, and there is a day's time for it
        await node.write_file(index, str(hash_of(ONE)), ONE)
    hangs = [node.disk(index).hang("pread", name=str(hash_of(ONE))) for index in (A, B)]
    async with running(node) as (store, happened):
        for hang in hangs:
            await off_loop(hang.wait_begun)
        assert [(s.state, s.rate_bytes_per_s) for s in scrubs(store)] == [("running", 20e6)] * 2
        for hang in hangs:
            hang.let_go()
        await happened.wait_for("scrub_finished", 2)


# ---- foreground first


async def test_a_put_that_runs_comes_first(node: Node) -> None:
    await stored(node)
    new = b"a new artifact" * 1000
    async with running(node, scrub_max_bytes_per_s=MIB) as (store, happened):
        await store.put_config(config(2, *ALL, new))
        source = GatedSource(new, before_bytes=10)
        running_put = asyncio.ensure_future(put(store, new, generation=2, source=source))
        await source.reached()
        # What nobody verified is to be verified at once, were it not for the put.
        await node.write_file(A, str(hash_of(ONE)), ONE)
        await node.take_away(A)
        await store.check_datasets()
        await node.bring_back(A)
        await store.check_datasets()
        for _ in range(20):  # its turn to look comes in the event loop, with nothing to wait for
            await asyncio.sleep(0)
        assert scrubs(store)[A].state == "running"
        assert scrubs(store)[A].rate_bytes_per_s < len(ONE)
        assert happened.of("scrub_finished") == []
        source.open_gate()
        await running_put
        await happened.wait_for("scrub_finished", dataset=str(node.paths[A]))


async def test_a_read_that_runs_counts_until_it_is_closed(node: Node) -> None:
    await stored(node)
    async with running(node, scrub_max_bytes_per_s=100 * MIB) as (store, happened):
        opened = await store.open_artifact(hash_of(ONE))
        await store.start_scrub()
        assert {scrub.rate_bytes_per_s for scrub in scrubs(store)} == {20e6}
        opened.close()
        opened.close()
        assert {scrub.rate_bytes_per_s for scrub in scrubs(store)} == {100 * MIB}
        await happened.wait_for("scrub_finished", 2)


# ---- pause


async def test_nothing_is_read_during_a_pause_and_a_start_ends_it(node: Node) -> None:
    await stored(node)
    async with running(node) as (store, happened):
        await store.pause_scrub(3600)
        assert [scrub.state for scrub in scrubs(store)] == ["paused", "paused"]
        await store.resume_scrub()
        assert store.scrub_status().paused_until_s is None
        await store.pause_scrub(3600)
        await store.start_scrub()
        await happened.wait_for("scrub_finished", 2)


async def test_a_pause_ends_by_itself_and_the_pass_goes_on(node: Node) -> None:
    await stored(node)
    async with running(node) as (store, happened):
        hang = node.disk(A).hang("pread", nth=2)
        await store.start_scrub()
        await off_loop(hang.wait_begun)
        await store.pause_scrub(0.3)
        hang.let_go()
        await happened.wait_for("scrub_finished", 2)
        assert [f["copies"] for f in happened.of("scrub_finished")] == [3, 3]


async def test_a_restart_keeps_the_pause(node: Node) -> None:
    async with node.open() as store:
        await store.pause_scrub(3600)
        until = store.scrub_status().paused_until_s
    async with node.open() as store:
        again = store.scrub_status().paused_until_s
        assert until is not None
        assert again is not None
        assert abs(again - until) < 60
        await store.resume_scrub()
    async with node.open() as store:
        assert store.scrub_status().paused_until_s is None


class Clocks:
    def __init__(self) -> None:
        self.wall_s, self.monotonic_s = 1e9, 50.0

    def pause(self, records: CopyRecords) -> Pause:
        return Pause(records, clock=lambda: self.wall_s, monotonic=lambda: self.monotonic_s)

    def passes(self, seconds: float) -> None:
        self.wall_s += seconds
        self.monotonic_s += seconds


async def test_no_clock_that_is_set_makes_a_pause_longer(node: Node) -> None:
    records, clocks = CopyRecords(node.root), Clocks()
    await records.open()
    pause = clocks.pause(records)
    await pause.begin(100)
    clocks.wall_s -= 10**6
    clocks.passes(60)
    assert pause.left_s == 40
    restarted = clocks.pause(records)
    restarted.restore()
    assert restarted.left_s == 100
    clocks.passes(100)
    assert restarted.left_s == 0
    assert restarted.until_s is None
    clocks.wall_s += 10**7
    later = clocks.pause(records)
    later.restore()
    assert later.left_s == 0
    await pause.begin(10**12)
    assert pause.left_s == MAX_PAUSE_S
    await records.close(())


# ---- datasets that come and go


async def test_a_dataset_that_leaves_is_skipped_and_taken_up_again(node: Node) -> None:
    await stored(node)
    async with running(node) as (store, happened):
        hang = node.disk(A).hang("pread", nth=2)
        await store.start_scrub()
        await off_loop(hang.wait_begun)
        await node.take_away(A)
        await store.check_datasets()
        hang.let_go()
        await happened.wait_for("scrub_finished")
        assert [scrub.state for scrub in scrubs(store)] == ["skipped", "idle"]
        await node.bring_back(A)
        await store.check_datasets()
        await happened.wait_for("scrub_finished", 2)
        # What was verified in the last moment before it left may be read again.
        assert happened.of("scrub_finished")[1]["copies"] in (3, 4)


async def test_a_suspect_dataset_is_skipped_until_it_has_recovered(node: Node) -> None:
    await stored(node)
    async with running(node, watch_interval_s=3600.0) as (store, happened):
        for call in ("pread", "create"):
            node.disk(A).fail(call, errno.EIO)
        await store.start_scrub()
        await happened.wait_for("dataset_lost")
        await happened.wait_for("scrub_finished")
        assert states(store) == ["suspect", "healthy"]
        assert scrubs(store)[A].state == "skipped"
        assert scrubs(store)[A].bad_found == 0
        node.disk(A).heal()
        await store.check_datasets()
        await happened.wait_for("scrub_finished", 2)
        assert scrubs(store)[A].bad_found == 0


async def test_a_bad_sector_is_the_copys_and_not_the_datasets(node: Node) -> None:
    async with node.open() as store:
        await put_all(store)
        node.disk(A).fail("pread", errno.EIO, name=str(hash_of(ONE)))
        assert [scrub.bad for scrub in await store.scrub()] == [1, 0]
        assert states(store) == ["healthy", "healthy"]


async def test_bytes_that_come_in_pieces_are_counted_once(node: Node) -> None:
    large = os.urandom(20 * MIB + 3)
    async with node.open() as store:
        await store.put_config(config(1, large))
        await put(store, large, source=BytesSource(large))
        (first, second) = await store.scrub()
        assert first.bytes_done == second.bytes_done == len(large)
        assert [scrub.verified_bytes for scrub in scrubs(store)] == [len(large)] * 2


async def test_b5_a_copy_that_a_scrub_finds_gone_is_counted_told_and_healed(node: Node) -> None:
    async with node.open() as store:
        await put_all(store)
        await off_loop(node.file(A, ONE).unlink)
        assert [scrub.bad for scrub in await store.scrub()] == [1, 0]
        assert [fields["sha256"] for kind, fields in node.events if kind == "copy_gone"] == [
            str(hash_of(ONE))
        ]
        status = store.scrub_status()
        assert [(each.bad_found, each.waiting) for each in status.datasets] == [(1, 1), (0, 0)]
        assert await store.remirror() == 1
        status = store.scrub_status()
        assert [(each.healed, each.waiting) for each in status.datasets] == [(1, 0), (0, 0)]


async def test_a_copy_that_is_gone_and_that_nobody_wants_is_not_bad(node: Node) -> None:
    async with node.open(delete_grace_s=600) as store:
        await put_all(store)
        await store.put_config(config(2, TWO, THREE))
        await off_loop(node.file(A, ONE).unlink)
        assert [scrub.bad for scrub in await store.scrub()] == [0, 0]
        assert "copy_gone" not in node.kinds()


async def test_b5_a_copy_that_a_read_finds_gone_is_told_and_healed_at_once(node: Node) -> None:
    await stored(node)
    async with running(node, reconcile_interval_s=3600.0) as (store, happened):
        await done_at_the_start(store, happened)
        await off_loop(node.file(A, ONE).unlink)
        with await store.open_artifact(hash_of(ONE)) as opened:
            assert opened.dataset == B
        await happened.wait_for("copy_gone", 1, sha256=str(hash_of(ONE)))
        await happened.wait_for("healed", 1, sha256=str(hash_of(ONE)))
    assert await node.read(A, ONE) == ONE


async def test_a_pass_of_a_scrub_ends_with_the_dataset_that_it_began_with(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, let_go = threading.Event(), threading.Event()
    make_queue = DatasetScrubber._queue

    def slowly(self: DatasetScrubber, *arguments: object) -> object:
        queue = make_queue(self, *arguments)  # type: ignore[arg-type]
        if self.mirror.index == A and not begun.is_set():
            begun.set()
            assert let_go.wait(WAIT_S)
        return queue

    async with node.open() as store:
        await store.put_config(config(5, ONE, TWO))
        await put(store, ONE, generation=5)
        monkeypatch.setattr(DatasetScrubber, "_queue", slowly)
        scrubbing = asyncio.ensure_future(store.scrub())
        await off_loop(begun.wait, WAIT_S)
        await node.swap(store)
        let_go.set()
        await scrubbing
        # What was begun here is of the dataset that left, which is read again where it is now.
        assert "scrub_finished" not in [kind for kind, _ in node.events]
