"""The course of a download: what to do after what happened, and what to say. Pure.

    AskHead -> Look -> Fetch -> Place -> End
                 |       ^ |
                 |       +-+ the bytes were wrong: once more from the start
                 +-> End: the target is the snapshot already

Rules kept here:
- `Place` comes only after what was fetched has the length and the checksum that the head says, or
  after somebody was told that there is none.
- Whatever fails ends the course; nothing but `Place` touches the target.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, TypeAlias

from agent.snapshots.errors import (
    Gone,
    Malformed,
    Mismatch,
    NoChecksum,
    Refused,
    SnapshotError,
    Truncated,
    Unreachable,
)
from agent.snapshots.values import Checksum, Head

ATTEMPTS: Final = 2
"""How often wrong bytes are fetched: what was damaged on its way is right the second time."""
NOT_INTACT: Final = "Failed to download intact snapshot"
UNCHECKED: Final = "Remote checksum is null, skipping checksum validation"
NO_CHECKSUM: Final = (
    "nothing says whether these are the bytes that were published; --require-checksum refuses such "
    "a snapshot"
)


@dataclass(frozen=True, slots=True)
class AskHead:
    """Ask the archive which version is the newest."""


@dataclass(frozen=True, slots=True)
class Look:
    """Hash the target, if it is a file of that size; None for any."""

    size_bytes: int | None


@dataclass(frozen=True, slots=True)
class Fetch:
    """Fetch the version of the head beside the target, and hash it if it is to be checked."""

    head: Head
    checked: bool


@dataclass(frozen=True, slots=True)
class Place:
    """Give what was fetched the target's name, durably."""


class Result(Enum):
    """How a course ends."""

    DOWNLOADED = "downloaded"
    THERE_ALREADY = "there already"
    NOT_INTACT = "not intact"
    NOT_THERE = "not there"
    UNREACHABLE = "unreachable"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class End:
    """It is over. `why` is None when it went well."""

    result: Result
    why: SnapshotError | None = None


Action: TypeAlias = AskHead | Look | Fetch | Place | End


@dataclass(frozen=True, slots=True)
class Step:
    """What to say, and then to do. `warning` is for people who only look at those."""

    then: Action
    lines: tuple[str, ...] = ()
    warning: str | None = None


@dataclass(frozen=True, slots=True)
class Fetched:
    """What was fetched.

    Attributes:
        checksum: None when nobody asked for it.
        size_bytes: of the snapshot, after decompression.
        check_s: how long hashing took, beside the transfer and after it.
        after_s: how long some of that went on when the transfer was over.
    """

    checksum: Checksum | None
    size_bytes: int
    check_s: float = 0.0
    after_s: float = 0.0


class Course:
    """One download."""

    def __init__(self, *, require_checksum: bool = False, attempts: int = ATTEMPTS) -> None:
        self._require_checksum = require_checksum
        self._attempts_left = attempts
        self._head: Head | None = None

    def begin(self) -> Step:
        """The first step."""
        return Step(AskHead())

    def head(self, head: Head) -> Step:
        """The archive answered."""
        self._head = head
        said = head.metadata
        lines = (
            f"Remote checksum: {said.checksum or 'null'}",
            f"Remote version: {head.version}",
        )
        if said.checksum is not None:
            if (wrong := _stored_wrongly(head)) is not None:
                return Step(End(Result.NOT_INTACT, wrong), lines)
            return Step(Look(said.size_bytes), lines)
        if self._require_checksum:
            refused = NoChecksum("the archive has no checksum for it, and one is required")
            return Step(End(Result.NOT_INTACT, refused), lines)
        return Step(Fetch(head, checked=False), (*lines, UNCHECKED), warning=NO_CHECKSUM)

    def looked(self, found: Checksum | None, check_s: float = 0.0) -> Step:
        """The target was hashed; None when there is nothing that could be the snapshot."""
        head = self._known()
        if found is None or found != head.metadata.checksum:
            return Step(Fetch(head, checked=True))
        lines = (
            f"Local checksum: {found}",
            "Checksum matches",
            f"The check took {check_s:.3f} s",
            "The target is this snapshot already, nothing to download",
        )
        return Step(End(Result.THERE_ALREADY), lines)

    def fetched(self, fetched: Fetched) -> Step:
        """All of it is beside the target."""
        head = self._known()
        lines: Sequence[str] = ()
        if head.metadata.checksum is not None:
            lines = _check_lines(fetched)
        wrong = _fault(head, fetched)
        if wrong is not None:
            return self._again(wrong, lines)
        if head.metadata.checksum is not None:
            lines = (lines[0], "Checksum matches", lines[1])
        return Step(Place(), tuple(lines))

    def failed(self, error: SnapshotError) -> Step:
        """The head or the transfer failed, as often as it may."""
        match error:
            case Unreachable():
                return Step(End(Result.UNREACHABLE, error))
            case Refused():
                return Step(End(Result.REFUSED, error))
            case Gone() if self._head is None:  # later, it was there and left meanwhile
                return Step(End(Result.NOT_THERE, error))
            case Mismatch() | Truncated():
                return self._again(error, ())
            case _:
                return Step(End(Result.NOT_INTACT, error))

    def placed(self) -> Step:
        """The target is the snapshot."""
        return Step(End(Result.DOWNLOADED))

    def _again(self, error: SnapshotError, lines: Sequence[str]) -> Step:
        head = self._known()
        self._attempts_left -= 1
        lines = (*lines, f"Not intact: {error}")
        if self._attempts_left <= 0:
            return Step(End(Result.NOT_INTACT, error), tuple(lines))
        again = Fetch(head, checked=head.metadata.checksum is not None)
        return Step(again, (*lines, "Downloading it once more"))

    def _known(self) -> Head:
        assert self._head is not None
        return self._head


def _stored_wrongly(head: Head) -> SnapshotError | None:
    """What is known before anything is fetched."""
    size_bytes = head.metadata.size_bytes
    if head.metadata.compression or size_bytes is None or head.stored_bytes == size_bytes:
        return None
    return _length(size_bytes, head.stored_bytes)


def _fault(head: Head, fetched: Fetched) -> SnapshotError | None:
    said = head.metadata
    if said.size_bytes is not None and fetched.size_bytes != said.size_bytes:
        return _length(said.size_bytes, fetched.size_bytes)
    if said.compression is None and fetched.size_bytes != head.stored_bytes:
        return _length(head.stored_bytes, fetched.size_bytes)
    if said.checksum is not None and fetched.checksum != said.checksum:
        return Mismatch(f"expected checksum {said.checksum}, found {fetched.checksum}")
    return None


def _length(expected_bytes: int, found_bytes: int) -> SnapshotError:
    text = f"expected {expected_bytes} bytes, found {found_bytes}"
    return Truncated(text) if found_bytes < expected_bytes else Malformed(text)


def _check_lines(fetched: Fetched) -> tuple[str, str]:
    return (
        f"Local checksum: {fetched.checksum}",
        f"The check took {fetched.check_s:.3f} s, {fetched.after_s:.3f} s of it after the transfer",
    )
