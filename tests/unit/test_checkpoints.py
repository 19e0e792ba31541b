"""A sled keeps the checkpoints it was sent, and lets nobody take them back."""

from __future__ import annotations

import asyncio
import base64
from hashlib import sha256
from pathlib import Path

import pytest

from agent.checkpoints import (
    CHECKPOINTS_NAME,
    KEPT,
    MAX_TREES,
    CheckpointBook,
    KeptCheckpoint,
    taken,
)
from depot.dataset.small_files import STAGING
from depot.errors import InvalidRequest


def note(size: int, *, origin: str = "log/a", content: str = "") -> str:
    root = base64.b64encode(sha256(f"{size}{content}".encode()).digest()).decode()
    return f"{origin}\n{size}\n{root}\n\n— {origin} c2lnbmVk\n"


def kept(*notes: str) -> tuple[KeptCheckpoint, ...]:
    found: tuple[KeptCheckpoint, ...] = ()
    for each in notes:
        found = taken(found, KeptCheckpoint.parse(each))
    return found


def test_the_first_of_a_tree_is_kept_for_good_and_the_last_ones() -> None:
    sizes = [each.size for each in kept(*(note(size) for size in range(1, 100)))]
    assert sizes == [1, *range(101 - KEPT, 100)]


def test_another_root_for_a_size_that_is_known_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="another root at 5"):
        kept(note(5), note(7), note(5, content="edited"))


def test_a_tree_that_has_shrunk_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="had 7 entries, not 6"):
        kept(note(7), note(6))


def test_what_is_known_may_be_said_again() -> None:
    assert kept(note(5), note(7), note(5), note(7)) == kept(note(5), note(7))


def test_no_other_tree_takes_the_place_of_an_old_one() -> None:
    full = kept(*(note(1, origin=f"log/{number}") for number in range(MAX_TREES)))
    with pytest.raises(InvalidRequest, match="kept here already"):
        taken(full, KeptCheckpoint.parse(note(1)))
    assert len(taken(full, KeptCheckpoint.parse(note(2, origin="log/3")))) == MAX_TREES + 1


@pytest.mark.parametrize(
    "text", ["", "log\n5\n", note(0), note(5).replace("\n\n", "\n"), "log/a\n" + note(5)]
)
def test_what_is_no_checkpoint_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="expected a signed checkpoint"):
        KeptCheckpoint.parse(text)


async def test_what_was_taken_is_there_after_a_restart(tmp_path: Path) -> None:
    await asyncio.to_thread((tmp_path / STAGING).mkdir, parents=True)
    book = await CheckpointBook.open(tmp_path)
    await asyncio.gather(*(book.take(note(1, origin=f"log/{number}")) for number in range(5)))
    again = await CheckpointBook.open(tmp_path)
    assert again.notes() == book.notes()
    assert len(again.notes()) == 5


async def test_what_cannot_be_read_is_moved_aside(tmp_path: Path) -> None:
    path = tmp_path / CHECKPOINTS_NAME
    await asyncio.to_thread(path.write_text, "{}")
    book = await CheckpointBook.open(tmp_path)
    assert book.notes() == ()
    assert await asyncio.to_thread((tmp_path / "checkpoints.json.corrupt").read_text) == "{}"
