"""A snapshot back in the place of the database: verified, whole, and never behind the sleds."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import update

from agent.snapshots.errors import Unfit
from agent.snapshots.files import FileArchive
from coordinator.cli.depot_coordinator import run
from coordinator.cli.restoring import past_interruptions
from coordinator.database import generation, sleds
from coordinator.database.database import Database
from coordinator.database.engine import parse_url
from coordinator.database.tables import sleds as sleds_table
from coordinator.database.transaction import Transaction
from coordinator.errors import DatabaseInUse, DatabaseUnavailable, ShardInUse
from coordinator.journal.checking import Checker
from coordinator.journal.checkpoints import Checkpoint, signed
from coordinator.journal.findings import Checked
from coordinator.journal.journal import Journal
from coordinator.journal.keys import KeyDirectory
from coordinator.snapshots import contents, restoring
from tests.coordinator.database.making import opened
from tests.coordinator.database.test_migrations import execute
from tests.coordinator.journal.telling import tell
from tests.coordinator.postgres import PostgresServer
from tests.coordinator.running import InThread
from tests.coordinator.snapshots.making import publish, raise_by_one
from tests.unit.fake_node import FakeNode


@dataclass(frozen=True, slots=True)
class Place:
    """A configuration, its database, and the archive that it names."""

    config: Path
    url: str
    directory: Path
    archive: FileArchive

    async def raised(self, times: int = 1) -> None:
        async with await opened(self.url) as database:
            for _ in range(times):
                await database.run(raise_by_one)

    async def generation(self) -> int:
        # As a coordinator that starts.
        async with await Database.open(self.url) as database:
            return int(await database.run(generation.read))

    async def published(self) -> None:
        await asyncio.to_thread(publish_as_named, self)

    async def restored(self, *arguments: object) -> int:
        words = ["snapshot", "restore", "--yes", "--config", self.config, *arguments]
        return await asyncio.to_thread(run, [str(word) for word in words])


def publish_as_named(place: Place) -> None:
    publish(place.archive, place.url, place.directory)


@pytest.fixture
def place(url: str, archive: FileArchive, tmp_path: Path) -> Place:
    return Place(tmp_path / "coordinator.toml", url, tmp_path, archive)


@pytest.fixture(autouse=True)
def configured(place: Place) -> None:
    place.config.write_text(
        f'[database]\nurl = "{place.url}"\n[staging]\npath = "{place.directory}/staging"\n'
        f'[snapshot]\narchive = "{place.archive.url}"\nname = "fleet"\n'
    )


@pytest.fixture
def node() -> Iterator[FakeNode]:
    with FakeNode() as node:
        yield node


async def add_sled(place: Place, sled_id: str, agent_url: str, confirmed: int | None) -> None:
    async def add(tx: Transaction) -> None:
        await sleds.upsert(tx, sled_id, agent_url, agent_url)
        its = sleds_table.c.id == sled_id
        await tx.write(update(sleds_table).where(its).values(generation=confirmed))

    async with await opened(place.url) as database:
        await database.run(add)


async def test_the_database_is_what_it_was_when_it_was_published(
    place: Place, server: PostgresServer | None, capsys: pytest.CaptureFixture[str]
) -> None:
    await place.raised(3)
    await place.published()
    await place.raised(2)

    assert await place.restored("--json") == 0

    document = json.loads(capsys.readouterr().out)
    assert (document["generation"], document["advance_to"]) == (4, None)
    assert await place.generation() == 4
    await place.raised()  # and it is one that is worked with
    kept = Path(document["kept"])
    read = contents.of_file if server is None else contents.of_dump
    assert (await asyncio.to_thread(read, kept)).generation == 6


async def test_it_does_not_go_back_behind_what_a_sled_is_known_to_have_accepted(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    await add_sled(place, "s1", "http://127.0.0.1:9", 1)
    await place.published()
    await place.raised(2)
    await add_sled(place, "s1", "http://127.0.0.1:9", 3)

    assert await place.restored() == 3
    said = capsys.readouterr().err
    assert "s1 (3)" in said
    assert "generation advance" in said
    assert await place.generation() == 3

    assert await place.restored("--behind") == 0
    assert "depot-coordinator generation advance 4" in capsys.readouterr().out
    assert await place.generation() == 1


@pytest.mark.parametrize("server", ["sqlite"], indirect=True)
async def test_f3_a_sled_is_asked_what_it_has_accepted_also_when_the_database_is_gone(
    place: Place, node: FakeNode, capsys: pytest.CaptureFixture[str]
) -> None:
    await add_sled(place, "s1", node.agent_url, 1)
    await place.published()
    node.config = (7, [])
    file = place.directory / "fleet.sqlite3"
    await asyncio.to_thread(file.write_bytes, b"not a database at all" * 400)

    assert await place.restored() == 3
    assert "s1 (7)" in capsys.readouterr().err
    assert await asyncio.to_thread(file.read_bytes) == b"not a database at all" * 400
    assert await place.restored("--behind") == 0
    assert "generation advance 8" in capsys.readouterr().out
    assert await place.generation() == 1


async def test_a_database_that_is_in_use_is_not_replaced(place: Place, url: str) -> None:
    await place.published()
    async with await opened(url) as database:
        await database.run(generation.read)
        with pytest.raises(DatabaseInUse):
            await asyncio.to_thread(restoring.require_unused, parse_url(url))
        assert await place.restored() == 3


@pytest.mark.parametrize("server", ["sqlite"], indirect=True)
async def test_a_download_is_over_before_anything_is_asked(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    await place.published()
    arguments = ["snapshot", "restore", "--config", str(place.config)]
    assert await asyncio.to_thread(run, arguments) == 2
    told = capsys.readouterr().err
    assert "stopped" not in told
    assert told.index("downloading: ") < told.index("has to be confirmed")


@pytest.mark.parametrize("server", ["sqlite"], indirect=True)
def test_a_coordinator_that_runs_keeps_its_database(
    place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    publish_as_named(place)
    with InThread(tmp_path):
        assert run(["snapshot", "restore", "--yes", "--config", str(place.config)]) == 3
    assert "a coordinator is running on" in capsys.readouterr().err


async def test_a_damaged_snapshot_changes_nothing(
    place: Place, server: PostgresServer | None
) -> None:
    await place.published()
    await place.raised()
    await asyncio.to_thread(cut_newest, place.directory / "archive/fleet.versions")
    assert await place.restored() == 1
    assert await place.generation() == 2


def cut_newest(versions: Path) -> None:
    data = versions / "current/data"
    data.write_bytes(data.read_bytes()[:-100])


async def test_a_file_is_checked_by_itself(place: Place, server: PostgresServer | None) -> None:
    await place.raised()
    for content in (
        b"",
        b"something else",
        b"PGDMP and no more",
        b"SQLite format 3\0" + b"x" * 5000,
    ):
        file = place.directory / "file"
        await asyncio.to_thread(file.write_bytes, content)
        with pytest.raises(Unfit):
            await asyncio.to_thread(restoring.verified, parse_url(place.url), file)
        assert await place.restored(file) == 1
    assert await place.generation() == 2


@pytest.mark.parametrize("server", ["sqlite"], indirect=True)
async def test_a_database_that_is_not_there_yet_is_put_there_from_a_file(place: Place) -> None:
    await place.raised()
    file = place.directory / "fleet.sqlite3"
    elsewhere = place.directory / "copy"
    await asyncio.to_thread(file.rename, elsewhere)
    assert await place.restored(elsewhere) == 0
    assert await place.generation() == 2


@pytest.mark.parametrize("server", ["postgresql"], indirect=True)
async def test_a_restore_that_fails_half_way_leaves_the_database_as_it_was(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    await place.published()
    await place.raised()
    # Something of somebody else's, under a name that the snapshot needs.
    await execute(place.url, "DROP INDEX ix_journal_entries_time")
    await execute(place.url, 'CREATE TABLE "ix_journal_entries_time" (theirs INTEGER)')
    assert await place.restored() == 3
    assert "already exists" in capsys.readouterr().err
    assert await place.generation() == 2


@pytest.mark.parametrize("server", ["postgresql"], indirect=True)
async def test_what_cannot_be_copied_is_replaced_only_by_who_says_that_it_may_be_lost(
    place: Place, server: PostgresServer, capsys: pytest.CaptureFixture[str]
) -> None:
    await place.published()
    await place.raised()
    await server.lose_table(parse_url(place.url).database or "", "journal_nodes")

    assert await place.restored() == 3
    said = capsys.readouterr().err
    assert "nothing was changed" in said
    assert "journal_nodes" in said
    assert "--without-copy: what is there is lost then" in said
    assert await place.generation() == 2

    assert await place.restored("--without-copy", "--json") == 0
    assert json.loads(capsys.readouterr().out)["kept"] is None
    assert await place.generation() == 1
    names = await asyncio.to_thread(os.listdir, place.directory)
    assert [name for name in names if "before-restore" in name] == []


@pytest.mark.parametrize("server", ["sqlite"], indirect=True)
async def test_a_file_is_kept_whoever_says_what(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    await place.published()
    assert await place.restored("--without-copy") == 2
    assert "a SQLite file is kept" in capsys.readouterr().err


async def test_a_snapshot_of_a_newer_schema_changes_nothing(
    place: Place, server: PostgresServer | None, capsys: pytest.CaptureFixture[str]
) -> None:
    await execute(place.url, "UPDATE alembic_version SET version_num = 'ffff'")
    await place.published()
    await execute(place.url, "UPDATE alembic_version SET version_num = '0004'")
    await place.raised()
    assert await place.restored() == 1
    assert "newer version" in capsys.readouterr().err
    assert await place.generation() == 2


@pytest.mark.parametrize("server", ["sqlite"], indirect=True)
async def test_a_journal_that_cannot_say_what_is_lost_leaves_the_database_as_it_was(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    await place.published()
    await place.raised()
    await asyncio.to_thread((place.directory / "journal-keys").write_text, "no directory")
    assert await place.restored() == 3
    assert "nothing was changed" in capsys.readouterr().err
    assert await place.generation() == 2


@pytest.mark.parametrize("server", ["postgresql"], indirect=True)
async def test_no_coordinator_takes_a_restore_that_was_not_ended_and_another_one_ends_it(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    await place.published()
    await place.raised()
    in_the_way = place.directory / "journal-keys"
    await asyncio.to_thread(in_the_way.write_text, "no directory")
    assert await place.restored() == 3
    assert "before-restore" in capsys.readouterr().err
    with pytest.raises(DatabaseUnavailable, match="once more"):
        await place.generation()
    await asyncio.to_thread(in_the_way.unlink)
    assert await place.restored() == 0
    assert await place.generation() == 1


async def test_what_is_not_to_be_left_half_done_is_waited_for_though_it_is_stopped() -> None:
    begun, may_end = asyncio.Event(), asyncio.Event()

    async def work() -> str:
        begun.set()
        await may_end.wait()
        return "whole"

    waiting = asyncio.create_task(past_interruptions(work()))
    await begun.wait()
    waiting.cancel()
    await asyncio.sleep(0)
    may_end.set()
    assert await waiting == "whole"


def test_a_script_is_without_what_older_servers_do_not_know(tmp_path: Path) -> None:
    script = tmp_path / "restore.sql"
    setting, row = "SET transaction_timeout = 0;\n", "COPY x (a) FROM stdin;\n"
    script.write_text(f"--\n\nSET lock_timeout = 0;\n{setting}{row}{setting}\\.\n")
    restoring.without_newer_settings(script)
    assert script.read_text() == f"--\n\nSET lock_timeout = 0;\n{row}{setting}\\.\n"


def test_what_is_kept_is_for_nobody_else_to_read(tmp_path: Path) -> None:
    was, kept = tmp_path / "was.dump", tmp_path / "kept.dump"
    was.write_text("all of it")
    was.chmod(0o644)
    restoring.keep_durably(was, kept)
    assert (kept.read_text(), kept.stat().st_mode & 0o777) == ("all of it", 0o600)


class Past:
    """A journal that went on after the snapshot; and what sleds keep of it."""

    def __init__(self, place: Place) -> None:
        self.keys = place.directory / "journal-keys"
        self._url = place.url

    async def went_on(self, *names: str, rotate: bool = False) -> str:
        """Tell these; the checkpoint after that."""
        async with await opened(self._url) as database:
            journal = await Journal.open(database, self.keys)
            await tell(database, *names)
            if rotate:
                await journal.rotate()
                await tell(database, "in the next one")
            return (await journal.checkpoint())[1].note

    async def checked(self, *kept: str) -> Checked:
        async with await opened(self._url) as database:
            journal = await Journal.open(database, self.keys)
            checker = Checker(witnessed=[("sled s1", note) for note in kept])
            async for record in journal.export():
                checker.feed(record)
            return checker.end()

    async def undone(self) -> None:
        async with await opened(self._url) as database:
            await (await Journal.open(database, self.keys)).undo_rotation()


async def test_the_journal_says_what_is_lost_and_goes_on_apart_from_it(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    past = Past(place)
    before = await past.went_on("a", "b")
    await place.published()
    beyond = await past.went_on("c", "d", "e")
    elsewhere = await past.went_on("f", rotate=True)
    assert await place.restored("--json") == 0

    lost = json.loads(capsys.readouterr().out)["journal"]["lost"]
    assert sorted(lost.values()) == [2, 7]
    # What happens now has the same places, and others kept something else of these.
    now = await past.went_on("another c", "another d", "another e", "another f")
    checked = await past.checked(before, beyond, elsewhere, now)
    assert checked.findings == []
    assert checked.restores == 1
    (remark,) = checked.remarks
    assert "put back to a copy with 2 entries" in remark.what
    assert "7 entries as far as was known" in remark.what
    assert "2 checkpoints kept elsewhere" in remark.what
    with pytest.raises(ShardInUse):
        await past.undone()


@pytest.mark.parametrize("server", ["sqlite"], indirect=True)
async def test_a_restore_explains_nothing_that_the_copy_had_nor_what_nobody_lost(
    place: Place,
) -> None:
    past = Past(place)
    before = await past.went_on("a", "b")
    await place.published()
    assert await place.restored() == 0

    shard = before.partition("\n")[0].rpartition("/")[2]
    key = await asyncio.to_thread(KeyDirectory(past.keys).load, shard)
    lie = signed(Checkpoint(key.verifier.name, 1, bytes(32)), key)
    assert [each.index for each in (await past.checked(lie)).findings] == [0]
    unheard_of = before.replace(shard, "0123456789abcdef")
    assert "which is not here" in (await past.checked(unheard_of)).findings[0].what


def test_copied_tables_are_read_as_they_were_written() -> None:
    text = (
        "SET x;\nCOPY public.sleds (id, agent_url, generation) FROM stdin;\n"
        "s1\thttp://a:1\t\\N\ns\\\\2\thttp://b:1\t7\n\\.\n\n"
        'COPY public."generation" (id, value) FROM stdin;\n1\t9\n\\.\n'
    )
    assert dict(contents.copied_tables(text)) == {
        "sleds": [
            {"id": "s1", "agent_url": "http://a:1", "generation": None},
            {"id": "s\\2", "agent_url": "http://b:1", "generation": "7"},
        ],
        "generation": [{"id": "1", "value": "9"}],
    }
