"""What can go wrong with a snapshot. `code` is stable; the command line has the exit codes."""

from __future__ import annotations

from typing import ClassVar


class SnapshotError(Exception):
    """Root of all that is raised here on purpose."""

    code: ClassVar[str]


class InvalidArchive(SnapshotError):
    """A URL or a name that no archive can have."""

    code = "InvalidArchive"


class LibraryMissing(SnapshotError):
    """What this kind of archive is read with is not installed."""

    code = "LibraryMissing"


class Gone(SnapshotError):
    """The archive answers, and does not have that name, or not that version any more."""

    code = "SnapshotGone"


class Truncated(SnapshotError):
    """The archive has fewer bytes of a version than its head says."""

    code = "SnapshotTruncated"


class Malformed(SnapshotError):
    """What the archive says of a version cannot be understood."""

    code = "SnapshotMalformed"


class Mismatch(SnapshotError):
    """The bytes are not those that were published."""

    code = "SnapshotMismatch"


class NoChecksum(SnapshotError):
    """The archive has no checksum for a version, and one is asked for."""

    code = "NoChecksum"


class Changed(SnapshotError):
    """A file was not the same when it was sent as when it was hashed."""

    code = "SnapshotChanged"


class Unfit(SnapshotError):
    """A file is not worth publishing: a database that is damaged or in use."""

    code = "SnapshotUnfit"


class Unreachable(SnapshotError):
    """The archive did not answer, or not to the end; another try may help."""

    code = "ArchiveUnreachable"


class Refused(SnapshotError):
    """The archive answered that it will not; no other try helps."""

    code = "ArchiveRefused"
