"""A server that cuts, corrupts or replaces the object while it is downloaded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.snapshots.archive import Archive
from agent.snapshots.course import End, Result
from agent.snapshots.download import Download, Telling
from agent.snapshots.opening import open_archive
from agent.snapshots.parts import PART_BYTES
from agent.snapshots.patience import Patience
from tests.snapshots.conftest import MakeBucket
from tests.snapshots.making import database, put
from tests.snapshots.mangling import Mangler, mangling

OLD: bytes = b"an older one, which is good"
PARTS = 3


@dataclass(frozen=True, slots=True)
class Way:
    """A way to a bucket, over a proxy; `straight` is the way around it."""

    mangler: Mangler
    straight: Archive
    mangled: Archive
    versioned: bool


@pytest.fixture(params=[True, False], ids=["versions", "no-versions"])
def way(request: pytest.FixtureRequest, s3_server: str, make_bucket: MakeBucket) -> Iterator[Way]:
    url = f"s3://{make_bucket(request.param)}/prefix"
    mangler = Mangler()
    with (
        mangling(s3_server, mangler) as endpoint,
        closing(open_archive(url, s3_server)) as straight,
        closing(open_archive(url, endpoint)) as mangled,
    ):
        yield Way(mangler, straight, mangled, request.param)


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A database in three parts."""
    made = database(tmp_path_factory.mktemp("db") / "state.db", rows=400)
    return made.ljust(PART_BYTES * (PARTS - 1) + (4 << 20), b"\0")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "node").mkdir()
    (tmp_path / "node/state.db").write_bytes(OLD)
    return tmp_path / "node/state.db"


def download(way: Way, target: Path) -> End:
    telling = Telling(
        line=lambda _: None,
        warning=lambda _: None,
        failure=lambda _, __: None,
        progress=lambda _: None,
    )
    patience = Patience(attempts=3, first_s=0.001, longest_s=0.002)
    return Download(way.mangled, "state", target, telling, patience=patience).run()


def is_untouched(target: Path) -> bool:
    return target.read_bytes() == OLD and list(target.parent.iterdir()) == [target]


def test_answers_that_are_cut_are_gone_on_with(way: Way, content: bytes, target: Path) -> None:
    put(way.straight, "state", content)
    way.mangler.cut_after = lambda number: 1_500_000 if number <= PARTS else None

    assert download(way, target).result is Result.DOWNLOADED
    assert target.read_bytes() == content
    assert way.mangler.gets == PARTS + PARTS


def test_answers_that_are_always_cut_are_given_up(way: Way, content: bytes, target: Path) -> None:
    put(way.straight, "state", content)
    way.mangler.cut_after = lambda _: 0

    assert download(way, target).result is Result.UNREACHABLE
    assert is_untouched(target)


def test_an_answer_that_ends_well_but_short_is_not_taken(
    way: Way, content: bytes, target: Path
) -> None:
    put(way.straight, "state", content)
    way.mangler.body = lambda _, body: body[:-1]

    assert download(way, target).result is Result.NOT_INTACT
    assert is_untouched(target)


def test_bytes_that_are_changed_on_the_way_are_not_taken(
    way: Way, content: bytes, target: Path
) -> None:
    put(way.straight, "state", content)
    way.mangler.body = lambda _, body: body[:-1] + bytes([body[-1] ^ 4])

    assert download(way, target).result is Result.NOT_INTACT
    assert is_untouched(target)
    # Once more from the start, since most of what happens on the way happens once.
    assert way.mangler.gets == 2 * PARTS


def test_bytes_that_are_changed_once_are_fetched_again(
    way: Way, content: bytes, target: Path
) -> None:
    put(way.straight, "state", content)
    way.mangler.body = lambda number, body: b"?" + body[1:] if number == 2 else body

    assert download(way, target).result is Result.DOWNLOADED
    assert target.read_bytes() == content


def test_an_object_that_is_replaced_is_read_as_it_was_or_not_at_all(
    way: Way, content: bytes, target: Path
) -> None:
    put(way.straight, "state", content)
    newer = content[::-1]

    def replace(number: int) -> None:
        if number == 2:
            put(way.straight, "state", newer)

    way.mangler.before_get = replace
    end = download(way, target)

    if way.versioned:
        assert end.result is Result.DOWNLOADED
        assert target.read_bytes() == content
    else:
        assert end.result is Result.NOT_INTACT
        assert is_untouched(target)
    # The next one gets the newer one, whichever came of this one.
    assert download(way, target).result is Result.DOWNLOADED
    assert target.read_bytes() == newer


def test_an_object_that_is_deleted_is_gone(way: Way, content: bytes, target: Path) -> None:
    version = put(way.straight, "state", content)
    newer = content[::-1]

    def delete(number: int) -> None:
        if number == 2:
            put(way.straight, "state", newer)
            way.straight.delete(version)

    way.mangler.before_get = delete

    assert download(way, target).result is Result.NOT_INTACT
    assert is_untouched(target)


def test_a_server_that_writes_the_names_of_metadata_large_is_understood(
    way: Way, content: bytes, target: Path
) -> None:
    put(way.straight, "state", content)
    way.mangler.header = str.title

    # Not understood, the checksum would count as missing, and nothing be checked.
    assert way.mangled.head("state") == way.straight.head("state")
