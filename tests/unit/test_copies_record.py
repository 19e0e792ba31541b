"""The book of copies: in the order of their starts, whatever order they end in."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest

from agent.copies.record import CopyBook, CopyRecord
from depot.artifact import ArtifactHash, Generation
from depot.state.checked import StateCorrupted, make_state

MAX_FINISHED = 100


def record(number: int) -> CopyRecord:
    return CopyRecord(
        copy_id=f"copy-{number}",
        sha256=ArtifactHash.of(str(number).encode()),
        generation=Generation(1),
        sources=("http://peer",),
        state="running",
        bytes_done=0,
        bytes_total=None,
        started_at=0.0,
    )


def finished(number: int) -> CopyRecord:
    return replace(record(number), state="succeeded", finished_at=1.0)


@pytest.fixture
def book() -> CopyBook:
    return CopyBook(make_state(checksummed=True), MAX_FINISHED)


def test_copies_are_listed_in_the_order_of_their_starts(book: CopyBook) -> None:
    for number in range(50):
        book.add_running(f"copy-{number}", partial(record, number))
    for number in reversed(range(0, 50, 2)):
        book.finish(finished(number))
    book.finish(finished(50))

    assert list(book.records()) == [f"copy-{number}" for number in range(51)]


def test_a_running_copy_is_told_as_it_is_now(book: CopyBook) -> None:
    progress = [record(1)]
    book.add_running("copy-1", lambda: progress[-1])
    progress.append(replace(record(1), bytes_done=7))

    assert book.get("copy-1") == progress[-1]
    assert book.records() == {"copy-1": progress[-1]}

    book.finish(finished(1))
    progress.append(replace(record(1), bytes_done=8))
    assert book.get("copy-1") == finished(1)


def test_finished_copies_are_forgotten_and_running_ones_never(book: CopyBook) -> None:
    book.add_running("copy-0", lambda: record(0))
    for number in range(1, MAX_FINISHED + 3):
        book.finish(finished(number))

    assert book.get("copy-1") is None
    assert book.get("copy-2") is None
    assert len(book.records()) == MAX_FINISHED + 1
    assert next(iter(book.records())) == "copy-0"


def test_a_record_that_is_changed_in_place_is_caught(book: CopyBook) -> None:
    told = finished(1)
    book.finish(told)
    object.__setattr__(told, "state", "failed")
    with pytest.raises(StateCorrupted, match="key copy-1"):
        book.records()
