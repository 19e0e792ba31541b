"""`depot-coordinator journal`, as an operator uses it."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from coordinator.journal.journal import Journal
from coordinator.journal.notes import SignerKey
from coordinator.settings import DATABASE_FILE
from tests.coordinator.cli.conftest import Cli
from tests.coordinator.database.making import opened


@pytest.fixture
def told(cli: Cli) -> Cli:
    """Three things happened, and between the last two a shard was sealed."""
    cli.fine("sled", "add", "s1", "127.0.0.1:1")
    cli.fine("sled", "add", "s2", "127.0.0.2:1")
    assert "is sealed" in cli.fine("journal", "rotate")
    cli.fine("sled", "expunge", "s1", "--yes")
    return cli


@contextmanager
def sled_that_keeps(*notes: str) -> Iterator[str]:
    """Where an agent is that keeps these checkpoints."""

    class Agent(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps({"notes": notes}).encode()
            self.send_response(200 if self.path == "/checkpoints" else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Agent) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        serving.join()


def change_entry(tmp_path: Path, position: int) -> None:
    """What somebody does who can write to the database."""
    with closing(sqlite3.connect(tmp_path / "coordinator" / DATABASE_FILE)) as database, database:
        changed = database.execute(
            "UPDATE journal_entries SET content = replace(content, 's2', 's9') WHERE position = ?"
            " AND content LIKE '%s2%'",
            (position,),
        )
        assert changed.rowcount == 1


def with_another_sled(exported: str) -> str:
    """The export, with its second entry saying that it is of `s9` instead of `s2`.

    Only the field is changed: the keys and hashes of an export are random text, and any two
    characters may stand in one.
    """
    field, other = (rf"\"sled\":\"{sled}\"" for sled in ("s2", "s9"))
    assert exported.count(field) == 1
    return exported.replace(field, other)


def put_back(directory: Path) -> str:
    """What a restore of the database does to the journal; which shard it ends."""

    async def work() -> str:
        async with await opened(f"sqlite:///{directory / DATABASE_FILE}") as database:
            journal = await Journal.open(database, directory / "journal-keys")
            sealed = (await journal.note_restore({})).sealed
            assert sealed is not None
            return sealed.id

    return asyncio.run(work())


def test_what_happened_is_listed_searched_and_shown(told: Cli) -> None:
    lines = told.fine("journal", "tail", "-n", "2").splitlines()
    assert [line.split()[0] for line in lines] == ["INDEX", "3", "4"]
    assert lines[2].split()[3:] == ["fleet.sled_expunged", "s1", "-"]
    found = told.fine("journal", "search", "--sled", "s1").splitlines()
    assert ["added" in line or "expunged" in line for line in found[1:]] == [True, True]
    assert told.fine("journal", "search", "--sled", "s3") == "no entries\n"
    assert '"agent_url": "http://127.0.0.1:1"' in told.fine("journal", "show", "0")
    shards = told("journal", "shards", "--json").document["items"]
    assert [(each["state"], each["size"]) for each in shards] == [("sealed", 3), ("active", 2)]


def test_an_entry_is_proved_with_a_key_that_was_kept(told: Cli, tmp_path: Path) -> None:
    keys = tmp_path / "keys.txt"
    keys.write_text(told.fine("journal", "keys"))
    assert "entry 1 is in shard" in told.fine("journal", "prove", "1", "--keys", keys)
    shard = told("journal", "shards", "--json").document["items"][0]["id"]
    keys.write_text(str(SignerKey.new(f"sled-depot/journal/{shard}").verifier))
    refused = told("journal", "prove", "1", "--keys", keys)
    assert (refused.code, "is not proved" in refused.err) == (1, True)


def test_an_export_verifies_with_nothing_but_the_keys(
    told: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys, file, kept = (tmp_path / name for name in ("keys.txt", "journal.jsonl", "checkpoint"))
    keys.write_text(told.fine("journal", "keys"))
    kept.write_text(told.fine("journal", "checkpoint"))
    told.fine("journal", "export", file)
    monkeypatch.setenv("DEPOT_COORDINATOR_URL", "http://127.0.0.1:1")
    said = told.fine("journal", "verify", file, "--keys", keys, "--checkpoint", kept)
    assert "2 shards, 5 entries, 2 checkpoints and 1 kept elsewhere: all of it" in said


@pytest.mark.parametrize("place", ["nowhere/journal.jsonl", "n" * 255])
def test_an_export_that_cannot_be_written_names_the_file_that_was_asked_for(
    told: Cli, tmp_path: Path, place: str
) -> None:
    refused = told("journal", "export", tmp_path / place)
    assert (refused.code, f"{tmp_path / place}: " in refused.err) == (2, True)
    assert ".part" not in refused.err


def test_a_file_that_is_no_checkpoint_accuses_nobody(told: Cli, tmp_path: Path) -> None:
    keys, empty = tmp_path / "keys.txt", tmp_path / "empty"
    keys.write_text(told.fine("journal", "keys"))
    empty.touch()
    for mistaken in (keys, empty):
        refused = told("journal", "verify", "--checkpoint", mistaken)
        assert (refused.code, f"{mistaken} is no signed checkpoint" in refused.err) == (2, True)


def test_a_line_that_was_taken_out_of_an_export_is_told_of_once(told: Cli, tmp_path: Path) -> None:
    file = tmp_path / "journal.jsonl"
    told.fine("journal", "export", file)
    lines = file.read_text().splitlines(keepends=True)
    taken = [i for i, line in enumerate(lines) if "entry" in json.loads(line)][1]
    file.write_text("".join([*lines[:taken], *lines[taken + 1 :]]))
    refused = told("journal", "verify", file)
    assert (refused.code, refused.out.count("is missing\n")) == (1, 1)


def test_an_entry_that_was_changed_in_the_database_is_named(told: Cli, tmp_path: Path) -> None:
    assert "all of it verifies" in told.fine("journal", "verify")
    change_entry(tmp_path, 1)
    refused = told("journal", "verify", "--json")
    assert (refused.code, refused.document["first_bad"]) == (1, 1)
    assert "entry 1 is not what its hash is of: it was changed" in refused.err


def test_events_that_somebody_has_left_out_are_named(told: Cli, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "coordinator" / DATABASE_FILE)) as database, database:
        database.execute("INSERT INTO journal_cursors VALUES ('s2', 'epoch', 7, 0)")
    refused = told("journal", "verify")
    assert (refused.code, "events 1 to 7 of sled s2 count as told" in refused.err) == (1, True)


def test_a_file_that_was_changed_or_cut_off_does_not_verify(told: Cli, tmp_path: Path) -> None:
    file = tmp_path / "journal.jsonl"
    told.fine("journal", "export", file)
    lines = file.read_text().splitlines()
    file.write_text("\n".join(lines[:-1]))
    assert "breaks off" in told("journal", "verify", file).err
    file.write_text(with_another_sled("\n".join(lines)))
    assert told("journal", "verify", file, "--json").document["first_bad"] == 1
    file.write_text("nothing of ours")
    assert (told("journal", "verify", file)).code == 1


@pytest.mark.parametrize("begin", ["", '{"shard":'])
def test_a_line_that_is_nothing_but_brackets_is_no_export(
    cli: Cli, tmp_path: Path, begin: str
) -> None:
    file = tmp_path / "journal.jsonl"
    file.write_text(f"{begin}{'[' * 100_000}\n")
    refused = cli("journal", "verify", file)
    assert (refused.code, f"{file} is no export" in refused.err) == (1, True)


def test_a_rotation_is_undone(told: Cli) -> None:
    made = told("journal", "rotate", "--json").document
    assert made["sealed"]["id"] in told.fine("journal", "rotate", "--undo")
    assert "nothing to do" in told.fine("journal", "rotate", "--ending", "0" * 16)


def test_a_shard_is_dropped_once_a_file_has_all_of_it(told: Cli, tmp_path: Path) -> None:
    file = tmp_path / "journal.jsonl"
    told.fine("journal", "export", file)
    sealed, active = (s["id"] for s in told("journal", "shards", "--json").document["items"])
    assert "does not have shard" in told("journal", "drop", active, "--export", file, "--yes").err
    whole = file.read_text()
    file.write_text(with_another_sled(whole))
    assert "entry 1 is not" in told("journal", "drop", sealed, "--export", file, "--yes").err
    file.write_text(whole)
    assert "entries 0 to 2" in told.fine("journal", "drop", sealed, "--export", file, "--yes")
    assert "all of it verifies" in told.fine("journal", "verify")
    assert "all of it verifies" in told.fine("journal", "verify", file)
    assert "the export has entries 0 to 2" in told("journal", "show", "1").err
    found = told("journal", "search", "--sled", "s2")
    assert (found.out, "not looked at: entries 0 to 2" in found.err) == ("no entries\n", True)


def test_a_shard_that_says_that_the_database_was_put_back_is_dropped_like_any_other(
    cli: Cli, tmp_path: Path
) -> None:
    file = tmp_path / "journal.jsonl"
    cli.fine("sled", "add", "s1", "127.0.0.1:1")
    restored = put_back(tmp_path / "coordinator")
    cli.fine("journal", "export", file)
    assert "put back to a copy" in cli("journal", "verify", file).err
    assert "is dropped" in cli.fine("journal", "drop", restored, "--export", file, "--yes")


def test_a_dropped_entry_is_proved_with_the_export_alone(
    told: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys, file = tmp_path / "keys.txt", tmp_path / "journal.jsonl"
    keys.write_text(told.fine("journal", "keys"))
    told.fine("journal", "export", file)
    asked = told("journal", "prove", "1", "--json").document
    sealed = asked["checkpoint"]["shard"]
    told.fine("journal", "drop", sealed, "--export", file, "--yes")
    monkeypatch.setenv("DEPOT_COORDINATOR_URL", "http://127.0.0.1:1")
    proved = told("journal", "prove", "1", "--export", file, "--keys", keys, "--json")
    assert (proved.code, proved.document) == (0, asked)
    keys.write_text(str(SignerKey.new(f"sled-depot/journal/{sealed}").verifier))
    refused = told("journal", "prove", "1", "--export", file, "--keys", keys)
    assert (refused.code, "entry 1 is not proved" in refused.err) == (1, True)
    keys.write_text(str(SignerKey.new(f"sled-depot/journal/{'0' * 16}").verifier))
    assert (
        "has no key of its shard"
        in told("journal", "prove", "1", "--export", file, "--keys", keys).err
    )


def test_the_journal_is_compared_with_what_sleds_were_told(told: Cli) -> None:
    kept = told.fine("journal", "checkpoint")
    with sled_that_keeps(kept) as agent:
        told.fine("sled", "add", "s3", agent)
        done = told("journal", "verify")
        assert (done.code, "and 1 kept elsewhere: all of it" in done.out) == (0, True)
        assert "sled s2 did not say which checkpoints it keeps" in done.err
    (size,) = [line for line in kept.splitlines() if line.isdigit()]
    with sled_that_keeps(kept.replace(f"\n{size}\n", "\n1\n")) as agent:
        told.fine("sled", "add", "s3", agent)
        refused = told("journal", "verify")
        assert (refused.code, "a checkpoint that sled s3 has" in refused.err) == (1, True)
        assert "kept elsewhere" in told.fine("journal", "verify", "--no-sleds")


def test_a_file_is_compared_with_what_sleds_were_told(
    told: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "journal.jsonl"
    then = told.fine("journal", "checkpoint")
    told.fine("journal", "export", file)
    told.fine("sled", "expunge", "s2", "--yes")
    later = told.fine("journal", "checkpoint")
    with sled_that_keeps(then, later) as agent:
        told.fine("sled", "add", "s3", agent)
        done = told("journal", "verify", file, "--sleds")
        assert (done.code, "and 1 kept elsewhere: all of it" in done.out) == (0, True)
        assert "1 checkpoint of sleds are of what is not in" in done.err
        assert "and 0 kept elsewhere" in told.fine("journal", "verify", file)
    size = next(line for line in then.splitlines() if line.isdigit())
    monkeypatch.setenv("DEPOT_COORDINATOR_URL", "http://127.0.0.1:1")
    with sled_that_keeps(then.replace(f"\n{size}\n", "\n1\n")) as agent:
        refused = told("journal", "verify", file, "--agent", f"http://{agent}")
    assert (refused.code, f"the sled at http://{agent} has" in refused.err) == (1, True)
    with sled_that_keeps(then.replace(f"\n{size}\n", f"\n{'9' * 5000}\n")) as agent:
        done = told("journal", "verify", file, "--agent", f"http://{agent}")
    assert (done.code, "1 checkpoint of sleds are of what is not in" in done.err) == (0, True)
