"""Short puts that are made durable together: each keeps every rule that it keeps alone."""

from __future__ import annotations

import asyncio
import errno
from collections import Counter
from collections.abc import Sequence

import pytest

from depot.artifact import Generation
from depot.errors import ArtifactGeneration, HashMismatch, QuotaExceeded
from depot.store import ArtifactStore
from depot.writing.put import WHOLE_BYTES
from depot.writing.stored import Stored
from tests.store.builders import (
    ONE,
    TWO,
    A,
    B,
    BytesSource,
    Node,
    config,
    copies,
    hash_of,
    off_loop,
    put,
    put_short,
    read_back,
    reserved_bytes,
    states,
    used_bytes,
)
from tests.store.faulty import HANG_S, WAIT_S, Hang

_TURNS = 50
"""More turns of the event loop than a put takes until it waits for its batch."""
MANY = [b"short artifact %d" % number for number in range(6)]


class Ways:
    """Which way the puts of a batch take.

    Attributes:
        short: that of puts that need no task each.
    """

    short = False


@pytest.fixture(params=[False, True], ids=["put", "short"], autouse=True)
def short(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Every rule of a batch holds both ways."""
    monkeypatch.setattr(Ways, "short", request.param)
    return bool(request.param)


class Batch:
    """Puts of `MANY` that wait together behind one of `ONE`, which hangs on both datasets."""

    def __init__(self, node: Node, store: ArtifactStore) -> None:
        self.node = node
        self.store = store
        self.running: list[asyncio.Task[Stored]] = []
        self._hangs: list[Hang] = []
        self._first: asyncio.Task[Stored] | None = None

    async def gather(self, contents: Sequence[bytes] = MANY) -> None:
        """Begin them, and have them queued by the time this returns."""
        self._hangs = [self.node.disk(index).hang("fsync", name="staging") for index in (A, B)]
        self._first = asyncio.create_task(put(self.store, ONE))
        for hang in self._hangs:
            await off_loop(hang.wait_begun)
        self.running = [
            asyncio.create_task(store_whole(self.store, content)) for content in contents
        ]
        for _ in range(_TURNS):
            await asyncio.sleep(0)
        for index in (A, B):
            self.node.disk(index).calls.clear()

    async def let_go(self) -> list[Stored | BaseException]:
        """Let the first one end; how the others end."""
        for hang in self._hangs:
            hang.let_go()
        assert self._first is not None
        await self._first
        return await asyncio.gather(*self.running, return_exceptions=True)

    async def run(self) -> list[Stored | BaseException]:
        await self.gather()
        return await self.let_go()


async def store_whole(store: ArtifactStore, content: bytes) -> Stored:
    """Put what is in memory: no thread comes between this and the batch."""
    artifact = hash_of(content)
    if Ways.short:
        stored = await put_short(store, artifact, Generation(1), content)
        if stored is not None:
            return stored
    async with store.begin_put(artifact, Generation(1), len(content)) as admitted:
        return admitted.held or await admitted.store(content)


async def nothing_is_under_way(store: ArtifactStore) -> None:
    """Wait until also what landed late is settled."""
    async with asyncio.timeout(WAIT_S):
        while any(reserved_bytes(store)):
            await off_loop(bool)  # not a look at the files: one may be taken back meanwhile


def calls(node: Node, index: int) -> Counter[str]:
    return Counter(call for call, _ in node.disk(index).calls)


def number_of_copies(outcomes: Sequence[Stored | BaseException]) -> list[int | str]:
    """The copies of each put, or the name of its error."""
    return [o.copies if isinstance(o, Stored) else type(o).__name__ for o in outcomes]


async def test_what_waits_is_made_durable_together(node: Node) -> None:
    async with node.open() as store:
        await store.put_config(config(1, ONE, *MANY))
        assert number_of_copies(await Batch(node, store).run()) == [2] * len(MANY)
        for index in (A, B):
            made = calls(node, index)
            # Of those, one directory sync is of the put that came alone before them.
            assert (made["sync_whole"], made["fsync"], made["fsync_directory"]) == (1, 0, 2)
            assert await node.names(index) == {str(hash_of(c)) for c in (ONE, *MANY)}
        for content in MANY:
            assert await read_back(store, content) == content
        assert reserved_bytes(store) == [0, 0]
    assert await node.leftovers() == []


@pytest.mark.parametrize("why", ["filesystem", "dirty"])
async def test_each_is_synced_by_itself_where_one_sync_for_all_is_no_good(
    node: Node, why: str
) -> None:
    for index in (A, B):
        node.disk(index).whole = why != "filesystem"
        node.disk(index).dirty = (1 << 40) * (why == "dirty")
    async with node.open() as store:
        await store.put_config(config(1, ONE, *MANY))
        assert number_of_copies(await Batch(node, store).run()) == [2] * len(MANY)
        for index in (A, B):
            made = calls(node, index)
            assert (made["sync_whole"], made["fsync"]) == (0, len(MANY))
            assert made["fsync_directory"] == 2


async def test_nothing_is_made_durable_together_when_it_is_switched_off(node: Node) -> None:
    async with node.open(group_commit=False) as store:
        await store.put_config(config(1, *MANY))
        stored = await asyncio.gather(*(put(store, content) for content in MANY))
        assert number_of_copies(stored) == [2] * len(MANY)
        assert "sync_whole" not in calls(node, A)


async def test_a_longer_body_or_one_of_unknown_length_is_not_read_whole(node: Node) -> None:
    longest = bytes(WHOLE_BYTES)
    async with node.open() as store:
        await store.put_config(config(1, ONE, longest, longest + b"1"))
        for content, length, whole in (
            (ONE, None, False),
            (longest, len(longest), True),
            (longest + b"1", len(longest) + 1, False),
        ):
            async with store.begin_put(hash_of(content), Generation(1), length) as admitted:
                assert admitted.wants_whole is whole
                assert (await admitted.receive(BytesSource(content))).copies == 2


# Durable before the answer


@pytest.mark.parametrize("call", ["sync_whole", "fsync_directory"])
async def test_b3_no_put_of_a_batch_is_answered_before_all_of_it_is_durable(
    node: Node, call: str
) -> None:
    async with node.open() as store:
        await store.put_config(config(1, ONE, *MANY))
        batch = Batch(node, store)
        await batch.gather()
        # The next directory sync is that of the put before them.
        nth = 2 if call == "fsync_directory" else 1
        hangs = [node.disk(index).hang(call, nth=nth) for index in (A, B)]
        ending = asyncio.create_task(batch.let_go())
        for hang in hangs:
            await off_loop(hang.wait_begun)
        assert not any(task.done() for task in batch.running)
        assert copies(store) == {hash_of(ONE): 2}
        for hang in hangs:
            hang.let_go()
        assert number_of_copies(await ending) == [2] * len(MANY)


@pytest.mark.parametrize("call", ["sync_whole", "fsync_directory"])
async def test_b3_a_batch_whose_sync_failed_is_not_there_and_the_dataset_is_in_doubt(
    node: Node, call: str
) -> None:
    async with node.open() as store:
        await store.put_config(config(1, ONE, *MANY))
        batch = Batch(node, store)
        await batch.gather()
        node.disk(B).fail(call, errno.EIO, nth=2 if call == "fsync_directory" else 1, times=1)
        assert number_of_copies(await batch.let_go()) == [1] * len(MANY)
        assert states(store) == ["healthy", "suspect"]
        assert await node.names(B) == {str(hash_of(ONE))}
        assert set(copies(store).values()) == {1}, "in doubt"
        assert await node.leftovers() == []
        await store.check_datasets()
        await store.remirror()
        assert set(copies(store).values()) == {2}


# One bad one


async def test_g5_the_fence_is_asked_for_each_of_a_batch(node: Node) -> None:
    async with node.open(delete_grace_s=0.0) as store:
        await store.put_config(config(1, ONE, *MANY))
        batch = Batch(node, store)
        await batch.gather()
        await store.put_config(config(2, ONE, *MANY[1:]))
        outcomes = await batch.let_go()
        assert isinstance(outcomes[0], ArtifactGeneration)
        assert number_of_copies(outcomes[1:]) == [2] * len(MANY[1:])
        for index in (A, B):
            assert await node.names(index) == {str(hash_of(c)) for c in (ONE, *MANY[1:])}


async def test_what_finds_no_room_fails_alone(node: Node) -> None:
    async with node.open() as store:
        await store.put_config(config(1, ONE, *MANY))
        batch = Batch(node, store)
        await batch.gather()
        for index in (A, B):
            node.disk(index).fail("write", errno.ENOSPC, nth=3, times=1)
        outcomes = await batch.let_go()
        assert isinstance(outcomes[2], QuotaExceeded)
        assert number_of_copies(outcomes[:2] + outcomes[3:]) == [2] * (len(MANY) - 1)
        assert states(store) == ["healthy", "healthy"]
        assert reserved_bytes(store) == [0, 0]
    assert await node.leftovers() == []


async def test_b4_what_one_dataset_cannot_write_is_on_the_other(node: Node) -> None:
    async with node.open() as store:
        await store.put_config(config(1, ONE, *MANY))
        batch = Batch(node, store)
        await batch.gather()
        node.disk(A).fail("create", errno.EIO, nth=2, times=1, name="staging")
        # Those beside it have a file on both, but after such an error nothing there is believed.
        assert number_of_copies(await batch.let_go()) == [1] * len(MANY)
        assert states(store) == ["suspect", "healthy"]


@pytest.mark.parametrize("error", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
async def test_a_want_of_the_process_is_not_held_against_the_dataset(
    node: Node, error: int
) -> None:
    async with node.open() as store:
        await store.put_config(config(1, ONE, *MANY))
        batch = Batch(node, store)
        await batch.gather()
        node.disk(A).fail("create", error, nth=2, times=1, name="staging")
        assert number_of_copies(await batch.let_go()) == [2, 1, 2, 2, 2, 2]
        assert states(store) == ["healthy", "healthy"]
        await store.remirror()
        assert set(copies(store).values()) == {2}


async def test_a_want_of_the_process_fails_one_batch_and_not_those_behind_it(node: Node) -> None:
    async with node.open() as store:
        await store.put_config(config(1, ONE, TWO, *MANY))
        batch = Batch(node, store)
        await batch.gather()
        # The descriptor that all of them are synced through.
        whole = node.disk(A).hang("open")
        node.disk(A).fail("open", errno.EMFILE, times=1)
        ending = asyncio.create_task(batch.let_go())
        await off_loop(whole.wait_begun)
        behind = asyncio.create_task(store_whole(store, TWO))
        for _ in range(_TURNS):
            await asyncio.sleep(0)
        whole.let_go()
        assert number_of_copies(await ending) == [1] * len(MANY)
        assert (await behind).copies == 2
        assert states(store) == ["healthy", "healthy"]
        assert reserved_bytes(store) == [0, 0]
    assert await node.leftovers() == []


async def test_b6_what_stands_under_a_name_costs_the_others_nothing(node: Node) -> None:
    async with node.open() as store:
        await store.put_config(config(1, ONE, *MANY))
        batch = Batch(node, store)
        await batch.gather()
        await off_loop(node.file(A, MANY[1]).mkdir)
        await node.write_file(B, str(hash_of(MANY[2])), b"not those bytes")
        assert number_of_copies(await batch.let_go()) == [2, 1, 2, 2, 2, 2]
        assert states(store) == ["healthy", "healthy"]
        assert await node.read(B, MANY[2]) == MANY[2]
        aside = [(found.index, found.file.artifact) for found in store.quarantined()]
        assert aside == [(B, hash_of(MANY[2]))]


async def test_a_wrong_body_is_refused_and_never_written(node: Node) -> None:
    async with node.open() as store:
        await store.put_config(config(1, *MANY))
        wrong = BytesSource(MANY[0][::-1])
        outcomes = await asyncio.gather(
            put(store, MANY[0], source=wrong),
            *(put(store, content) for content in MANY[1:]),
            return_exceptions=True,
        )
        assert isinstance(outcomes[0], HashMismatch)
        assert number_of_copies(outcomes[1:]) == [2] * len(MANY[1:])
        assert await node.read(A, MANY[0]) is None


async def test_writers_of_one_artifact_land_one_after_the_other(node: Node) -> None:
    async with node.open() as store:
        await store.put_config(config(1, ONE, *MANY))
        batch = Batch(node, store)
        await batch.gather([*MANY, *MANY])
        assert number_of_copies(await batch.let_go()) == [2] * 2 * len(MANY)
    assert await node.leftovers() == []


# Slow, gone, given up


async def test_b4_a_dataset_that_hangs_in_a_batch_is_dropped_from_it(node: Node) -> None:
    async with node.open(mirror_lag_s=0.1) as store:
        await store.put_config(config(1, ONE, *MANY))
        batch = Batch(node, store)
        await batch.gather()
        hang = node.disk(A).hang("sync_whole")
        ending = asyncio.create_task(batch.let_go())
        assert number_of_copies(await ending) == [1] * len(MANY)
        assert states(store) == ["suspect", "healthy"]
        assert await node.names(A) == {str(hash_of(ONE))}
        hang.let_go()
        await off_loop(hang.wait_ended)
        await store.check_datasets()
        await store.reconcile()
        await store.remirror()
        assert set(copies(store).values()) == {2}
    assert await node.leftovers() == []


async def test_b4_a_dataset_that_hangs_for_good_fails_those_that_wait_behind_it(
    node: Node,
) -> None:
    async with node.open(device_timeout_s=HANG_S, mirror_lag_s=60.0) as store:
        await store.put_config(config(1, ONE, *MANY))
        hang = node.disk(A).hang("fsync", name="staging")
        first = asyncio.create_task(put(store, ONE))
        await off_loop(hang.wait_begun)
        others = [asyncio.create_task(store_whole(store, content)) for content in MANY]
        assert number_of_copies(await asyncio.gather(first, *others)) == [1] * (1 + len(MANY))
        hang.let_go()


async def test_a_dataset_that_comes_back_gets_nothing_that_was_meant_for_the_one_before(
    node: Node,
) -> None:
    async with node.open() as store:
        await store.put_config(config(1, ONE, *MANY))
        batch = Batch(node, store)
        await batch.gather()
        await node.take_away(A)
        await store.check_datasets()
        await node.bring_back(A)
        await store.check_datasets()
        outcomes = await batch.let_go()
        assert number_of_copies(outcomes) == [1] * len(MANY)


async def test_a_put_that_was_cancelled_while_it_waited_is_not_written(
    node: Node, short: bool
) -> None:
    if short:
        pytest.skip("has no task to cancel")
    async with node.open() as store:
        await store.put_config(config(1, ONE, *MANY))
        batch = Batch(node, store)
        await batch.gather()
        batch.running[0].cancel()
        outcomes = await batch.let_go()
        assert isinstance(outcomes[0], asyncio.CancelledError)
        assert number_of_copies(outcomes[1:]) == [2] * len(MANY[1:])
        assert await node.read(A, MANY[0]) is None
        assert reserved_bytes(store) == [0, 0]
    assert await node.leftovers() == []


async def test_q1_what_is_being_written_for_a_put_that_was_cancelled_stays_reserved(
    node: Node,
) -> None:
    async with node.open() as store:
        await store.put_config(config(1, ONE, *MANY))
        batch = Batch(node, store)
        await batch.gather()
        hangs = [node.disk(index).hang("sync_whole") for index in (A, B)]
        ending = asyncio.create_task(batch.let_go())
        for hang in hangs:
            await off_loop(hang.wait_begun)
        batch.running[0].cancel()
        await asyncio.wait((batch.running[0],))
        assert reserved_bytes(store) == [sum(map(len, MANY))] * 2
        for hang in hangs:
            hang.let_go()
        assert number_of_copies(await ending) == ["CancelledError"] + [2] * len(MANY[1:])
        await nothing_is_under_way(store)
        assert used_bytes(store) == [len(ONE) + sum(map(len, MANY))] * 2, "as it is on the disk"
        assert copies(store)[hash_of(MANY[0])] == 2
    assert await node.leftovers() == []


async def test_q1_what_a_cancelled_put_had_on_one_dataset_is_counted_there(node: Node) -> None:
    async with node.open(mirror_lag_s=60.0) as store:
        await store.put_config(config(1, ONE, TWO))
        hang = node.disk(B).hang("rename", name=str(hash_of(ONE)))
        putting = asyncio.create_task(put(store, ONE))
        await off_loop(hang.wait_begun)
        after_it = asyncio.create_task(put(store, TWO))
        async with asyncio.timeout(WAIT_S):
            while str(hash_of(TWO)) not in await node.names(A):
                pass
        putting.cancel()
        await asyncio.wait((putting,))
        held = zip(used_bytes(store), reserved_bytes(store), strict=True)
        assert [used + reserved for used, reserved in held] == [len(ONE) + len(TWO)] * 2
        hang.let_go()
        assert (await after_it).copies == 2
        await nothing_is_under_way(store)
        assert used_bytes(store) == [len(ONE) + len(TWO)] * 2


async def test_a_put_that_comes_again_after_it_was_cancelled_sets_nothing_aside(
    node: Node,
) -> None:
    async with node.open(mirror_lag_s=60.0) as store:
        await store.put_config(config(1, ONE, TWO))
        hang = node.disk(B).hang("rename", name=str(hash_of(ONE)))
        putting = asyncio.create_task(put(store, ONE))
        await off_loop(hang.wait_begun)
        # A dataset begins with the next batch when what became of the last one has been told.
        after_it = asyncio.create_task(put(store, TWO))
        async with asyncio.timeout(WAIT_S):
            while str(hash_of(TWO)) not in await node.names(A):
                pass
        async with store.begin_put(hash_of(ONE), Generation(1), len(ONE)) as admitted:
            again = asyncio.create_task(admitted.store(ONE))
            for _ in range(_TURNS):
                await asyncio.sleep(0)
            putting.cancel()
            for _ in range(_TURNS):
                await asyncio.sleep(0)
            hang.let_go()
            assert (await again).copies == 2
        assert (await after_it).copies == 2
        await nothing_is_under_way(store)
        assert store.quarantined() == ()
        assert copies(store) == {hash_of(ONE): 2, hash_of(TWO): 2}
        assert used_bytes(store) == [len(ONE) + len(TWO)] * 2


async def test_g5_what_lands_late_and_is_not_wanted_any_more_is_taken_back(node: Node) -> None:
    async with node.open(mirror_lag_s=0.1) as store:
        await store.put_config(config(1, ONE, TWO))
        hang = node.disk(A).hang("rename", name=str(hash_of(ONE)))
        assert (await put(store, ONE)).copies == 1
        assert reserved_bytes(store) == [len(ONE), 0]
        await store.put_config(config(2, TWO))
        hang.let_go()
        await nothing_is_under_way(store)
        assert await node.names(A) == set()
        assert used_bytes(store)[A] == 0


async def test_what_lands_late_counts_and_is_not_set_aside_for_the_next_writer(
    node: Node,
) -> None:
    async with node.open(mirror_lag_s=0.1) as store:
        await store.put_config(config(1, ONE))
        hang = node.disk(A).hang("rename", name=str(hash_of(ONE)))
        assert (await put(store, ONE)).copies == 1
        await store.check_datasets()
        assert states(store) == ["healthy", "healthy"]
        async with store.begin_put(hash_of(ONE), Generation(1), len(ONE)) as admitted:
            again = asyncio.create_task(admitted.store(ONE))
            for _ in range(_TURNS):
                await asyncio.sleep(0)
            hang.let_go()
            assert (await again).copies == 2
        await nothing_is_under_way(store)
        assert store.quarantined() == ()
        assert "quarantined" not in node.kinds()
        assert copies(store) == {hash_of(ONE): 2}
        assert used_bytes(store) == [len(ONE)] * 2


async def test_what_lands_after_the_deadline_of_the_device_counts(node: Node) -> None:
    async with node.open(device_timeout_s=2.0, mirror_lag_s=60.0) as store:
        await store.put_config(config(1, ONE))
        hang = node.disk(A).hang("rename", name=str(hash_of(ONE)))
        assert (await put(store, ONE)).copies == 1
        assert reserved_bytes(store) == [len(ONE), 0]
        hang.let_go()
        await nothing_is_under_way(store)
        assert copies(store) == {hash_of(ONE): 2}
        assert used_bytes(store) == [len(ONE)] * 2


# What is believed of a dataset that failed meanwhile


async def test_b3_what_landed_beside_an_error_of_the_device_is_in_doubt_too(node: Node) -> None:
    async with node.open() as store:
        await store.put_config(config(1, ONE, *MANY))
        batch = Batch(node, store)
        await batch.gather()
        node.disk(A).fail("create", errno.EIO, nth=2, times=1, name="staging")
        assert number_of_copies(await batch.let_go()) == [1] * len(MANY)
        assert states(store) == ["suspect", "healthy"]
        assert set(copies(store).values()) == {1}, "in doubt"
        await node.write_file(A, str(hash_of(MANY[0])), bytes(len(MANY[0])))  # as the device has it
        await store.check_datasets()
        assert states(store) == ["healthy", "healthy"]
        assert copies(store)[hash_of(MANY[0])] == 1
        await store.remirror()
        assert set(copies(store).values()) == {2}
    assert await node.read(A, MANY[0]) == MANY[0]


async def test_b3_what_landed_nowhere_but_beside_errors_of_the_device_is_not_acknowledged(
    node: Node,
) -> None:
    async with node.open() as store:
        await store.put_config(config(1, ONE, *MANY))
        batch = Batch(node, store)
        await batch.gather()
        for index in (A, B):
            node.disk(index).fail("create", errno.EIO, nth=2, times=1, name="staging")
        outcomes = await batch.let_go()
        assert number_of_copies(outcomes) == ["Io"] * len(MANY)
        assert "in doubt" in str(outcomes[0])
        assert copies(store) == {}
        await store.check_datasets()
        assert copies(store)[hash_of(MANY[0])] == 2, "what was written stays"
        assert hash_of(MANY[1]) not in copies(store)


async def test_b3_a_copy_on_a_dataset_that_left_before_the_other_had_one_is_not_counted(
    node: Node,
) -> None:
    async with node.open() as store:
        await store.put_config(config(1, ONE, TWO))
        hang = node.disk(B).hang("fsync", name="staging")
        putting = asyncio.create_task(put(store, ONE))
        await off_loop(hang.wait_begun)
        # A dataset begins with the next batch when what became of the last one has been told.
        after_it = asyncio.create_task(put(store, TWO))
        async with asyncio.timeout(WAIT_S):
            while str(hash_of(TWO)) not in await node.names(A):
                pass
        await node.take_away(A)
        await store.check_datasets()
        hang.let_go()
        assert (await putting).copies == 1
        assert (await after_it).copies == 1
        await node.bring_back(A)
        await store.check_datasets()
        assert copies(store) == {hash_of(ONE): 2, hash_of(TWO): 2}
