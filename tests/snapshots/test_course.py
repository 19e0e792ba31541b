"""What a download does next, whatever happens: pure."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.snapshots.course import (
    NO_CHECKSUM,
    UNCHECKED,
    AskHead,
    Course,
    End,
    Fetch,
    Fetched,
    Look,
    Place,
    Result,
)
from agent.snapshots.errors import Gone, Mismatch, Refused, SnapshotError, Truncated, Unreachable
from agent.snapshots.values import Head, Metadata, Version
from tests.snapshots.making import checksum_of

CONTENT = b"what was published"
RIGHT = checksum_of(CONTENT)
WRONG = checksum_of(b"what was not")
HEAD = Head(
    Version("name", "v1", "v1"), len(CONTENT), Metadata(checksum=RIGHT, size_bytes=len(CONTENT))
)
BARE = replace(HEAD, metadata=Metadata())
WHOLE = Fetched(RIGHT, len(CONTENT))


def ended(action: object) -> Result:
    assert isinstance(action, End)
    return action.result


def test_the_usual_course_is_told_line_by_line() -> None:
    course = Course()

    assert course.begin().then == AskHead()
    head = course.head(HEAD)
    assert head.then == Look(len(CONTENT))
    assert head.lines == (f"Remote checksum: {RIGHT}", "Remote version: v1")
    assert course.looked(None).then == Fetch(HEAD, checked=True)
    fetched = course.fetched(Fetched(RIGHT, len(CONTENT), 2.0, 0.5))
    assert fetched.then == Place()
    assert fetched.lines == (
        f"Local checksum: {RIGHT}",
        "Checksum matches",
        "The check took 2.000 s, 0.500 s of it after the transfer",
    )
    assert ended(course.placed().then) is Result.DOWNLOADED


def test_a_target_that_is_the_snapshot_is_not_fetched_again() -> None:
    course = Course()
    course.head(HEAD)

    step = course.looked(RIGHT, 1.0)

    assert ended(step.then) is Result.THERE_ALREADY
    assert "Checksum matches" in step.lines


def test_a_target_that_is_another_one_is_replaced() -> None:
    course = Course()
    course.head(HEAD)

    assert course.looked(WRONG).then == Fetch(HEAD, checked=True)


def test_wrong_bytes_are_fetched_once_more_and_then_given_up() -> None:
    course = Course()
    course.head(HEAD)
    course.looked(None)

    assert course.fetched(Fetched(WRONG, len(CONTENT))).then == Fetch(HEAD, checked=True)
    last = course.fetched(Fetched(WRONG, len(CONTENT)))

    assert ended(last.then) is Result.NOT_INTACT
    assert not any("matches" in line for line in last.lines)


@pytest.mark.parametrize("size_bytes", [0, len(CONTENT) - 1, len(CONTENT) + 1])
@pytest.mark.parametrize("head", [HEAD, BARE], ids=["checked", "unchecked"])
def test_another_length_is_never_placed(head: Head, size_bytes: int) -> None:
    course = Course(attempts=1)
    course.head(head)

    assert ended(course.fetched(Fetched(RIGHT, size_bytes)).then) is Result.NOT_INTACT


@pytest.mark.parametrize("stored_bytes", [len(CONTENT) - 1, len(CONTENT) + 1])
def test_a_head_of_another_length_than_was_published_ends_it_at_once(stored_bytes: int) -> None:
    step = Course().head(replace(HEAD, stored_bytes=stored_bytes))

    assert ended(step.then) is Result.NOT_INTACT
    assert step.lines


def test_what_is_stored_compressed_may_have_any_length() -> None:
    packed = replace(HEAD, stored_bytes=5, metadata=replace(HEAD.metadata, compression="zstd"))
    course = Course()

    assert course.head(packed).then == Look(len(CONTENT))
    assert course.fetched(WHOLE).then == Place()


def test_a_head_without_a_checksum_is_warned_about_and_accepted() -> None:
    course = Course()

    step = course.head(BARE)

    assert step.then == Fetch(BARE, checked=False)
    assert step.warning == NO_CHECKSUM
    assert step.lines == ("Remote checksum: null", "Remote version: v1", UNCHECKED)
    assert course.fetched(Fetched(None, len(CONTENT))).then == Place()


def test_a_head_without_a_checksum_is_refused_where_one_is_required() -> None:
    assert ended(Course(require_checksum=True).head(BARE).then) is Result.NOT_INTACT


@pytest.mark.parametrize(
    ("error", "result"),
    [
        (Unreachable("x"), Result.UNREACHABLE),
        (Refused("x"), Result.REFUSED),
        (Gone("x"), Result.NOT_INTACT),
    ],
)
def test_what_fails_for_good_ends_it(error: SnapshotError, result: Result) -> None:
    course = Course()
    course.head(HEAD)

    assert ended(course.failed(error).then) is result


def test_a_name_that_the_archive_has_not_is_not_there() -> None:
    assert ended(Course().failed(Gone("x")).then) is Result.NOT_THERE


@pytest.mark.parametrize("error", [Mismatch("x"), Truncated("x")])
def test_what_was_damaged_on_its_way_is_fetched_once_more(error: SnapshotError) -> None:
    course = Course()
    course.head(HEAD)

    assert course.failed(error).then == Fetch(HEAD, checked=True)
    assert ended(course.failed(error).then) is Result.NOT_INTACT
