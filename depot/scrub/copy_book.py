"""What is known of one attached dataset beyond its copies, and what is remembered of its files.

No I/O: `copy_records` reads and writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from depot.artifact import ArtifactHash
from depot.dataset.found_files import FoundFile, FoundFiles, Stretch
from depot.mirrors.inventory import Copy
from depot.scrub.copy_database import Changes, Remembered, Row, Rows


@dataclass(slots=True)
class Book:
    """What is known of one attached dataset beyond its copies.

    Attributes:
        ages: when each copy that is not damaged was last verified or, if never, first seen.
        bad: the copies that are said to be damaged.
        findings: when each bad copy was found that has not been made good since.
        changed: artifacts whose row is to be written.
        settled: artifacts whose finding is to be written.
    """

    dataset_id: str
    ages: dict[ArtifactHash, float] = field(default_factory=dict)
    bad: set[ArtifactHash] = field(default_factory=set)
    findings: dict[ArtifactHash, float] = field(default_factory=dict)
    changed: set[ArtifactHash] = field(default_factory=set)
    settled: set[ArtifactHash] = field(default_factory=set)

    def add(self, artifact: ArtifactHash, copy: Copy, age_s: float) -> None:
        """Begin with a copy that is there."""
        if copy.damaged:
            self.bad.add(artifact)
        else:
            self.ages[artifact] = age_s

    def note(
        self, artifact: ArtifactHash, before: Copy | None, after: Copy | None, now_s: float
    ) -> None:
        """Take note that a copy changed; None: there is none."""
        self.changed.add(artifact)
        self.bad.discard(artifact)
        if after is None or after.damaged:
            self.ages.pop(artifact, None)
            if after is not None:
                self.bad.add(artifact)
        elif after.verified_at_s is not None:
            self.ages[artifact] = after.verified_at_s
        elif before is None or before.damaged or before.verified_at_s is not None:
            self.ages[artifact] = now_s

    def settle(self) -> Changes:
        """Take what is to be written of the findings."""
        settled, self.settled = self.settled, set()
        return Changes(self.dataset_id, {}, {a: self.findings.get(a) for a in settled})

    def take_leave(self) -> Changes:
        """Take what is to be written of a dataset that is away.

        No row can be made of what changed since the last ones, since nobody can look at the files:
        a copy said to be damaged stays so, of any other the row is not believed any more.
        """
        overtaken = self.changed - self.bad
        findings = self.settle().findings
        return Changes(self.dataset_id, dict.fromkeys(overtaken), findings, self.changed & self.bad)


def match(
    dataset_id: str,
    remembered: Remembered,
    files: FoundFiles,
    unwritten: Mapping[ArtifactHash, bool],
    now_s: float,
) -> tuple[Book, dict[ArtifactHash, Copy]]:
    """Compare what is remembered with the files that are there.

    Of what is `unwritten` no row is believed; True there is a copy that was said to be damaged, and
    stays so until it has been read (B6).
    """
    book = Book(dataset_id, findings=dict(remembered.findings))
    copies: dict[ArtifactHash, Copy] = {}
    for rows in remembered.rows:
        stretch = files.stretch(rows.digests)
        overtaken = not unwritten.keys().isdisjoint(rows.digests)
        if stretch is None or overtaken or not _as_before(rows, stretch, now_s):
            _match_each(rows, files, unwritten, now_s, book, copies)
        else:
            _take_all(rows, stretch.artifacts, now_s, book, copies)
    for artifact, size_bytes in files.sizes() if len(copies) < len(files) else ():
        if artifact not in copies:
            copies[artifact] = Copy(size_bytes, damaged=unwritten.get(artifact, False))
            book.changed.add(artifact)
            book.add(artifact, copies[artifact], now_s)
    return book, copies


def _as_before(rows: Rows, stretch: Stretch, now_s: float) -> bool:
    """Tell whether these files are the same as ever, and good, and were verified in the past."""
    return (
        (rows.sizes_bytes, rows.inodes, rows.mtimes_ns) == stretch[1:]
        and not any(rows.damaged)
        and max(rows.verified_at_s) <= now_s
    )


def _take_all(
    rows: Rows,
    artifacts: tuple[ArtifactHash, ...],
    now_s: float,
    book: Book,
    copies: dict[ArtifactHash, Copy],
) -> None:
    """What `_match_each` comes to when nothing is new, in less than half of the time."""
    verified_at_s = [at_s or None for at_s in rows.verified_at_s]
    known = map(Copy, rows.sizes_bytes, verified_at_s)
    copies.update(zip(artifacts, known, strict=True))
    times_s = zip(verified_at_s, rows.seen_at_s, strict=True)
    ages_s = [min(seen, now_s) if verified is None else verified for verified, seen in times_s]
    book.ages.update(zip(artifacts, ages_s, strict=True))


def _match_each(
    rows: Rows,
    files: FoundFiles,
    unwritten: Mapping[ArtifactHash, bool],
    now_s: float,
    book: Book,
    copies: dict[ArtifactHash, Copy],
) -> None:
    for digest, row in rows.each():
        file = files.find(digest)
        if file is None:
            book.changed.add(ArtifactHash(digest))
            continue
        copy = _known(file, row, now_s)
        if copy is None or digest in unwritten:
            continue
        artifact = files.named(digest)
        copies[artifact] = copy
        if copy.damaged and not row.damaged:
            book.changed.add(artifact)
        at_s = copy.verified_at_s
        book.add(artifact, copy, min(row.seen_at_s, now_s) if at_s is None else at_s)


def _known(file: FoundFile, row: Row, now_s: float) -> Copy | None:
    """What is known of a file when this is remembered of its name; None: it is another file."""
    verified_at_s = row.verified_at_s
    if file.size_bytes != row.size_bytes and verified_at_s is not None:
        # So many bytes had this hash: no other number has.
        return Copy(file.size_bytes, damaged=True)
    if (file.size_bytes, file.inode, file.mtime_ns) != row[:3]:
        return None
    # A time to come was taken from a clock that was wrong: one that has such a copy
    # verified would keep it from being read for years.
    if verified_at_s is not None and verified_at_s > now_s:
        verified_at_s = None
    return Copy(row.size_bytes, verified_at_s, row.damaged)
