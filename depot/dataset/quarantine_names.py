"""The quarantine of a dataset: which damaged copies lie there, and which of them may go. Pure.

A damaged copy is set aside and never silently deleted (B6): one rename moves it to
`.sled-depot/quarantine/<64 hex>.<unix ms>.<reason>`, a name that says all there is to know of it,
so that nothing is lost in a restart. The quarantine has a bound of its own, outside the quota
(Q1), and yields to a put that needs the room. What may never go by itself is the last trace of an
artifact that is wanted: damaged copies of it can still be whole between them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Self

from depot.artifact import ArtifactHash
from depot.dataset.small_files import METADATA

QUARANTINE: Final = f"{METADATA}/quarantine"
# Until the year 2286: a time that no clock can show would make the listing fail for all of them.
_NAME: Final = re.compile(r"([0-9a-f]{64})\.([0-9]{1,13})\.([a-z]{1,16})", re.ASCII)


class Reason(StrEnum):
    """Why a copy was set aside."""

    MISMATCH = "mismatch"
    """Its bytes hash to something else."""
    SHORT = "short"
    """The same, and it is shorter than the artifact."""
    UNREADABLE = "unreadable"
    """The device does not give all of its bytes."""
    REPLACED = "replaced"
    """It stood, unverified, where a good copy was to get its name."""
    OTHER = "other"
    """A later version of this program knows."""


@dataclass(frozen=True, slots=True, order=True)
class QuarantinedFile:
    """A copy that was set aside.

    Attributes:
        time_ms: when, in Unix milliseconds.
        name: of the file in the quarantine.
    """

    time_ms: int
    artifact: ArtifactHash
    reason: Reason
    size_bytes: int
    name: str

    @classmethod
    def parse(cls, name: str, size_bytes: int) -> Self | None:
        """Read a file's name; None when it is nothing of ours."""
        match = _NAME.fullmatch(name)
        if match is None:
            return None
        digest, time_ms, slug = match.groups()
        reason = Reason(slug) if slug in frozenset(Reason) else Reason.OTHER
        return cls(int(time_ms), ArtifactHash(bytes.fromhex(digest)), reason, size_bytes, name)

    @property
    def path(self) -> str:
        """Where it lies in its dataset."""
        return f"{QUARANTINE}/{self.name}"


def file_name(artifact: ArtifactHash, time_ms: int, reason: Reason) -> str:
    """Make the name that says all of it."""
    return f"{artifact}.{time_ms}.{reason}"


def irreplaceable(
    files: Collection[QuarantinedFile], is_needed: Callable[[ArtifactHash], bool]
) -> frozenset[str]:
    """Names of the files of one dataset that may not go: of each needed artifact, the newest.

    `is_needed` tells of an artifact that it is wanted and that no verified copy of it exists.
    """
    newest: dict[ArtifactHash, QuarantinedFile] = {}
    for file in files:
        known = newest.get(file.artifact)
        if known is None or known < file:
            newest[file.artifact] = file
    return frozenset(file.name for file in newest.values() if is_needed(file.artifact))


def choose_to_purge(
    files: Collection[QuarantinedFile],
    need_bytes: int,
    *,
    is_needed: Callable[[ArtifactHash], bool],
    is_wanted: Callable[[ArtifactHash], bool],
) -> list[QuarantinedFile]:
    """Choose files of one dataset that free `need_bytes`, or as much as may go.

    What nobody wants goes first, then the oldest.
    """
    kept = irreplaceable(files, is_needed)
    order = sorted(files, key=lambda file: (is_wanted(file.artifact), file))
    return list(_until(need_bytes, (file for file in order if file.name not in kept)))


def _until(need_bytes: int, files: Iterable[QuarantinedFile]) -> Iterable[QuarantinedFile]:
    for file in files:
        if need_bytes <= 0:
            return
        yield file
        need_bytes -= file.size_bytes
