from __future__ import annotations

import asyncio
import copy
import errno
import os
import resource
import stat
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from depot.artifact import ArtifactHash, Generation
from depot.config.ledger import Ledger
from depot.errors import (
    ArtifactGeneration,
    BodyTimeout,
    HashMismatch,
    Io,
    LengthMismatch,
    NoConfig,
    NotInConfig,
    TooFewCopies,
    TooManyPuts,
)
from depot.writing.put import WHOLE_BYTES
from tests import ondisk
from tests.store.arrivals import eventually
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
    read_back,
    reserved_bytes,
    states,
    threads_end,
    used_bytes,
)
from tests.store.faulty import HANG_S

LARGE = os.urandom(5 * MIB + 12_345)
"""Large enough for direct I/O, and no multiple of any block size."""


async def test_put_writes_every_mirror_from_one_pass_over_the_body(node: Node) -> None:
    async with node.open() as store:
        await store.put_config(config(1, LARGE))
        source = BytesSource(LARGE, piece_bytes=70_001)
        stored = await put(store, LARGE, source=source)
        assert (stored.datasets, stored.copies, stored.failures) == (2, 2, ())
        assert source.read_bytes == len(LARGE)
        assert await read_back(store, LARGE) == LARGE
        assert copies(store) == {hash_of(LARGE): 2}
    assert [await node.read(index, LARGE) for index in (A, B)] == [LARGE, LARGE]
    assert await node.leftovers() == []


async def test_put_says_so_in_one_event(node: Node) -> None:
    async with node.open() as store:
        await store.put_config(config(1, ONE))
        await put(store, ONE)
        await put(store, ONE)
    assert [fields["copies"] for kind, fields in node.events if kind == "put"] == [2]


async def test_put_takes_the_empty_artifact(node: Node) -> None:
    async with node.open() as store:
        await store.put_config(config(1, b""))
        assert (await put(store, b"")).copies == 2
        assert copies(store) == {hash_of(b""): 2}


@pytest.fixture
def strict_umask() -> Iterator[None]:
    before = os.umask(0o077)
    yield
    os.umask(before)


@pytest.mark.usefixtures("strict_umask")
async def test_an_artifact_is_readable_by_all_and_writable_by_none_whatever_the_umask(
    node: Node,
) -> None:
    async with node.open() as store:
        await store.put_config(config(1, ONE))
        await put(store, ONE)
    found = await off_loop(node.file(A, ONE).stat)
    assert stat.S_IMODE(found.st_mode) == 0o444


@pytest.mark.parametrize(
    ("source", "refusal"),
    [
        (BytesSource(TWO[: len(ONE)]), HashMismatch),
        (BytesSource(ONE[:-1]), LengthMismatch),
        (BytesSource(b""), LengthMismatch),
        (BytesSource(ONE + b"!"), LengthMismatch),
        (BytesSource(ONE + b"!" * 3 * MIB), LengthMismatch),
        (BytesSource(ONE[:50], error=ConnectionResetError("gone")), ConnectionResetError),
        (BytesSource(ONE, error=BodyTimeout("silent")), BodyTimeout),
    ],
    ids=["wrong", "short", "empty", "long", "far too long", "broken", "silent at its end"],
)
async def test_a_refused_body_leaves_nothing_anywhere(
    node: Node, source: BytesSource, refusal: type[Exception]
) -> None:
    async with node.open() as store:
        await store.put_config(config(1, ONE))
        with pytest.raises(refusal):
            # The parameter is one object for every way that the test runs.
            await put(store, ONE, source=copy.copy(source))
        assert reserved_bytes(store) == used_bytes(store) == [0, 0]
        assert copies(store) == {}
        assert states(store) == ["healthy", "healthy"]
        assert await node.names(A) == await node.names(B) == set()
        assert await node.leftovers() == []
        assert (await put(store, ONE)).copies == 2


@pytest.mark.parametrize("content", [TWO, ONE[:-1]])
async def test_a_wrong_body_of_unknown_length_is_a_hash_mismatch(
    node: Node, content: bytes
) -> None:
    async with node.open() as store:
        await store.put_config(config(1, ONE))
        with pytest.raises(HashMismatch) as refused:
            await put(store, ONE, source=BytesSource(content), announced=False)
        assert refused.value.actual == hash_of(content)
        assert reserved_bytes(store) == used_bytes(store) == [0, 0]
        assert await node.leftovers() == []


async def test_refusals_come_in_the_order_of_the_contract(node: Node) -> None:
    async with node.open() as store:
        with pytest.raises(NoConfig):
            await put(store, ONE)
        await store.put_config(config(5, ONE))
        for generation in (4, 6):
            with pytest.raises(ArtifactGeneration):
                await put(store, TWO, generation=generation)
        with pytest.raises(NotInConfig):
            await put(store, TWO, generation=5)


# Concurrent writers of one artifact


@pytest.mark.parametrize("writers", [2, 10])
async def test_concurrent_puts_of_one_artifact_all_succeed(node: Node, writers: int) -> None:
    async with node.open() as store:
        await store.put_config(config(1, ONE))
        sources = [GatedSource(ONE, before_bytes=100) for _ in range(writers)]
        async with asyncio.TaskGroup() as group:
            puts = [group.create_task(put(store, ONE, source=source)) for source in sources]
            for source in sources:
                await source.reached()
            assert reserved_bytes(store) == [writers * len(ONE)] * 2
            for source in sources:
                source.open_gate()
        assert [task.result().copies for task in puts] == [2] * writers
        assert reserved_bytes(store) == [0, 0]
        assert used_bytes(store) == [len(ONE), len(ONE)]
        assert await read_back(store, ONE) == ONE
    assert await node.leftovers() == []


async def test_one_writer_that_dies_half_way_leaves_the_others_alone(node: Node) -> None:
    async with node.open() as store:
        await store.put_config(config(1, ONE))
        good = GatedSource(ONE, before_bytes=100)
        dying = GatedSource(ONE[:200], before_bytes=100, error=ConnectionResetError("gone"))
        async with asyncio.TaskGroup() as group:
            right = group.create_task(put(store, ONE, source=good))
            await good.reached()
            broken = asyncio.ensure_future(put(store, ONE, source=dying))
            await dying.reached()
            dying.open_gate()
            with pytest.raises(ConnectionResetError):
                await broken
            good.open_gate()
        assert right.result().copies == 2
        assert used_bytes(store) == [len(ONE), len(ONE)]


@pytest.mark.parametrize("first", ["wrong", "right"])
async def test_a_wrong_writer_beside_a_right_one_is_refused_alone(node: Node, first: str) -> None:
    async with node.open() as store:
        await store.put_config(config(1, ONE))
        right, wrong = GatedSource(ONE), GatedSource(TWO[: len(ONE)])
        landing = asyncio.ensure_future(put(store, ONE, source=right))
        failing = asyncio.ensure_future(put(store, ONE, source=wrong))
        await right.reached()
        await wrong.reached()
        if first == "right":
            right.open_gate()
            assert (await landing).copies == 2
            wrong.open_gate()
            with pytest.raises(HashMismatch):
                await failing
        else:
            wrong.open_gate()
            with pytest.raises(HashMismatch):
                await failing
            right.open_gate()
            assert (await landing).copies == 2
        assert await node.read(A, ONE) == await node.read(B, ONE) == ONE
        assert reserved_bytes(store) == [0, 0]
    assert await node.leftovers() == []


async def test_only_so_many_puts_run_at_once(node: Node) -> None:
    async with node.open(max_concurrent_puts=1) as store:
        await store.put_config(config(1, ONE, TWO))
        source = GatedSource(ONE)
        running = asyncio.ensure_future(put(store, ONE, source=source))
        await source.reached()
        assert store.status().puts_running == 1
        with pytest.raises(TooManyPuts):
            await put(store, TWO)
        async with store.begin_put(hash_of(TWO), Generation(1), len(TWO), counted=False) as copy:
            assert (await copy.receive(BytesSource(TWO))).copies == 2
        assert (await put(store, TWO)).copies == 2  # held: nothing runs
        source.open_gate()
        await running
        assert store.status().puts_running == 0


# Bad and missing copies (B5, B6)


async def damage(node: Node, how: str) -> None:
    content = {"truncated": ONE[:10], "flipped": b"X" + ONE[1:], "longer": ONE + b"!"}.get(how)
    if content is None:
        await off_loop(node.file(B, ONE).unlink)
    else:
        await node.write_file(B, str(hash_of(ONE)), content)


DAMAGES = ["missing", "truncated", "flipped", "longer"]


@pytest.mark.parametrize("restarted", [False, True], ids=["running", "restarted"])
@pytest.mark.parametrize("how", DAMAGES)
async def test_a_put_replaces_a_bad_copy_and_leaves_the_good_one(
    node: Node, how: str, restarted: bool
) -> None:
    async with node.open() as store:
        await store.put_config(config(1, ONE))
        await put(store, ONE)
        good = await node.inode(A, ONE)
        if not restarted:
            await damage(node, how)
            assert (await put(store, ONE)).copies == 2
    if restarted:
        await damage(node, how)
        async with node.open() as store:
            assert (await put(store, ONE)).copies == 2
            assert used_bytes(store) == [len(ONE), len(ONE)]
    assert await node.read(B, ONE) == ONE
    assert await node.inode(A, ONE) == good


async def test_a_held_artifact_needs_no_body_and_no_room(node: Node) -> None:
    async with node.open(quota_bytes=len(ONE)) as store:
        await store.put_config(config(1, ONE))
        await put(store, ONE)
        before = [await node.inode(index, ONE) for index in (A, B)]
        async with store.begin_put(hash_of(ONE), Generation(1), 10 * len(ONE)) as admitted:
            assert admitted.held is not None
            assert admitted.held.copies == 2
            assert reserved_bytes(store) == [0, 0]
        assert [await node.inode(index, ONE) for index in (A, B)] == before


@pytest.mark.parametrize("how", DAMAGES)
async def test_a_bad_copy_is_not_held(node: Node, how: str) -> None:
    async with node.open() as store:
        await store.put_config(config(1, ONE))
        await put(store, ONE)
        await damage(node, how)
        async with store.begin_put(hash_of(ONE), Generation(1), len(ONE)) as admitted:
            assert admitted.held is None
        assert copies(store) == {hash_of(ONE): 1}


@pytest.mark.in_threads
async def test_a_copy_that_cannot_be_read_is_not_held_and_is_replaced(node: Node) -> None:
    async with node.open() as store:
        await store.put_config(config(1, ONE))
        await put(store, ONE)
        before = await node.inode(B, ONE)
        node.disk(B).fail("pread", errno.EIO, name=str(hash_of(ONE)))
        assert (await put(store, ONE)).copies == 2
        assert states(store) == ["healthy", "healthy"]
    assert await node.inode(B, ONE) != before


@pytest.mark.in_threads
async def test_a_want_of_the_process_is_not_held_against_the_dataset(node: Node) -> None:
    long = bytes(WHOLE_BYTES + 1)
    async with node.open() as store:
        await store.put_config(config(1, long))
        node.disk(B).fail("create", errno.EMFILE, times=1, name="staging")
        assert (await put(store, long)).copies == 1
        assert states(store) == ["healthy", "healthy"]
        await store.remirror()
        assert copies(store) == {hash_of(long): 2}


@pytest.mark.in_threads
async def test_what_cannot_be_verified_is_not_held(node: Node) -> None:
    async with node.open() as store:
        await store.put_config(config(1, ONE))
        await put(store, ONE)
        # Not the copy's fault, and not the dataset's.
        node.disk(B).fail("open", errno.EMFILE, name=str(hash_of(ONE)))
        async with store.begin_put(hash_of(ONE), Generation(1), len(ONE)) as admitted:
            assert admitted.held is None
        assert copies(store) == {hash_of(ONE): 2}


@pytest.mark.in_threads
async def test_b5_a_copy_that_cannot_be_read_is_found_out_also_where_no_file_can_be_made(
    node: Node,
) -> None:
    async with node.open() as store:
        await store.put_config(config(1, ONE))
        await put(store, ONE)
        node.disk(B).fail("create", errno.ENOSPC)
        node.disk(B).fail("pread", errno.EIO, name=str(hash_of(ONE)))
        await store.scrub()
        assert copies(store) == {hash_of(ONE): 1}
        assert states(store) == ["healthy", "healthy"]


@pytest.mark.in_threads
@pytest.mark.parametrize("why", ["no room", "staged file lost", "quarantine not synced"])
async def test_b6_what_was_set_aside_for_a_file_that_got_no_name_has_its_name_again(
    node: Node, why: str
) -> None:
    long = bytes(WHOLE_BYTES + 1)
    name = str(hash_of(long))
    async with node.open() as store:
        await store.put_config(config(1, long))
        await node.write_file(B, name, long)
        await store.reconcile()
        disk = node.disk(B)
        disk.fail("open", errno.EMFILE, name=name)  # it cannot be verified
        match why:
            case "no room":
                disk.fail("rename", errno.ENOSPC, name="staging", times=1)
            case "staged file lost":
                disk.before("rename", partial(_lose_staged, node.paths[B]), name=name)
            case _:
                disk.fail("open", errno.EMFILE, name="quarantine", times=1)
        assert (await put(store, long)).copies == 1
        assert await node.read(B, long) == long
        assert store.quarantined() == ()
        assert used_bytes(store) == [len(long), len(long)]
        disk.heal()
        await store.reconcile()
        assert copies(store) == {hash_of(long): 2}
        assert store.quarantined() == ()
    assert await node.leftovers() == []


async def test_held_is_not_enough_with_fewer_copies_than_demanded(node: Node) -> None:
    async with node.open(min_copies=2) as store:
        await store.put_config(config(1, ONE))
        await node.take_away(B)
        await store.check_datasets()
        with pytest.raises(TooFewCopies):
            await put(store, ONE)
        with pytest.raises(TooFewCopies):
            await put(store, ONE)
        await node.bring_back(B)
        await store.check_datasets()
        await store.remirror()
        assert (await put(store, ONE)).copies == 2


# What stands under an artifact's name


async def test_a_symbolic_link_under_an_artifacts_name_is_replaced_and_never_followed(
    node: Node, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    await off_loop(victim.write_bytes, ONE)
    await off_loop(node.file(A, ONE).symlink_to, victim)
    async with node.open() as store:
        await store.put_config(config(1, ONE))
        assert copies(store) == {}
        assert (await put(store, ONE)).copies == 2
        assert states(store) == ["healthy", "healthy"]
    assert not await off_loop(node.file(A, ONE).is_symlink)
    assert (await off_loop(victim.stat)).st_mode & 0o200


async def test_a_directory_under_an_artifacts_name_is_left_alone_and_costs_one_copy(
    node: Node,
) -> None:
    await off_loop(node.file(A, ONE).mkdir)
    async with node.open() as store:
        await store.put_config(config(1, ONE, TWO))
        stored = await put(store, ONE)
        assert (stored.datasets, stored.copies) == (2, 1)
        assert stored.failures == ("dataset 1: EISDIR: Is a directory",)
        assert states(store) == ["healthy", "healthy"]  # one name says nothing about the disk
        assert (await put(store, TWO)).copies == 2
        assert await store.remirror() == 0
        assert any("EISDIR" in warning for warning in store.status().warnings)
        await store.put_config(config(2, TWO))
        await store.reconcile()
    assert await off_loop(node.file(A, ONE).is_dir)


@pytest.mark.in_threads
@pytest.mark.parametrize("what", ["symlink", "directory", "fifo"])
async def test_what_replaced_an_artifact_behind_our_back_is_not_read(
    node: Node, tmp_path: Path, what: str
) -> None:
    async with node.open(device_timeout_s=5.0) as store:
        await store.put_config(config(1, ONE))
        await put(store, ONE)
        path = node.file(A, ONE)
        await off_loop(path.unlink)
        victim = tmp_path / "victim"
        await off_loop(victim.write_bytes, TWO)
        make = {"symlink": lambda: path.symlink_to(victim), "directory": path.mkdir}
        await off_loop(make.get(what, lambda: os.mkfifo(path)))
        with await store.open_artifact(hash_of(ONE)) as opened:
            assert opened.dataset == B
        assert states(store) == ["healthy", "healthy"]
        assert copies(store) == {hash_of(ONE): 1}


# The fence at the commit (G5)


async def test_a_put_lands_under_a_newer_config_that_still_wants_it(node: Node) -> None:
    async with node.open() as store:
        await store.put_config(config(1, ONE))
        source = GatedSource(ONE)
        running = asyncio.ensure_future(put(store, ONE, source=source))
        await source.reached()
        await store.put_config(config(2, ONE, TWO))
        source.open_gate()
        assert (await running).copies == 2


async def test_a_put_whose_artifact_left_the_config_leaves_nothing(node: Node) -> None:
    async with node.open() as store:
        await store.put_config(config(1, ONE))
        source = GatedSource(ONE)
        running = asyncio.ensure_future(put(store, ONE, source=source))
        await source.reached()
        await store.put_config(config(2, TWO))
        source.open_gate()
        with pytest.raises(ArtifactGeneration):
            await running
        assert reserved_bytes(store) == used_bytes(store) == [0, 0]
        assert await node.names(A) == await node.names(B) == set()
    assert await node.leftovers() == []


@pytest.mark.in_threads
@pytest.mark.parametrize("change", ["config", "reset"])
async def test_a_file_that_was_named_while_the_config_moved_on_is_taken_back(
    node: Node, change: str
) -> None:
    async with node.open() as store:
        await store.put_config(config(1, ONE))
        naming = [node.disk(index).hang("rename", name=str(hash_of(ONE))) for index in (A, B)]
        running = asyncio.ensure_future(put(store, ONE))
        for hang in naming:
            await off_loop(hang.wait_begun)
        if change == "config":
            await store.put_config(config(2, TWO))
        else:
            await store.reset(Generation(1))
        for hang in naming:
            hang.let_go()
        with pytest.raises(ArtifactGeneration if change == "config" else NoConfig):
            await running
        assert reserved_bytes(store) == used_bytes(store) == [0, 0]
        assert await node.names(A) == await node.names(B) == set()


@pytest.mark.in_threads
@pytest.mark.parametrize("how", ["fails", "cancelled"])
async def test_q1_a_file_that_could_not_be_taken_back_is_counted_until_it_is_gone(
    node: Node, how: str
) -> None:
    async with node.open(delete_grace_s=0.0) as store:
        await store.put_config(config(1, ONE))
        naming = [node.disk(index).hang("rename", name=str(hash_of(ONE))) for index in (A, B)]
        running = asyncio.ensure_future(put(store, ONE))
        for hang in naming:
            await off_loop(hang.wait_begun)
        await store.put_config(config(2, TWO))
        unlinking = node.disk(A).hang("unlink", name=str(hash_of(ONE)))
        node.disk(A).fail("unlink", errno.EIO, name=str(hash_of(ONE)), times=1)
        for hang in naming:
            hang.let_go()
        await off_loop(unlinking.wait_begun)
        if how == "cancelled":
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
            assert used_bytes(store) == [len(ONE), len(ONE)]
        unlinking.let_go()
        if how == "fails":
            with pytest.raises(ArtifactGeneration):
                await running
            assert used_bytes(store) == [len(ONE), 0]
            assert states(store) == ["suspect", "healthy"]
        # What its staging left is looked after on the side, and is reserved until then.
        await eventually(lambda: reserved_bytes(store) == [0, 0])
        await store.check_datasets()
        await store.reconcile()
        assert used_bytes(store) == [0, 0]
        assert await node.names(A) == await node.names(B) == set()


@pytest.mark.in_threads
async def test_b3_no_put_is_answered_for_a_file_that_is_being_taken_back(node: Node) -> None:
    async with node.open(delete_grace_s=0.0) as store:
        await store.put_config(config(1, ONE))
        naming = [node.disk(index).hang("rename", name=str(hash_of(ONE))) for index in (A, B)]
        running = asyncio.ensure_future(put(store, ONE))
        for hang in naming:
            await off_loop(hang.wait_begun)
        await store.put_config(config(2, TWO))
        unlinking = node.disk(A).hang("unlink", name=str(hash_of(ONE)))
        for hang in naming:
            hang.let_go()
        await off_loop(unlinking.wait_begun)
        await store.put_config(config(3, ONE))
        again = asyncio.ensure_future(put(store, ONE, generation=3))
        await asyncio.wait((again,), timeout=0.1)  # it has to wait for the first
        unlinking.let_go()
        with pytest.raises(ArtifactGeneration):
            await running
        assert (await again).copies == 2
        assert await node.read(A, ONE) == await node.read(B, ONE) == ONE
        assert used_bytes(store) == [len(ONE)] * 2
        assert reserved_bytes(store) == [0, 0]


@pytest.mark.in_threads
async def test_taking_back_spares_the_copy_of_a_writer_that_was_faster(node: Node) -> None:
    # D4: what was acknowledged before a mass drop stays for the grace period.
    async with node.open() as store:
        await store.put_config(config(1, ONE))
        late = GatedSource(ONE)
        running = asyncio.ensure_future(put(store, ONE, source=late))
        await late.reached()
        await put(store, ONE)
        naming = [node.disk(index).hang("rename", name=str(hash_of(ONE))) for index in (A, B)]
        late.open_gate()
        for hang in naming:
            await off_loop(hang.wait_begun)
        await store.put_config(config(2))
        for hang in naming:
            hang.let_go()
        with pytest.raises(ArtifactGeneration):
            await running
        await store.put_config(config(3, ONE))
        assert copies(store) == {hash_of(ONE): 2}
        assert await node.read(A, ONE) == await node.read(B, ONE) == ONE


async def test_nothing_lands_while_two_datasets_contradict_each_other(node: Node) -> None:
    async with node.open() as store:
        await store.put_config(config(1, ONE))
        await node.take_away(B)
        await store.check_datasets()
        source = GatedSource(ONE)
        running = asyncio.ensure_future(put(store, ONE, source=source))
        await source.reached()
        await node.write_ledger(B, Ledger(0, config(1, TWO)))
        await node.bring_back(B)
        await store.check_datasets()
        assert store.status().ledger == "conflicted"
        source.open_gate()
        with pytest.raises(Exception, match="different configs of generation 1"):
            await running
        assert await node.names(A) == set()


# Ends of all kinds


@pytest.mark.in_threads
async def test_a_cancelled_put_keeps_its_reservation_until_its_bytes_are_gone(node: Node) -> None:
    async with node.open() as store:
        await store.put_config(config(1, LARGE))
        source = GatedSource(LARGE, before_bytes=3 * MIB)
        discarding = [node.disk(index).hang("unlink", name="staging") for index in (A, B)]
        running = asyncio.ensure_future(put(store, LARGE, source=source))
        await source.reached()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        for hang in discarding:
            await off_loop(hang.wait_begun)
        assert reserved_bytes(store) == [len(LARGE), len(LARGE)]  # Q1
        for hang in discarding:
            hang.let_go()
            await off_loop(hang.wait_ended)
        assert await node.leftovers() == []
    await threads_end("ingest-")
    assert reserved_bytes(store) == [0, 0]


@pytest.mark.in_threads
@pytest.mark.parametrize("how", ["cancelled", "too slow"])
async def test_q1_what_is_refused_stays_reserved_until_its_bytes_are_gone(
    node: Node, how: str
) -> None:
    timeout_s = 20.0 if how == "cancelled" else HANG_S
    async with node.open(device_timeout_s=timeout_s) as store:
        await store.put_config(config(1, LARGE))
        hang = node.disk(A).hang("unlink", name="staging")
        running = asyncio.ensure_future(put(store, LARGE, source=BytesSource(LARGE[::-1])))
        await off_loop(hang.wait_begun)
        if how == "cancelled":
            running.cancel()
        with pytest.raises(asyncio.CancelledError if how == "cancelled" else HashMismatch):
            await running
        assert reserved_bytes(store)[A] == len(LARGE)
        hang.let_go()
        await off_loop(hang.wait_ended)
        async with asyncio.timeout(20):
            while any(reserved_bytes(store)):
                await node.names(A)
        assert await node.leftovers() == []


@pytest.mark.in_threads
async def test_q1_what_was_written_whole_for_a_put_that_is_cancelled_is_discarded_first(
    node: Node,
) -> None:
    async with node.open() as store:
        await store.put_config(config(1, LARGE))
        written = node.disk(A).hang("fsync", name="staging")
        discarding = node.disk(A).hang("unlink", name="staging")
        running = asyncio.ensure_future(put(store, LARGE))
        await off_loop(written.wait_begun)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        written.let_go()
        await off_loop(discarding.wait_begun)
        assert reserved_bytes(store)[A] == len(LARGE)
        discarding.let_go()
        await off_loop(discarding.wait_ended)
        async with asyncio.timeout(20):
            while any(reserved_bytes(store)):
                await node.names(A)
        assert await node.leftovers() == []


def open_files(roots: list[Path]) -> list[str]:
    """What this process has open at or below some directories."""
    found: list[str] = []
    for fd in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            found.append(os.readlink(f"/proc/self/fd/{fd}"))
    return sorted(path for path in found if path.startswith(tuple(map(str, roots))))


async def test_two_hundred_puts_leave_no_descriptor_and_no_thread(node: Node) -> None:
    contents = [b"%d" % number for number in range(200)]
    async with node.open() as store:
        await store.put_config(config(1, *contents))
        await put(store, contents[0])
        # Only this node's files: what an earlier test left to be closed may be closed meanwhile.
        open_before = await off_loop(open_files, node.paths)
        for content in contents:
            assert (await put(store, content)).copies == 2
        assert await off_loop(open_files, node.paths) == open_before
        assert len(copies(store)) == 200
    await threads_end("dataset-")
    await threads_end("ingest-")


async def test_memory_does_not_grow_with_the_artifact(node: Node) -> None:
    # S1: 24 MiB pass through at most eight blocks.
    content = bytes(24 * MIB)
    async with node.open() as store:
        await store.put_config(config(1, content, ONE))
        await put(store, ONE)
        before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        await put(store, content, source=BytesSource(content))
        grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib
    assert grown_kib < 16 << 10


@pytest.mark.in_threads
async def test_every_copy_failing_is_an_io_error_that_names_no_path(node: Node) -> None:
    async with node.open() as store:
        await store.put_config(config(1, ONE))
        for index in (A, B):
            node.disk(index).fail("fsync", errno.EIO)
        with pytest.raises(Io) as failed:
            await put(store, ONE)
        assert str(node.root) not in str(failed.value)
        assert reserved_bytes(store) == [0, 0]
    assert await node.leftovers() == []


async def test_an_artifact_nobody_put_is_not_listed(node: Node) -> None:
    async with node.open() as store:
        await store.put_config(config(1, ONE, THREE))
        await put(store, ONE)
        assert set(copies(store)) == {hash_of(ONE)}
        assert isinstance(next(iter(copies(store))), ArtifactHash)


@pytest.mark.in_threads
async def test_b4_no_answer_waits_for_digests_that_a_dataset_hangs_with(node: Node) -> None:
    async with node.open(mirror_lag_s=0.1, device_timeout_s=60.0) as store:
        await store.put_config(config(1, LARGE))
        hang = node.disk(B).hang("rename", name="blocks/")
        putting = asyncio.create_task(put(store, LARGE))
        await off_loop(hang.wait_begun)
        done, _ = await asyncio.wait((putting,), timeout=10)
        hang.let_go()
        assert done, "it waits for what can be derived"
        assert (await putting).copies == 2
        assert copies(store) == {hash_of(LARGE): 2}
        await off_loop(hang.wait_ended)
    assert await node.leftovers() == []


@pytest.mark.in_threads
@pytest.mark.parametrize("lands", [True, False], ids=["lands", "fails"])
async def test_b3_a_copy_that_left_while_the_body_came_is_not_counted(
    node: Node, lands: bool
) -> None:
    async with node.open() as store:
        await store.put_config(config(1, ONE))
        node.disk(B).fail("write", errno.ENOSPC, times=1)
        assert (await put(store, ONE)).copies == 1  # on A
        source = GatedSource(ONE, before_bytes=100)
        putting = asyncio.create_task(put(store, ONE, source=source))
        await source.reached()
        await node.take_away(A)
        await store.check_datasets()
        if not lands:
            node.disk(B).fail("fsync", errno.EIO, name="staging")
        source.open_gate()
        if lands:
            assert (await putting).copies == 1
        else:
            with pytest.raises(Io):
                await putting


def _lose_staged(dataset: Path) -> None:
    for staged in ondisk.staged_files(dataset):
        staged.unlink()
