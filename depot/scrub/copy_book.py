"""What is known of one attached dataset beyond its copies, and what is remembered of its files.

No I/O: `copy_records` reads and writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from depot.artifact import ArtifactHash
from depot.dataset.found_files import FoundFiles
from depot.mirrors.inventory import Copy
from depot.scrub.copy_database import Changes, Remembered


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
    # Each with its artifact: one object for that, wherever it is kept from now on.
    found: dict[bytes, tuple[ArtifactHash, int, str]]
    found = {file[0]: file for file in files.identities()}
    for digest, size_bytes, identity, seen_at_s, verified_at_s, damaged in remembered.rows:
        file = found.get(digest)
        if file is None:
            book.changed.add(ArtifactHash(digest))
            continue
        copy = _known(file, size_bytes, identity, verified_at_s, bool(damaged), now_s)
        if copy is None or digest in unwritten:
            continue
        artifact = file[0]
        copies[artifact] = copy
        if copy.damaged and not damaged:
            book.changed.add(artifact)
        at_s = copy.verified_at_s
        book.add(artifact, copy, min(seen_at_s, now_s) if at_s is None else at_s)
    for artifact, size_bytes in files.sizes() if len(copies) < len(files) else ():
        if artifact not in copies:
            copies[artifact] = Copy(size_bytes, damaged=unwritten.get(artifact, False))
            book.changed.add(artifact)
            book.add(artifact, copies[artifact], now_s)
    return book, copies


def _known(
    file: tuple[ArtifactHash, int, str],
    size_bytes: int,
    identity: str,
    verified_at_s: float | None,
    damaged: bool,
    now_s: float,
) -> Copy | None:
    """What is known of a file when this is remembered of its name; None: it is another file."""
    if file[1] != size_bytes and verified_at_s is not None:
        # So many bytes had this hash: no other number has.
        return Copy(file[1], damaged=True)
    if file[1:] != (size_bytes, identity):
        return None
    # A time to come was taken from a clock that was wrong: one that has such a copy
    # verified would keep it from being read for years.
    if verified_at_s is not None and verified_at_s > now_s:
        verified_at_s = None
    return Copy(size_bytes, verified_at_s, damaged)
