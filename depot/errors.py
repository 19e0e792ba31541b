"""The error tree: one root, one leaf for each refusal in the contract.

An error says what was refused, what was expected and what was found. It knows nothing of HTTP
statuses or logs: `depot.http.problems` has the one table for those. `code` is stable and on the
wire; `details()` is the machine-readable part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from depot.artifact import ArtifactHash, Generation


class DepotError(Exception):
    """Root of every refusal and failure this project raises on purpose."""

    code: ClassVar[str]
    retry_after_s: int | None = None

    def details(self) -> dict[str, object]:
        """JSON-ready facts beyond the message; empty when the message says it all."""
        return {}


class InvalidRequest(DepotError):
    """The input is not of the documented shape."""

    code = "InvalidRequest"


class ApiVersion(DepotError):
    """The `api-version` header is malformed or outside the supported range."""

    code = "ApiVersion"


class UnsupportedEncoding(DepotError):
    """The body has a content coding that is not decoded here."""

    code = "UnsupportedEncoding"


class ExpectationFailed(DepotError):
    """The `Expect` header asks for something other than 100-continue."""

    code = "ExpectationFailed"


class HttpVersionNotSupported(DepotError):
    """The request is of a version of HTTP that is not spoken here."""

    code = "HttpVersionNotSupported"


class CrossSite(DepotError):
    """A browser asks for a page that is not this server's."""

    code = "CrossSite"


class UnknownHost(DepotError):
    """The request is addressed to a name that is not this server's."""

    code = "UnknownHost"


class MethodNotAllowed(DepotError):
    """The path exists, the method does not."""

    code = "MethodNotAllowed"

    def __init__(self, method: str, path: str, allowed: Sequence[str]) -> None:
        super().__init__(f"{method} is not allowed on {path}; allowed: {', '.join(allowed)}")
        self.allowed = tuple(allowed)


class PreconditionFailed(DepotError):
    """The request's `If-Match` names another representation."""

    code = "PreconditionFailed"


class RangeNotSatisfiable(DepotError):
    """The requested range lies outside the artifact."""

    code = "RangeNotSatisfiable"

    def __init__(self, requested: str, size_bytes: int) -> None:
        super().__init__(f"the artifact has {size_bytes} bytes; none are in range {requested!r}")
        self.size_bytes = size_bytes

    def details(self) -> dict[str, object]:
        """The artifact's size, in bytes."""
        return {"size_bytes": self.size_bytes}


class NotFound(DepotError):
    """No such path, artifact, copy or pin."""

    code = "NotFound"

    def __init__(self, message: str, *, damaged: int = 0) -> None:
        super().__init__(message)
        self.damaged = damaged

    def details(self) -> dict[str, object]:
        """How many damaged copies exist, when that is why there is no good one."""
        return {"damaged": self.damaged} if self.damaged else {}


class HeaderTimeout(DepotError):
    """A connection was opened, or a request begun, and its head never completed."""

    code = "HeaderTimeout"


class BodyTimeout(DepotError):
    """A body arrives more slowly than the configured minimum, or not at all."""

    code = "BodyTimeout"


class ShuttingDown(DepotError):
    """The server is draining and takes no new work."""

    code = "ShuttingDown"
    retry_after_s = 5


class NotReady(DepotError):
    """The server runs and cannot do its work."""

    code = "NotReady"
    retry_after_s = 10

    def __init__(self, reasons: Sequence[str]) -> None:
        super().__init__(f"not ready: {'; '.join(reasons)}")
        self.reasons = tuple(reasons)

    def details(self) -> dict[str, object]:
        """Each reason by itself."""
        return {"reasons": list(self.reasons)}


class TooManyConnections(DepotError):
    """The server, or this client, has as many connections as it may have."""

    code = "TooManyConnections"
    retry_after_s = 5


class NoDataset(DepotError):
    """No dataset can be read (or, for a write, written)."""

    code = "NoDataset"
    retry_after_s = 10


class NoConfig(DepotError):
    """No artifact config was ever accepted."""

    code = "NoConfig"

    def __init__(self) -> None:
        super().__init__("this sled has no artifact config yet; PUT /artifacts-config first")


class ConfigNotFound(NoConfig):
    """The same, asked of the config itself."""


class LedgerUnknown(DepotError):
    """What the ledger said last cannot be known now, so nothing may be built on it."""

    code = "LedgerUnknown"
    retry_after_s = 10


class GenerationConflict(DepotError):
    """Common part of both conflicts below."""

    def __init__(self, message: str, attempted: Generation, current: Generation) -> None:
        super().__init__(message)
        self.attempted = attempted
        self.current = current

    def details(self) -> dict[str, object]:
        """Both generations, as the contract names them."""
        return {
            "attempted_generation": int(self.attempted),
            "current_generation": int(self.current),
        }


class ConfigGeneration(GenerationConflict):
    """A config that is older than the current one, or its equal with other contents."""

    code = "CONFIG_GENERATION"


class ArtifactGeneration(GenerationConflict):
    """A put or copy made for a generation that is not the current one."""

    code = "ARTIFACT_GENERATION"


class ArtifactInUse(DepotError):
    """The config would drop artifacts that a local consumer has pinned."""

    code = "ArtifactInUse"

    def __init__(self, artifacts: Sequence[ArtifactHash]) -> None:
        super().__init__(
            f"the config drops {len(artifacts)} pinned artifact(s), first {artifacts[0]}; "
            "unpin them or keep them in the config"
        )
        self.artifacts = tuple(artifacts)

    def details(self) -> dict[str, object]:
        """Every pinned artifact that would be dropped."""
        return {"artifacts": [str(artifact) for artifact in self.artifacts]}


class NotInConfig(DepotError):
    """The artifact is not one this sled is to hold."""

    code = "NotInConfig"


class TooLarge(DepotError):
    """The artifact can never fit here."""

    code = "TooLarge"


class QuotaExceeded(DepotError):
    """There is no room for the artifact now."""

    code = "QuotaExceeded"
    retry_after_s = 60


class HashMismatch(DepotError):
    """The bytes hash to something other than their name."""

    code = "HashMismatch"

    def __init__(self, expected: ArtifactHash, actual: ArtifactHash) -> None:
        super().__init__(f"expected bytes that hash to {expected}, found {actual}")
        self.expected = expected
        self.actual = actual

    def details(self) -> dict[str, object]:
        """Both hashes."""
        return {"expected": str(self.expected), "actual": str(self.actual)}


class LengthMismatch(DepotError):
    """The body ended early, or ran past the length that was announced.

    `expected_bytes` is None for a body that announces its end, not its length.
    """

    code = "LengthMismatch"

    def __init__(self, expected_bytes: int | None, actual_bytes: int) -> None:
        expected = "more" if expected_bytes is None else expected_bytes
        super().__init__(f"expected {expected} bytes, the body had {actual_bytes}")
        self.expected_bytes = expected_bytes
        self.actual_bytes = actual_bytes

    def details(self) -> dict[str, object]:
        """Both lengths."""
        return {"expected_bytes": self.expected_bytes, "actual_bytes": self.actual_bytes}


class KeptInQuarantine(DepotError):
    """What lies in quarantine stays there; the message says why."""

    code = "KeptInQuarantine"


class TooManyPuts(DepotError):
    """`storage.max_concurrent_puts` are running already."""

    code = "TooManyPuts"
    retry_after_s = 1


class TooManyBodies(DepotError):
    """The JSON bodies that are being worked on take all the memory they may."""

    code = "TooManyBodies"
    retry_after_s = 1


class TooFewCopies(DepotError):
    """Fewer durable copies than `storage.min_copies`; what was written stays."""

    code = "TooFewCopies"
    retry_after_s = 10


class Io(DepotError):
    """Every dataset failed the same write."""

    code = "Io"


class BadSource(DepotError):
    """A copy's source URL is not one this sled may fetch from."""

    code = "BadSource"


class TooManyCopies(DepotError):
    """`copy.max_concurrent` are running already."""

    code = "TooManyCopies"
    retry_after_s = 1


class DepotCopy(DepotError):
    """The source did not give the artifact."""

    code = "DepotCopy"

    def __init__(self, message: str, *, transient: bool = False) -> None:
        super().__init__(message)
        self.transient = transient
        """Whether the same source may well do better a moment later."""


class DatasetUnusable(DepotError):
    """A dataset path cannot be used now; the reason is the message."""

    code = "DatasetUnusable"


class DatasetRefused(DepotError):
    """What an operator asked for is not done to this dataset; the reason is the message."""

    code = "DatasetRefused"


class DatasetBusy(DatasetUnusable):
    """Another process holds the dataset's lock."""

    code = "DatasetBusy"


class DatasetForeign(DatasetUnusable):
    """The directory is not this sled's dataset and is not empty, so it is left alone."""

    code = "DatasetForeign"


class FormatTooNew(DatasetUnusable):
    """A document was written by a newer version of the program."""

    code = "FormatTooNew"


class Internal(DepotError):
    """A defect of this program; the log of the server has the traceback."""

    code = "Internal"


class Unreachable(DepotError):
    """Another server could not be reached, or broke off, within its time."""

    code = "Unreachable"


class Refused(DepotError):
    """Another server answered with a refusal of its own."""

    code = "Refused"

    def __init__(
        self,
        url: str,
        status: int,
        *,
        remote_code: str | None = None,
        remote_message: str = "",
        request_id: str | None = None,
        remote_details: Mapping[str, object] | None = None,
    ) -> None:
        said = ": ".join(part for part in (remote_code, remote_message) if part)
        super().__init__(f"{url} answered {status}" + (f" {said}" if said else ""))
        self.url = url
        self.status = status
        self.remote_code = remote_code
        self.remote_message = remote_message
        self.request_id = request_id
        self.remote_details = dict(remote_details or {})

    def details(self) -> dict[str, object]:
        """What the other server said."""
        return {
            "status": self.status,
            "error_code": self.remote_code,
            "request_id": self.request_id,
        }
