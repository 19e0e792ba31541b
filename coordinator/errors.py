"""What a coordinator refuses, beyond what a depot does: leaves of the one error tree.

As in `depot.errors`: an error says what was refused, what was expected and what was found, and
knows nothing of HTTP. `code` is stable and on the wire.
"""

from __future__ import annotations

from collections.abc import Mapping

from depot.errors import DepotError


class BadRelease(DepotError):
    """The upload is not a release repository, or not a safe one."""

    code = "BadRelease"


class Untrusted(DepotError):
    """No trust root of this fleet verifies the release."""

    code = "Untrusted"


class Expired(DepotError):
    """Metadata of the release has expired, and the upload did not allow that."""

    code = "Expired"


class TargetMismatch(DepotError):
    """A target's bytes are not those that the signed metadata names."""

    code = "TargetMismatch"

    def __init__(self, target: str, reason: str) -> None:
        super().__init__(f"target {target!r}: {reason}")
        self.target = target

    def details(self) -> dict[str, object]:
        """Name the target."""
        return {"target": self.target}


class ReleaseConflict(DepotError):
    """Another release is already recorded under this version or artifact name."""

    code = "ReleaseConflict"

    def __init__(self, message: str, difference: Mapping[str, object]) -> None:
        super().__init__(message)
        self.difference = dict(difference)

    def details(self) -> dict[str, object]:
        """What is recorded and what was sent."""
        return self.difference


class ReleaseNotFound(DepotError):
    """No release of this version is recorded."""

    code = "NotFound"


class TargetRelease(DepotError):
    """The release is the fleet's target, and cannot be removed."""

    code = "TargetRelease"


class ReleaseUnusable(DepotError):
    """The release cannot become the target: pruned or incomplete."""

    code = "ReleaseUnusable"


class TrustRootNotFound(DepotError):
    """No trust root has this id."""

    code = "NotFound"


class SledNotFound(DepotError):
    """No sled has this id."""

    code = "NotFound"


class SledExpunged(DepotError):
    """The sled was expunged; no work is done with it."""

    code = "SledExpunged"


class SledInService(DepotError):
    """The sled is in service, and cannot be removed."""

    code = "SledInService"


class SledAddressTaken(DepotError):
    """Another sled in service has this agent: two rows for one node would be counted as two."""

    code = "SledAddressTaken"

    def __init__(self, message: str, sled_id: str) -> None:
        super().__init__(message)
        self.sled_id = sled_id

    def details(self) -> dict[str, object]:
        """Name the other sled."""
        return {"sled": self.sled_id}


class TooMany(DepotError):
    """The fleet has as many sleds, or roots of trust, as it may have."""

    code = "TooMany"


class CoordinatorNotFound(DepotError):
    """No coordinator has this id."""

    code = "NotFound"


class CoordinatorActive(DepotError):
    """The coordinator was there lately, so what it has staged is not gone."""

    code = "CoordinatorActive"


class DatabaseUnavailable(DepotError):
    """The database cannot be reached, or has not the expected schema."""

    code = "DatabaseUnavailable"


class Quiescing(DepotError):
    """The coordinator is about to stop and takes no more uploads."""

    code = "Quiescing"


class TooManyUploads(DepotError):
    """`upload.max_concurrent` are running already."""

    code = "TooManyUploads"
    retry_after_s = 10


class UploadRunning(DepotError):
    """Releases are not pruned while one is uploaded."""

    code = "UploadRunning"
    retry_after_s = 30


class EntryNotFound(DepotError):
    """The journal has no such entry or shard."""

    code = "NotFound"


class NoShard(DepotError):
    """The journal was never opened by a coordinator, so nothing can be appended to it."""

    code = "NoShard"


class ShardInUse(DepotError):
    """A rotation cannot be undone any more."""

    code = "ShardInUse"


class ShardDropped(DepotError):
    """The entries of the shard were exported, and are not in the database any more."""

    code = "ShardDropped"


class JournalKeyMissing(DepotError):
    """The private key of the shard is not on this coordinator, or cannot be used."""

    code = "JournalKeyMissing"


class SnapshotRunning(DepotError):
    """Another snapshot of the database is being made on this machine."""

    code = "SnapshotRunning"


class SnapshotFailed(DepotError):
    """The database was not published as it should have been."""

    code = "SnapshotFailed"


class RestoreFailed(DepotError):
    """A snapshot was not put in the place of the database, or not to the end."""

    code = "RestoreFailed"


class DatabaseInUse(DepotError):
    """A coordinator, or another program, has the database open that is to be replaced."""

    code = "DatabaseInUse"


class SnapshotBehind(DepotError):
    """A sled has accepted a higher generation than a snapshot of the database has."""

    code = "SnapshotBehind"

    def __init__(self, message: str, advance_to: int) -> None:
        super().__init__(message)
        self.advance_to = advance_to

    def details(self) -> dict[str, object]:
        """Say what the generation has to be advanced to afterwards."""
        return {"advance_to": self.advance_to}


class SnapshotNotFound(DepotError):
    """No snapshot has this name."""

    code = "NotFound"


class SnapshotConflict(DepotError):
    """A version of a snapshot never changes, and the newest one stays."""

    code = "SnapshotConflict"
