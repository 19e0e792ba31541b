"""What a release is read from: the files of a TUF repository, by their paths in it.

A path is `metadata/...` or `targets/...`, whatever the files are kept in; only paths that
`is_plain` are ever asked for, so that none can lead out of a repository.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from coordinator.errors import BadRelease
from depot.artifact import ArtifactHash

BLOCK_BYTES: Final = 1 << 20
METADATA: Final = "metadata/"
TARGETS: Final = "targets/"
MAX_PATH_LENGTH: Final = 1024


class Damaged(Exception):
    """A file of the repository cannot be read to its end; the message says why."""


class Body(Protocol):
    """The bytes of one file of a repository."""

    @property
    def size_bytes(self) -> int:
        """How many there are, as far as it is known without reading them."""

    def read(self, size_bytes: int, /) -> bytes:
        """Read at most so many of the next bytes; b"" at the end.

        Raises:
            Damaged: they cannot be had.
        """

    def close(self) -> None:
        """Let go of what is held."""


class Repository(Protocol):
    """A place with the files of a TUF repository. Used from one thread at a time."""

    @property
    def file_name(self) -> str:
        """What people call it."""

    def fingerprint(self) -> ArtifactHash | None:
        """The SHA-256 of the one file that it is, if it is one file."""

    def open(self, path: str, most_bytes: int, /) -> Body | None:
        """Open the file at `path`; None when there is none.

        Args:
            path: one that `is_plain`.
            most_bytes: what the reader would take. Where reading costs, no more than one byte
                beyond it is fetched, and `size_bytes` is then greater than `most_bytes`.

        Raises:
            BadRelease: what is there is not a file.
        """

    def close(self) -> None:
        """Let go of what is held."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseLimits:
    """How much of a release is read at all.

    Attributes:
        root_bytes: of one root.json.
        timestamp_bytes: of timestamp.json.
        snapshot_bytes: of snapshot.json.
        targets_bytes: of the metadata of one role of targets.
        document_bytes: of `artifacts.json` and `artifacts-v2.json`.
        rotations: of the root, after the trusted one.
        roles: of targets, delegated ones included.
        targets: in all roles together.
        total_bytes: of all targets together.
    """

    root_bytes: int = 512_000
    timestamp_bytes: int = 64 << 10
    snapshot_bytes: int = 2 << 20
    targets_bytes: int = 16 << 20
    document_bytes: int = 16 << 20
    rotations: int = 256
    roles: int = 256
    targets: int = 50_000
    total_bytes: int = 64 << 30


DEFAULT_LIMITS: Final = ReleaseLimits()


def is_plain(path: str) -> bool:
    """Tell whether `path` is relative, printable, and names each of its parts."""
    parts = path.split("/")
    plain = path.isprintable() and "\\" not in path and len(path) <= MAX_PATH_LENGTH
    return plain and not any(part in ("", ".", "..") for part in parts)


def read_whole(repository: Repository, path: str, most_bytes: int) -> bytes | None:
    """Read the file at `path`; None when there is none.

    Raises:
        BadRelease: it is larger than `most_bytes`, or cannot be read.
    """
    body = repository.open(path, most_bytes)
    if body is None:
        return None
    try:
        if body.size_bytes > most_bytes:
            raise BadRelease(f"{path}: at most {most_bytes} bytes are read, found more")
        content = bytearray()
        while block := body.read(BLOCK_BYTES):
            content += block
        return bytes(content)
    except Damaged as error:
        raise BadRelease(f"{path}: {error}") from error
    finally:
        body.close()
