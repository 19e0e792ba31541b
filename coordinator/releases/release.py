"""`open_release`: a release whose every byte was verified, or the reason why there is none.

Whoever has a `VerifiedRelease` has one of which a root of trust answers for every target, and of
which every target was read, hashed and compared. Targets are compared once more when they are read
again: the files of a directory may have changed meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from coordinator.errors import BadRelease, Expired, Untrusted
from coordinator.releases.directory import DirectoryRepository
from coordinator.releases.documents import DOCUMENT, DOCUMENT_V2, name_artifacts
from coordinator.releases.repository import DEFAULT_LIMITS, ReleaseLimits, Repository
from coordinator.releases.targets import (
    Target,
    TargetReader,
    distinct,
    list_targets,
    open_target,
)
from coordinator.releases.trust import Verified, verify
from coordinator.releases.zip_repository import ZipRepository
from coordinator.values import ReleaseArtifact
from depot.artifact import ArtifactHash
from depot.errors import InvalidRequest

_SHOWN_ROOTS: Final = 5


@dataclass(frozen=True, slots=True)
class VerifyingRoot:
    """The root of trust that answers for a release.

    Attributes:
        index: its place among those that were given.
        sha256: of the root.json that was given.
        version: of the last root of the chain that begins with it.
    """

    index: int
    sha256: ArtifactHash
    version: int


@dataclass(frozen=True, slots=True)
class ReleaseFacts:
    """What is recorded of a release.

    Attributes:
        version: of the system, as its documents or the operator have it.
        sha256: of the zip; of the metadata of its top-level targets where there is no zip.
        file_name: what it was uploaded as.
        expired: which of its metadata had expired, and when; empty: none.
        artifacts: in the order of their names.
        root: what verified it.
    """

    version: str
    sha256: ArtifactHash
    file_name: str
    expired: tuple[str, ...]
    artifacts: tuple[ReleaseArtifact, ...]
    root: VerifyingRoot

    @property
    def allowed_expired(self) -> bool:
        """Whether it had expired when it was uploaded, and that was allowed."""
        return bool(self.expired)


@dataclass(frozen=True, slots=True)
class ReleaseTarget:
    """The bytes of one artifact of a release, once for all its names.

    Attributes:
        sha256: of them.
        size_bytes: how many they are.
        path: the target that has them; the first, if several do.
    """

    sha256: ArtifactHash
    size_bytes: int
    path: str
    _repository: Repository = field(repr=False)
    _target: Target = field(repr=False)

    def open(self) -> TargetReader:
        """Open them for one reader, a `depot.streams.sources.Source` and a context manager.

        Raises:
            TargetMismatch: now or while it is read: the files have changed.
        """
        return open_target(self._repository, self._target)


@dataclass(frozen=True, slots=True)
class VerifiedRelease:
    """A release that was verified whole. Its targets may be read in several threads at once.

    Attributes:
        release: what is to be recorded.
        targets: what is to be staged: the bytes of every artifact, by their SHA-256, sorted.
    """

    release: ReleaseFacts
    targets: Mapping[ArtifactHash, ReleaseTarget]


@contextmanager
def open_release(
    source: Path | Repository,
    roots: Sequence[bytes],
    *,
    now_s: float,
    allow_expired: bool = False,
    version: str | None = None,
    file_name: str | None = None,
    limits: ReleaseLimits = DEFAULT_LIMITS,
) -> Iterator[VerifiedRelease]:
    """Verify a release, and give what is in it to the block.

    Blocks for as long as reading all of it takes: call it in a thread.

    Args:
        source: a zip, a directory, or a repository (closed at the end, too).
        roots: the trusted root.json files.
        now_s: by which expiry is judged, Unix seconds.
        allow_expired: take it though metadata has expired; `release.expired` tells.
        version: of a release that has no document of its own to say so; of others, what they must
            say.
        file_name: what to record; otherwise what the source calls itself.
        limits: how much is read at all.

    Raises:
        BadRelease: it is no release, or not a safe one.
        Untrusted: no root verifies it.
        Expired: metadata of it has expired.
        TargetMismatch: a target is not what the metadata says.
        OSError: the source, or the place for what is downloaded, fails.
    """
    repository = _open(source) if isinstance(source, Path) else source
    try:
        root, verified = _verify_by_any(repository, roots, now_s, limits)
        if verified.expired and not allow_expired:
            raise Expired(f"metadata of the release has expired: {', '.join(verified.expired)}")
        targets = list_targets(verified.targets, consistent=verified.consistent)
        contents = _read_all(repository, targets, limits)
        by_path = {target.path: target for target in targets}
        found, artifacts = name_artifacts(by_path, contents, version)
        facts = ReleaseFacts(
            version=found,
            sha256=repository.fingerprint() or verified.targets_sha256,
            file_name=file_name or repository.file_name,
            expired=verified.expired,
            artifacts=artifacts,
            root=root,
        )
        yield VerifiedRelease(facts, _of_artifacts(repository, targets, artifacts))
    finally:
        repository.close()


def _open(path: Path) -> Repository:
    return DirectoryRepository(path) if path.is_dir() else ZipRepository(path)


def _verify_by_any(
    repository: Repository, roots: Sequence[bytes], now_s: float, limits: ReleaseLimits
) -> tuple[VerifyingRoot, Verified]:
    """The first root that verifies it, rather one by which nothing has expired."""
    found: list[tuple[VerifyingRoot, Verified]] = []
    failures: list[BadRelease | Untrusted] = []
    for index, content in enumerate(roots):
        try:
            verified = verify(repository, content, now_s=now_s, limits=limits)
        except (BadRelease, Untrusted) as error:
            failures.append(error)
            continue
        except InvalidRequest as error:
            # One root that is none must not keep the others from being tried.
            failures.append(Untrusted(str(error)))
            continue
        root = VerifyingRoot(index, ArtifactHash.of(content), verified.root_version)
        found.append((root, verified))
        if not verified.expired:
            return found[-1]
    if found:
        return found[0]
    raise _refusal(roots, failures)


def _refusal(
    roots: Sequence[bytes], failures: Sequence[BadRelease | Untrusted]
) -> BadRelease | Untrusted:
    for failure in failures:
        # A root that does not verify it says nothing about it; one that got this far does.
        if isinstance(failure, BadRelease):
            return failure
    if not roots:
        return Untrusted(
            "no root of trust was added, so nothing verifies the release: add the root.json of "
            "whoever signs releases first"
        )
    reasons = [
        f"root {str(ArtifactHash.of(content))[:12]}: {failure}"
        for content, failure in zip(roots, failures, strict=True)
    ]
    more = f"; and {len(reasons) - _SHOWN_ROOTS} more" if len(reasons) > _SHOWN_ROOTS else ""
    return Untrusted(
        f"none of {len(reasons)} trusted roots verifies the release: "
        + "; ".join(reasons[:_SHOWN_ROOTS])
        + more
    )


def _read_all(
    repository: Repository, targets: Sequence[Target], limits: ReleaseLimits
) -> dict[str, bytes]:
    """Read every target, so that each is compared; the contents of the documents among them."""
    _check_bounds(targets, limits)
    contents: dict[str, bytes] = {}
    for target in targets:
        with open_target(repository, target) as reader:
            if target.path in (DOCUMENT, DOCUMENT_V2):
                contents[target.path] = b"".join(reader.blocks())
            else:
                for _ in reader.blocks():
                    pass
    return contents


def _check_bounds(targets: Sequence[Target], limits: ReleaseLimits) -> None:
    total_bytes = sum(target.size_bytes for target in targets)
    if len(targets) > limits.targets or total_bytes > limits.total_bytes:
        raise BadRelease(
            f"{len(targets)} targets of {total_bytes} bytes together; at most {limits.targets} of "
            f"{limits.total_bytes} bytes are taken"
        )
    for target in targets:
        if target.path in (DOCUMENT, DOCUMENT_V2) and target.size_bytes > limits.document_bytes:
            raise BadRelease(
                f"{target.path} has {target.size_bytes} bytes, at most {limits.document_bytes} "
                "are read"
            )


def _of_artifacts(
    repository: Repository, targets: Sequence[Target], artifacts: Sequence[ReleaseArtifact]
) -> dict[ArtifactHash, ReleaseTarget]:
    by_hash = distinct(targets)
    return {
        sha256: ReleaseTarget(sha256, target.size_bytes, target.path, repository, target)
        for sha256 in sorted({artifact.sha256 for artifact in artifacts})
        for target in (by_hash[sha256],)
    }
