"""The targets of a release: each with its length and hashes, and never read without them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self

from tuf.api.metadata import TargetFile

from coordinator.errors import BadRelease, TargetMismatch
from coordinator.releases.repository import (
    BLOCK_BYTES,
    TARGETS,
    Body,
    Damaged,
    Repository,
    is_plain,
)
from depot.artifact import ArtifactHash
from depot.errors import InvalidRequest

_SHA256: Final = "sha256"
_BLAKE2B_256: Final = "blake2b-256"
_ALGORITHMS: Final = frozenset(
    name for name in hashlib.algorithms_guaranteed if not name.startswith("shake")
)


@dataclass(frozen=True, slots=True)
class Target:
    """A target as the metadata has it.

    Attributes:
        path: its name.
        sha256: of its bytes.
        size_bytes: how many they are.
        hashes: every hash the metadata has of them, by algorithm.
        files: where in the repository they may be, the likeliest first.
    """

    path: str
    sha256: ArtifactHash
    size_bytes: int
    hashes: Mapping[str, str] = field(repr=False)
    files: tuple[str, ...] = field(repr=False)


class TargetReader:
    """The bytes of a target, for one reader: a `depot.streams.sources.Source`.

    The last of them are given out only once all are known to be right.
    """

    def __init__(self, target: Target, body: Body) -> None:
        self._target = target
        self._body = body
        self._left_bytes = target.size_bytes
        self._digests = {name: _new(name) for name in target.hashes}
        self._aborted = False

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill some of `buffer`; the number of bytes, 0 at the end.

        Raises:
            TargetMismatch: the target is not the one the metadata names.
        """
        if self._aborted:
            raise ConnectionAbortedError("the transfer was given up")
        block = self._read(min(len(buffer), self._left_bytes)) if self._left_bytes else b""
        buffer[: len(block)] = block
        return len(block)

    def abort(self) -> None:
        """Make the reader give up soon."""
        self._aborted = True

    def close(self) -> None:
        """Let go of what is held."""
        self._body.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _e: BaseException | None, _t: TracebackType | None
    ) -> None:
        self.close()

    def blocks(self) -> Iterator[bytes]:
        """Read it to its end, a block at a time."""
        while self._left_bytes:
            yield self._read(min(BLOCK_BYTES, self._left_bytes))

    def check(self) -> None:
        """Compare what was read with the metadata; for a target without a byte, the first thing.

        Raises:
            TargetMismatch: they differ.
        """
        for name, digest in self._digests.items():
            if (found := digest.hexdigest()) != (expected := self._target.hashes[name].lower()):
                raise self._mismatch(f"expected the {name} {expected}, found {found}")

    def _read(self, size_bytes: int) -> bytes:
        try:
            block = self._body.read(size_bytes)
            left_bytes = self._left_bytes - len(block)
            surplus = not left_bytes and self._body.read(1)
        except Damaged as error:
            raise self._mismatch(str(error)) from error
        expected = self._target.size_bytes
        if not block:
            raise self._mismatch(f"expected {expected} bytes, found {expected - left_bytes}")
        if surplus:
            raise self._mismatch(f"expected {expected} bytes, found more")
        for digest in self._digests.values():
            digest.update(block)
        self._left_bytes = left_bytes
        if not left_bytes:
            self.check()
        return block

    def _mismatch(self, reason: str) -> TargetMismatch:
        return TargetMismatch(self._target.path, reason)


def list_targets(found: Mapping[str, TargetFile], *, consistent: bool) -> tuple[Target, ...]:
    """Make targets of what the metadata says, in the order of their paths.

    Raises:
        BadRelease: it says something of one that no target can have.
    """
    return tuple(_target(path, found[path], consistent) for path in sorted(found))


def open_target(repository: Repository, target: Target) -> TargetReader:
    """Open a target; the reader compares as it reads.

    Raises:
        TargetMismatch: it is not there, or of another length than it is to have.
    """
    for path in target.files:
        body = repository.open(TARGETS + path, target.size_bytes)
        if body is not None:
            break
    else:
        raise TargetMismatch(target.path, f"expected the file {TARGETS}{target.files[0]}: missing")
    reader = TargetReader(target, body)
    try:
        if body.size_bytes != target.size_bytes:
            raise TargetMismatch(
                target.path, f"expected {target.size_bytes} bytes, found {body.size_bytes}"
            )
        if not target.size_bytes:
            reader.check()
    except BaseException:
        reader.close()
        raise
    return reader


def _target(path: str, found: TargetFile, consistent: bool) -> Target:
    if not is_plain(path):
        raise BadRelease(f"target {path[:200]!r}: its name is not a plain relative path")
    # python-tuf compares the length and does not ask for its type.
    length: object = found.length
    if not isinstance(length, int) or isinstance(length, bool):
        raise BadRelease(f"target {path!r}: expected a length in bytes, found {length!r}")
    if unknown := sorted(set(found.hashes) - _ALGORITHMS - {_BLAKE2B_256}):
        raise BadRelease(f"target {path!r}: the hash {unknown[0][:40]!r} is not known here")
    try:
        sha256 = ArtifactHash.parse(found.hashes.get(_SHA256, ""))
    except InvalidRequest as error:
        raise BadRelease(f"target {path!r}: {error}") from error
    return Target(path, sha256, length, dict(found.hashes), _files(path, found, consistent))


def _files(path: str, found: TargetFile, consistent: bool) -> tuple[str, ...]:
    if not consistent:
        return (path,)
    named = dict(zip(found.hashes, found.get_prefixed_paths(), strict=True))
    first = named.pop(_SHA256)
    # A hash of another kind is only a name here: what it is comes to light when it is compared.
    return (first, *(each for each in named.values() if is_plain(each)))


def _new(algorithm: str) -> Any:  # hashlib has no name for the type of its objects
    if algorithm == _BLAKE2B_256:
        return hashlib.blake2b(digest_size=32)
    return hashlib.new(algorithm)


def distinct(targets: Sequence[Target]) -> dict[ArtifactHash, Target]:
    """One target for each SHA-256, the first of its paths."""
    found: dict[ArtifactHash, Target] = {}
    for target in targets:
        found.setdefault(target.sha256, target)
    return found
