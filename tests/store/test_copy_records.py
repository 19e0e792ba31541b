"""What was found out about each copy outlives a restart, and its loss never stops the store."""

from __future__ import annotations

import asyncio
import errno
import math
import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import NoReturn

import pytest

from depot.artifact import ArtifactHash
from depot.errors import FormatTooNew
from depot.mirrors.open_artifact import OpenArtifact
from depot.scrub.copy_database import FILE_NAME, MAX_DATASETS, Changes, CopyDatabase, Row
from depot.store import ArtifactStore
from tests.kept_rows import age_rows, change_rows
from tests.store.builders import ONE, TWO, A, B, Node, config, copies, hash_of, off_loop, put


async def verified_at(store: ArtifactStore, content: bytes) -> list[float | None]:
    detail = await store.describe(hash_of(content))
    return [copy.verified_at for copy in detail.copies]


async def put_both(store: ArtifactStore) -> None:
    await store.put_config(config(1, ONE, TWO))
    for content in (ONE, TWO):
        await put(store, content)


async def stored(node: Node) -> None:
    async with node.open() as store:
        await put_both(store)


async def rot(node: Node, index: int, content: bytes) -> None:
    """Change a byte of a file in place, with its times kept."""

    def change() -> None:
        path = node.file(index, content)
        status = path.stat()
        with path.open("r+b") as file:
            file.write(bytes([content[0] ^ 1]))
            file.flush()
            os.fsync(file.fileno())
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

    await off_loop(change)


def database(node: Node) -> Path:
    return node.state_dir / FILE_NAME


def rows(node: Node) -> int:
    with sqlite3.connect(database(node)) as db:
        (count,) = db.execute("SELECT count(*) FROM copy").fetchone()
    db.close()
    return int(count)


async def test_when_a_copy_was_verified_is_known_after_a_restart(node: Node) -> None:
    before = time.time()
    async with node.open() as store:
        await put_both(store)
        times = await verified_at(store, ONE)
    async with node.open() as store:
        assert await verified_at(store, ONE) == times
        assert all(at is not None and at >= before for at in times)


async def test_a_damaged_copy_does_not_count_after_a_restart(node: Node) -> None:
    await stored(node)
    await rot(node, A, ONE)
    async with node.open() as store:
        assert [scrub.bad for scrub in await store.scrub()] == [1, 0]
    async with node.open() as store:
        assert copies(store) == {hash_of(ONE): 1, hash_of(TWO): 2}
        assert store.status().under_replicated == (hash_of(ONE),)


async def test_another_file_under_the_name_is_neither_verified_nor_damaged(node: Node) -> None:
    await stored(node)
    await rot(node, A, ONE)
    async with node.open() as store:
        await store.scrub()
    for index in (A, B):
        await node.write_file(index, str(hash_of(ONE)), ONE)
    async with node.open() as store:
        assert await verified_at(store, ONE) == [None, None]
        assert copies(store)[hash_of(ONE)] == 2


async def test_a_file_that_changed_after_it_was_verified_is_not_called_verified(
    node: Node,
) -> None:
    async with node.open() as store:
        await put_both(store)
        # Before the record is written, and so that only the change time tells.
        await rot(node, A, ONE)
    async with node.open() as store:
        assert (await verified_at(store, ONE))[A] is None
        assert (await verified_at(store, ONE))[B] is not None


async def test_a_time_of_verification_that_is_to_come_is_not_believed(node: Node) -> None:
    await stored(node)

    await off_loop(age_rows, database(node), -86400)
    async with node.open() as store:
        assert await verified_at(store, ONE) == [None, None]


async def test_the_rows_of_artifacts_that_are_gone_are_removed(node: Node) -> None:
    await stored(node)
    assert await off_loop(rows, node) == 4
    async with node.open(delete_grace_s=0.0) as store:
        await store.put_config(config(2, TWO))
        assert await store.reconcile() == 1
    assert await off_loop(rows, node) == 2
    await off_loop(node.file(A, TWO).unlink)
    async with node.open():
        pass
    assert await off_loop(rows, node) == 1


async def test_a_dataset_that_returns_is_remembered(node: Node) -> None:
    await stored(node)
    async with node.open() as store:
        times = await verified_at(store, ONE)
        await node.take_away(B)
        await store.check_datasets()
        await node.bring_back(B)
        await store.check_datasets()
        assert await verified_at(store, ONE) == times


def torn(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def garbage(path: Path) -> None:
    path.write_bytes(b"no database at all" * 1000)


def a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def other_tables(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE copy (something)")
    db.close()


def an_old_format_without_its_columns(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 1")


def an_old_format_that_rotted(path: Path) -> None:
    as_format_1(path, identity="no numbers")


def as_format_1(path: Path, identity: str | None = None) -> None:
    """Write the rows as the program did before facts were one column."""
    with closing(sqlite3.connect(path)) as db, db:
        rows = db.execute("SELECT dataset_id, sha256, facts FROM copy").fetchall()
        db.execute("DROP TABLE copy")
        db.execute(
            "CREATE TABLE copy (dataset_id TEXT NOT NULL, sha256 BLOB NOT NULL,"
            " size_bytes INTEGER NOT NULL, identity TEXT NOT NULL, seen_at REAL NOT NULL,"
            " verified_at REAL, damaged INTEGER NOT NULL, PRIMARY KEY (dataset_id, sha256))"
            " WITHOUT ROWID"
        )
        for *key, facts in rows:
            row = Row.unpacked(facts)
            named = identity or f"{row.inode}:{row.mtime_ns}"
            values = (*key, row.size_bytes, named, *row[3:])
            db.execute("INSERT INTO copy VALUES (?, ?, ?, ?, ?, ?, ?)", values)
        db.execute("PRAGMA user_version = 1")


async def test_b6_what_a_program_before_this_one_remembered_is_known(node: Node) -> None:
    async with node.open() as store:
        await put_both(store)
        await store._parts.records.keep_note("a note", "kept")
        say_bad(store, await store.open_artifact(hash_of(ONE), exclude=[A]))
        times = await verified_at(store, TWO)
    await off_loop(as_format_1, database(node))
    for _ in range(2):  # also when it is in the format of today
        async with node.open() as store:
            assert copies(store) == {hash_of(ONE): 1, hash_of(TWO): 2}
            assert await verified_at(store, TWO) == times
            assert store._parts.records.read_note("a note") == "kept"
            assert store._parts.records.problems == ()


def text_for_facts(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE copy SET facts = 'yesterday'")


def half_the_facts(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE copy SET facts = substr(facts, 1, 24)")


def a_name_that_is_none(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE copy SET sha256 = substr(sha256, 1, 31)")


def no_time(path: Path) -> None:
    change_rows(path, lambda row: row._replace(verified_at_s=math.nan))


@pytest.mark.parametrize(
    "damage",
    [
        torn,
        garbage,
        a_directory,
        other_tables,
        an_old_format_without_its_columns,
        an_old_format_that_rotted,
        text_for_facts,
        half_the_facts,
        a_name_that_is_none,
        no_time,
    ],
)
async def test_s5_a_database_that_cannot_be_used_is_set_aside_and_begun_anew(
    node: Node, damage: object
) -> None:
    await stored(node)
    assert callable(damage)
    await off_loop(damage, database(node))
    async with node.open() as store:
        assert await verified_at(store, ONE) == [None, None]
        assert copies(store)[hash_of(ONE)] == 2
        assert any(FILE_NAME in warning for warning in store.status().warnings)
        await store.scrub()
        times = await verified_at(store, ONE)
        assert None not in times
    assert await off_loop(database(node).with_name(f"{FILE_NAME}.unusable").exists)
    async with node.open() as store:
        assert await verified_at(store, ONE) == times
        assert not any(FILE_NAME in warning for warning in store.status().warnings)


async def test_s5_a_database_that_breaks_while_it_is_used_is_begun_anew(node: Node) -> None:
    async with node.open() as store:
        await put_both(store)
        await store.scrub()
        await off_loop(garbage, database(node))
        await off_loop(database(node).with_name(f"{FILE_NAME}-wal").unlink)
        await rot(node, A, ONE)
        await store.scrub()
        times = await verified_at(store, TWO)
    async with node.open() as store:
        assert await verified_at(store, TWO) == times
        assert copies(store)[hash_of(ONE)] == 1


async def test_s5_while_another_process_locks_it_the_store_goes_on_in_memory(node: Node) -> None:
    await stored(node)
    lock = sqlite3.connect(database(node), isolation_level=None, check_same_thread=False)
    await off_loop(lock.execute, "BEGIN EXCLUSIVE")
    async with node.open() as store:
        assert copies(store)[hash_of(ONE)] == 2
        assert any("in memory only" in warning for warning in store.status().warnings)
        await off_loop(lock.close)
        await store.scrub()
        assert not any("in memory only" in warning for warning in store.status().warnings)
        times = await verified_at(store, ONE)
    async with node.open() as store:
        assert await verified_at(store, ONE) == times
    assert not await off_loop(database(node).with_name(f"{FILE_NAME}.unusable").exists)


async def test_a_database_of_a_newer_program_is_refused(node: Node) -> None:
    await stored(node)

    def raise_version() -> None:
        with sqlite3.connect(database(node)) as db:
            db.execute("PRAGMA user_version = 99")
        db.close()

    await off_loop(raise_version)
    with pytest.raises(FormatTooNew, match="format 99"):
        async with node.open():
            pass


def test_only_the_datasets_seen_last_are_remembered(tmp_path: Path) -> None:
    db = CopyDatabase(tmp_path / FILE_NAME)
    for number in range(MAX_DATASETS + 5):
        db.recall(f"dataset-{number}", float(number))
    with sqlite3.connect(tmp_path / FILE_NAME) as other:
        (count,) = other.execute("SELECT count(*) FROM dataset").fetchone()
    other.close()
    db.close()
    assert count == MAX_DATASETS


async def test_the_record_of_twenty_thousand_copies_is_written_and_read(tmp_path: Path) -> None:
    # Not a measurement: it must only not be refused for its size.
    db = await off_loop(CopyDatabase, tmp_path / FILE_NAME)
    names = [ArtifactHash(n.to_bytes(32, "big")) for n in range(20_000)]
    row = Row(1, 2, 3, 1.0, 2.0, damaged=False)
    await off_loop(db.write, [Changes("d", dict.fromkeys(names, row), {})])
    remembered = await off_loop(lambda: list(db.recall("d", 3.0).rows))
    assert [each for rows in remembered for each in rows.each()] == [(name, row) for name in names]
    await off_loop(db.close)


async def test_what_a_cancelled_writing_had_begun_with_is_written_at_the_end(node: Node) -> None:
    async with node.open() as store:
        await put_both(store)
        await store._parts.records.flush(store._parts.mirrors.all)
        await rot(node, B, ONE)
        with await store.open_artifact(hash_of(ONE), exclude=[A]) as opened:
            store.read_failed(opened, OSError(errno.EIO, "bad"))
        looking = node.disk(B).hang("stat", name=str(hash_of(ONE)))
        writing = asyncio.ensure_future(store._parts.records.flush(store._parts.mirrors.all))
        await off_loop(looking.wait_begun)
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        looking.let_go()
    async with node.open() as store:
        assert copies(store) == {hash_of(ONE): 1, hash_of(TWO): 2}


async def test_b6_what_could_not_be_read_at_the_start_is_not_written_over(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(_database: CopyDatabase, _dataset_id: str, _now_s: float) -> NoReturn:
        raise OSError(errno.ETIMEDOUT, "the disk is slow")

    await stored(node)
    await rot(node, A, ONE)
    async with node.open() as store:
        assert [scrub.bad for scrub in await store.scrub()] == [1, 0]
    with monkeypatch.context() as patched:
        patched.setattr(CopyDatabase, "recall", busy)
        async with node.open() as store:
            assert store._parts.records.problems
            await store._parts.records.flush(store._parts.mirrors.all)
    async with node.open() as store:
        assert copies(store) == {hash_of(ONE): 1, hash_of(TWO): 2}


async def test_b6_what_was_not_written_before_a_dataset_went_is_not_believed_when_it_returns(
    node: Node,
) -> None:
    async with node.open() as store:
        await put_both(store)
        await store._parts.records.flush(store._parts.mirrors.all)
        await rot(node, B, ONE)
        with await store.open_artifact(hash_of(ONE), exclude=[A]) as opened:
            store.read_failed(opened, OSError(errno.EIO, "bad"))
        await node.take_away(B)
        await store.check_datasets()
        await store._parts.records.flush(store._parts.mirrors.all)
        await node.bring_back(B)
        await store.check_datasets()
        assert (await verified_at(store, ONE))[B] is None
        assert (await verified_at(store, TWO))[B] is not None


async def test_what_was_overtaken_before_a_dataset_left_for_another_is_not_believed(
    node: Node,
) -> None:
    async with node.open() as store:
        await put_both(store)
        with await store.open_artifact(hash_of(ONE), exclude=[A]) as opened:
            store.read_failed(opened, OSError(errno.EIO, "a bad moment"))
        await store._parts.records.flush(store._parts.mirrors.all)
        assert (await put(store, ONE)).copies == 2  # it is read again, and was right all the time
        await node.swap(store)
        assert copies(store) == {hash_of(ONE): 2, hash_of(TWO): 2}


async def come_back(node: Node, store: ArtifactStore, *, good_copies: int) -> None:
    await node.bring_back(B)
    await store.check_datasets()
    assert copies(store) == {hash_of(ONE): good_copies, hash_of(TWO): 2}


def say_bad(store: ArtifactStore, opened: OpenArtifact) -> None:
    with opened:
        store.read_failed(opened, OSError(errno.EIO, "a bad moment"))


@pytest.mark.parametrize("restarted", [False, True])
async def test_b6_what_was_said_to_be_bad_before_a_dataset_went_is_not_called_good_when_it_returns(
    node: Node, restarted: bool
) -> None:
    async with node.open() as store:
        await put_both(store)
        await store._parts.records.flush(store._parts.mirrors.all)
        say_bad(store, await store.open_artifact(hash_of(ONE), exclude=[A]))
        await node.take_away(B)
        await store.check_datasets()
        if not restarted:
            await come_back(node, store, good_copies=1)
            assert (await verified_at(store, ONE))[B] is None
    if restarted:
        async with node.open() as store:
            await come_back(node, store, good_copies=1)
            assert (await verified_at(store, ONE))[B] is None


@pytest.mark.parametrize("restarted", [False, True])
async def test_what_was_found_to_be_right_before_a_dataset_went_is_not_called_bad_when_it_returns(
    node: Node, restarted: bool
) -> None:
    async with node.open() as store:
        await put_both(store)
        say_bad(store, await store.open_artifact(hash_of(ONE), exclude=[A]))
        await store._parts.records.flush(store._parts.mirrors.all)
        assert (await put(store, ONE)).copies == 2  # it is read again, and was right all the time
        await node.take_away(B)
        await store.check_datasets()
        if not restarted:
            await come_back(node, store, good_copies=2)
    if restarted:
        async with node.open() as store:
            await come_back(node, store, good_copies=2)
