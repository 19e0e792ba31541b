"""What is remembered of the files of a dataset, compared with those that are there."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from depot.artifact import ArtifactHash
from depot.dataset.found_files import FoundFile, FoundFiles
from depot.mirrors.inventory import Copy
from depot.scrub.copy_book import Book, match
from depot.scrub.copy_database import Remembered, Row, Rows

NOW_S = 1000.0
FILE = FoundFile(8, inode=5, mtime_ns=7, changed_at_s=3.0)
ROW = Row(8, inode=5, mtime_ns=7, seen_at_s=100.0, verified_at_s=200.0, damaged=False)
ALL = ONE, TWO, THREE = tuple(ArtifactHash(bytes([n]) * 32) for n in (1, 2, 3))

# Few values, so that files and rows agree about as often as not.
few = st.integers(1, 2)
times_s = st.sampled_from([1.0, NOW_S, NOW_S + 1])
files = st.builds(FoundFile, few, few, few, st.just(3.0))
some_rows = st.builds(Row, few, few, few, times_s, st.none() | times_s, st.booleans())
names = st.integers(0, 5).map(lambda n: ArtifactHash(bytes([n]) * 32))
Kept = dict[ArtifactHash, Row]
There = dict[ArtifactHash, FoundFile]


def parts(kept: Kept, most: int) -> list[Rows]:
    """As the database gives them: in order, so many at a time."""
    rows = [(name.digest, kept[name].packed()) for name in sorted(kept)]
    some = [rows[at : at + most] for at in range(0, len(rows), most)]
    return [Rows.of(*zip(*each, strict=True)) for each in some]


def found(there: There) -> FoundFiles:
    packed = FoundFiles()
    for name in sorted(there):
        packed.add(name.digest, *there[name])
    return packed


def compared(
    kept: Kept, there: There, unwritten: dict[ArtifactHash, bool], most: int = 512
) -> tuple[Book, dict[ArtifactHash, Copy]]:
    return match("d", Remembered(parts(kept, most)), found(there), unwritten, NOW_S)


@given(some_rows)
def test_a_row_is_what_it_was_when_it_is_read(row: Row) -> None:
    assert Row.unpacked(row.packed()) == row
    (rows,) = parts({ONE: row}, 1)
    assert list(rows.each()) == [(ONE, row)]


@st.composite
def mostly_alike(draw: st.DrawFn) -> tuple[Kept, There]:
    """Rows that say what the files do, but for a few that are of another file, or of none."""
    there: There = draw(st.dictionaries(names, files))
    kept = {
        name: Row(*file[:3], draw(times_s), draw(st.none() | st.just(NOW_S)), damaged=False)
        for name, file in there.items()
    }
    others = draw(st.dictionaries(names, some_rows, max_size=1))
    gone = draw(st.sets(names, max_size=1))
    return {n: row for n, row in (kept | others).items() if n not in gone}, there


@given(
    mostly_alike() | st.tuples(st.dictionaries(names, some_rows), st.dictionaries(names, files)),
    st.just({}) | st.dictionaries(names, st.booleans(), max_size=1),
    st.integers(1, 6),
)
def test_how_many_are_compared_at_once_makes_no_difference(
    both: tuple[Kept, There], unwritten: dict[ArtifactHash, bool], most: int
) -> None:
    kept, there = both
    book, copies = compared(kept, there, unwritten, most)
    assert copies.keys() == there.keys()
    for name, file in there.items():
        copy, changed = expected(kept.get(name), file, unwritten.get(name))
        assert (copies[name], name in book.changed) == (copy, changed)
        row = kept.get(name)
        seen_s = NOW_S if row is None or changed else min(row.seen_at_s, NOW_S)
        assert book.ages.get(name) == (None if copy.damaged else copy.verified_at_s or seen_s)
        assert (name in book.bad) == copy.damaged
    assert book.changed - there.keys() == kept.keys() - there.keys()


@pytest.mark.parametrize(
    "changes",
    [
        {"size_bytes": 9},
        {"inode": 6},
        {"mtime_ns": 8},
        {"seen_at_s": NOW_S + 1, "verified_at_s": None},
        {"verified_at_s": NOW_S + 1},
        {"verified_at_s": 300.0},
        {"verified_at_s": None},
        {"damaged": True, "verified_at_s": None},
    ],
    ids=str,
)
def test_one_row_among_others_is_seen_to_differ(changes: dict[str, object]) -> None:
    row = replace_row(**changes)
    book, copies = compared({ONE: ROW, TWO: row, THREE: ROW}, dict.fromkeys(ALL, FILE), {})
    copy, changed = expected(row, FILE, None)
    assert [copies[name] for name in ALL] == [Copy(8, 200.0), copy, Copy(8, 200.0)]
    assert book.changed == ({TWO} if changed else set())
    assert (book.ages[ONE], book.ages[THREE]) == (200.0, 200.0)


def test_a_time_is_one_object_wherever_it_is_kept() -> None:
    book, copies = compared({ONE: ROW, TWO: ROW}, {ONE: FILE, TWO: FILE}, {})
    assert all(book.ages[name] is copies[name].verified_at_s for name in (ONE, TWO))


def replace_row(**changes: object) -> Row:
    return Row(**{**ROW._asdict(), **changes})


def expected(row: Row | None, file: FoundFile, unwritten: bool | None) -> tuple[Copy, bool]:
    """What is known of a file, and whether that is to be written."""
    if unwritten is not None:
        return Copy(file.size_bytes, damaged=unwritten), True
    if row is None:
        return Copy(file.size_bytes), True
    if row.size_bytes != file.size_bytes and row.verified_at_s is not None:
        return Copy(file.size_bytes, damaged=True), not row.damaged
    if (row.size_bytes, row.inode, row.mtime_ns) != (file.size_bytes, file.inode, file.mtime_ns):
        return Copy(file.size_bytes), True
    at_s = row.verified_at_s
    return Copy(file.size_bytes, None if at_s and at_s > NOW_S else at_s, row.damaged), False


def test_one_object_names_an_artifact_wherever_it_is_kept() -> None:
    there = found({ONE: FILE, TWO: FILE})
    changed = replace_row(inode=6)
    book, copies = match("d", Remembered(parts({ONE: ROW, TWO: changed}, 1)), there, {}, NOW_S)
    for name, _ in there.sizes():
        assert any(name is key for key in copies)
        assert any(name is key for key in book.ages)


@pytest.mark.parametrize(
    ("digests", "facts"),
    [
        ((ONE.digest[:31],), (ROW.packed(),)),
        ((ONE.digest,), (ROW.packed()[:-1],)),
        ((ONE.digest, TWO.digest), (ROW.packed() + b"x" * 8, ROW.packed()[:-8])),
        ((ONE.digest,), (replace_row(seen_at_s=float("nan")).packed(),)),
        ((ONE.digest,), (replace_row(verified_at_s=float("inf")).packed(),)),
        ((ONE.digest,), (ROW.packed()[:-8] + b"\xff" * 8,)),
    ],
)
def test_what_was_never_written_is_not_believed(
    digests: tuple[bytes, ...], facts: tuple[bytes, ...]
) -> None:
    with pytest.raises(ValueError, match="not what was written"):
        Rows.of(digests, facts)


@pytest.mark.parametrize("facts", ["yesterday" * 5 + "...", 7, None])
def test_what_is_of_another_kind_is_not_believed(facts: object) -> None:
    with pytest.raises(ValueError, match="not what was written"):
        Rows.of((ONE.digest,), (facts,))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="not what was written"):
        Rows.of(("a" * 32,), (ROW.packed(),))  # type: ignore[arg-type]
