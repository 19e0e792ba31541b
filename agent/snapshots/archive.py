"""What an archive is: a place that keeps versions of named snapshots.

Blocking, and safe to call from several threads at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from agent.snapshots.values import Head, Listed, Metadata, Version


class Archive(Protocol):
    """One archive."""

    @property
    def url(self) -> str:
        """Where it is, for people."""

    def head(self, name: str) -> Head:
        """Say what the newest version of a snapshot is.

        Raises:
            Gone: there is none.
            Malformed: what is said of it makes no sense.
            Unreachable, Refused: the archive cannot be asked.
        """

    def read(self, version: Version, start: int, stop: int) -> Iterator[bytes]:
        """Give the stored bytes of one version from `start` up to `stop`, in blocks.

        Raises:
            Gone: it is not there any more, or another is in its place.
            Truncated: it ends before `stop`.
            Unreachable, Refused: the archive cannot be asked, or stopped in the middle.
        """

    def put(self, name: str, blocks: Iterable[bytes], metadata: Metadata) -> Version:
        """Store a version, whole and durable, or nothing at all.

        Nothing is there until the last block was taken; when taking one raises, nothing ever is.

        Raises:
            Unreachable, Refused: the archive did not take it.
        """

    def versions(self, name: str) -> Sequence[Listed]:
        """List what there is of a snapshot: the one that `head` says first, then newest first.

        Raises:
            Unreachable, Refused: the archive cannot be asked.
        """

    def delete(self, version: Version) -> None:
        """Let go of one version; one that is gone is fine. Never the one that `head` says.

        Raises:
            Unreachable, Refused: the archive cannot be asked.
        """

    def close(self) -> None:
        """Let go of connections."""
