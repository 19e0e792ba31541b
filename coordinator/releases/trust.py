"""Whether a root of trust verifies a repository: the client's part of the TUF specification.

Signatures, thresholds and formats are python-tuf's (`tuf.api.metadata`); the order of the steps is
the specification's (5.3 to 5.6), as in its `ngclient`, which has no public way to judge expiry by
another time than now or to go on past it:

1. From the trusted root, `N+1.root.json` follows while there is one, each signed by enough keys of
   the one before and of its own.
2. The last root verifies the timestamp; that names the snapshot's version, and its length and hash
   where it has them; that those of the roles of targets. Each is signed by enough keys of whoever
   delegates to it.
3. What of these has expired, intermediate roots apart, is reported and not judged.

A release is complete in itself: nothing is remembered of one when the next is verified, so that an
older release may be uploaded after a newer one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, TypeVar
from urllib.parse import quote

from tuf.api.exceptions import LengthOrHashMismatchError, RepositoryError
from tuf.api.metadata import (
    Metadata,
    MetaFile,
    Root,
    Signed,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

from coordinator.errors import BadRelease, Untrusted
from coordinator.releases import delegations
from coordinator.releases.repository import METADATA, ReleaseLimits, Repository, read_whole
from depot.artifact import ArtifactHash
from depot.errors import InvalidRequest

S = TypeVar("S", Root, Timestamp, Snapshot, Targets)
_SUFFIX: Final = ".json"
_TIME: Final = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True, slots=True)
class RootFacts:
    """What there is to know of a root of trust.

    Attributes:
        sha256: of the root.json as it was given.
        version: of the metadata.
        expires_s: when it does. An expired root can still verify what its successors sign.
        threshold: how many signatures its successor needs of its keys.
        key_ids: of the keys that sign its successor.
    """

    sha256: ArtifactHash
    version: int
    expires_s: float
    threshold: int
    key_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Verified:
    """What a repository says, as far as a root of trust answers for it.

    Attributes:
        root_version: of the last root of the chain.
        consistent: whether names of files have versions and hashes before them.
        targets: by path.
        targets_sha256: of the metadata of the top-level targets.
        expired: which metadata had, and when; empty: none.
    """

    root_version: int
    consistent: bool
    targets: Mapping[str, TargetFile]
    targets_sha256: ArtifactHash
    expired: tuple[str, ...]


def root_facts(content: bytes) -> RootFacts:
    """Look at a root.json that is to be trusted.

    Raises:
        InvalidRequest: it is none, or not signed by itself.
    """
    root = _parse_trusted(content)
    role = root.get_delegated_role(Root.type)
    return RootFacts(
        sha256=ArtifactHash.of(content),
        version=root.version,
        expires_s=root.expires.timestamp(),
        threshold=role.threshold,
        key_ids=tuple(role.keyids),
    )


def verify(
    repository: Repository, trusted_root: bytes, *, now_s: float, limits: ReleaseLimits
) -> Verified:
    """Follow the chain from `trusted_root` to the targets of `repository`.

    Raises:
        Untrusted: it is broken.
        BadRelease: something of it is missing, or nobody can read it.
        InvalidRequest: `trusted_root` is no root.
    """
    return _Chain(repository, now_s, limits).follow(_parse_trusted(trusted_root))


class _Chain:
    """One verification: where from, by which time, and what had expired on the way."""

    def __init__(self, repository: Repository, now_s: float, limits: ReleaseLimits) -> None:
        self._repository = repository
        self._now = datetime.fromtimestamp(now_s, UTC)
        self._limits = limits
        self._consistent = True
        self._expired: list[str] = []
        self._snapshot = Snapshot()
        self._loaded: dict[str, tuple[str, bytes]] = {}

    def follow(self, trusted: Root) -> Verified:
        limits = self._limits
        root = self._rotate(trusted)
        self._consistent = bool(root.consistent_snapshot)
        self._judge_expiry(f"{root.version}.root.json", root)
        path = f"{METADATA}timestamp.json"
        timestamp = _signed(
            Timestamp, path, self._read(path, limits.timestamp_bytes), root, Timestamp.type
        )
        self._judge_expiry(path, timestamp)
        meta = timestamp.snapshot_meta
        path, content = self._load(Snapshot.type, meta, limits.snapshot_bytes)
        self._snapshot = _signed(Snapshot, path, content, root, Snapshot.type)
        self._check(path, self._snapshot, meta)
        top = self._load_targets(Targets.type, root)
        listed = [name.removesuffix(_SUFFIX) for name in self._snapshot.meta]
        roles = delegations.reachable(top, listed, self._load_targets, limits.roles)
        return Verified(
            root_version=root.version,
            consistent=self._consistent,
            targets=delegations.resolve(roles),
            targets_sha256=ArtifactHash.of(self._loaded[Targets.type][1]),
            expired=tuple(dict.fromkeys(self._expired)),
        )

    def _rotate(self, root: Root) -> Root:
        for _ in range(self._limits.rotations + 1):
            path = f"{METADATA}{root.version + 1}.root.json"
            content = read_whole(self._repository, path, self._limits.root_bytes)
            if content is None:
                return root
            successor = _signed(Root, path, content, root, Root.type)
            _verify(path, _parse(Root, path, content), successor, Root.type)
            if successor.version != root.version + 1:
                raise Untrusted(f"{path} has version {successor.version}")
            root = successor
        raise BadRelease(f"more than {self._limits.rotations} roots follow the trusted one")

    def _load_targets(self, role: str, delegator: Root | Targets) -> Targets:
        meta = self._snapshot.meta.get(f"{role}{_SUFFIX}")
        if meta is None:
            raise BadRelease(
                f"the role {role!r} is delegated to, and the snapshot does not list it"
            )
        if role not in self._loaded:
            self._loaded[role] = self._load(role, meta, self._limits.targets_bytes)
        path, content = self._loaded[role]
        targets = _signed(Targets, path, content, delegator, role)
        self._check(path, targets, meta)
        return targets

    def _load(self, role: str, meta: MetaFile, most_bytes: int) -> tuple[str, bytes]:
        """The path and the bytes of a role's metadata, the ones that `meta` means."""
        version = f"{meta.version}." if self._consistent else ""
        path = f"{METADATA}{version}{quote(role, safe='')}{_SUFFIX}"
        content = self._read(path, most_bytes)
        try:
            meta.verify_length_and_hashes(content)
        except LengthOrHashMismatchError as error:
            raise Untrusted(f"{path} is not the file that is meant: {error}") from error
        return path, content

    def _read(self, path: str, most_bytes: int) -> bytes:
        content = read_whole(self._repository, path, most_bytes)
        if content is None:
            raise BadRelease(f"{path} is missing")
        return content

    def _check(self, path: str, signed: Snapshot | Targets, meta: MetaFile) -> None:
        if signed.version != meta.version:
            raise Untrusted(f"{path}: expected version {meta.version}, found {signed.version}")
        self._judge_expiry(path, signed)

    def _judge_expiry(self, path: str, signed: Signed) -> None:
        if signed.is_expired(self._now):
            name = path.removeprefix(METADATA)
            self._expired.append(f"{name} on {signed.expires.strftime(_TIME)}")


def _parse_trusted(content: bytes) -> Root:
    try:
        metadata = _parse(Root, "the root", content)
        _verify("the root", metadata, metadata.signed, Root.type)
    except (BadRelease, Untrusted) as error:
        raise InvalidRequest(f"expected a root.json of TUF, signed by itself: {error}") from error
    return metadata.signed


def _signed(kind: type[S], path: str, content: bytes, delegator: Root | Targets, role: str) -> S:
    """Parse metadata, and verify it by whoever delegates to its role."""
    metadata = _parse(kind, path, content)
    _verify(path, metadata, delegator, role)
    return metadata.signed


def _parse(kind: type[S], path: str, content: bytes) -> Metadata[S]:
    try:
        metadata = Metadata[S].from_bytes(content)
    except RepositoryError as error:
        raise BadRelease(f"{path} is not metadata of TUF: {_reason(error)}") from error
    if not isinstance(metadata.signed, kind):
        raise BadRelease(
            f"{path}: expected metadata of type {kind.type}, found {metadata.signed.type}"
        )
    return metadata


def _verify(path: str, metadata: Metadata[S], delegator: Root | Targets, role: str) -> None:
    try:
        result = delegator.get_verification_result(role, metadata.signed_bytes, metadata.signatures)
    except (RepositoryError, ValueError) as error:
        raise BadRelease(f"{path} cannot be verified: {_reason(error)}") from error
    if not result.verified:
        raise Untrusted(
            f"{path} is signed by {len(result.signed)} of the {result.threshold} keys it needs "
            f"of {delegator.type} version {delegator.version}"
        )


def _reason(error: Exception) -> str:
    """What lies behind an error that says only that there was one."""
    cause = error.__cause__ or error
    if isinstance(cause, KeyError):  # whose text is the key alone
        return f"it has no {str(cause)[:200]}"
    return f"{type(cause).__name__}: {str(cause)[:200]}"
