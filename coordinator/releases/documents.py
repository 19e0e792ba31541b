"""What the targets of a release are called: `artifacts.json` and `artifacts-v2.json`.

Both are targets themselves, and no artifacts. A repository may have both, for readers of either
kind; then what either lists is an artifact. One with neither is a plain release, of which every
target is an artifact. Fields that are not known here are left to those who know them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Final, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints, ValidationError

from coordinator.errors import BadRelease
from coordinator.releases.targets import Target
from coordinator.values import ReleaseArtifact

DOCUMENT: Final = "artifacts.json"
DOCUMENT_V2: Final = "artifacts-v2.json"
_VERSION: Final = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+~_-]{0,127}", re.ASCII)


def _printable(text: str) -> str:
    # It is shown in terminals.
    if not text.isprintable():
        raise ValueError(f"expected printable characters, found {text[:40]!r}")
    return text


_MAX_LENGTH: Final = 1024
_Line = Annotated[str, StringConstraints(max_length=_MAX_LENGTH), AfterValidator(_printable)]
_Text = Annotated[
    str, StringConstraints(min_length=1, max_length=_MAX_LENGTH), AfterValidator(_printable)
]
_D = TypeVar("_D", bound="_Document")


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")


class _Document(_Part):
    system_version: _Text


class _Artifact(_Part):
    name: _Text
    version: _Text
    kind: _Text
    target: _Text


class _Artifacts(_Document):
    artifacts: tuple[_Artifact, ...]


class _ArtifactV2(_Part):
    target_name: _Text
    version: _Text
    tags: dict[_Text, _Line]


class _ArtifactsV2(_Document):
    artifacts: tuple[_ArtifactV2, ...] = ()


def name_artifacts(
    targets: Mapping[str, Target], contents: Mapping[str, bytes], version: str | None
) -> tuple[str, tuple[ReleaseArtifact, ...]]:
    """Find out what a release is and has.

    Args:
        targets: all targets, by path.
        contents: of those documents that are among them, by path.
        version: what the operator calls it; needed by a plain release.

    Returns:
        The version, and the artifacts in the order of their names.

    Raises:
        BadRelease: a document is none, names a target that is not there or says something twice;
            or versions differ, or there is none.
    """
    if not contents:
        found = _known(version)
        return found, tuple(_plain(target, found) for target in targets.values())
    artifacts: list[ReleaseArtifact] = []
    for path in sorted(contents):
        document: _Artifacts | _ArtifactsV2
        if path == DOCUMENT_V2:
            document = _parse(_ArtifactsV2, path, contents[path])
            artifacts += (_of_v2(path, each, targets) for each in document.artifacts)
        else:
            document = _parse(_Artifacts, path, contents[path])
            artifacts += (_of_v1(path, each, targets) for each in document.artifacts)
        if version not in (None, document.system_version):
            raise BadRelease(
                f"{path} is of version {document.system_version!r}, expected {version!r}"
            )
        version = document.system_version
    return _known(version), tuple(_once(artifacts))


def _parse(kind: type[_D], path: str, content: bytes) -> _D:
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise BadRelease(f"{path}: {where}: {first['msg']}".replace(": : ", ": ")) from error


def _of_v1(path: str, listed: _Artifact, targets: Mapping[str, Target]) -> ReleaseArtifact:
    target = _target(path, listed.target, targets)
    return ReleaseArtifact(
        listed.name, listed.version, target.sha256, target.size_bytes, kind=listed.kind
    )


def _of_v2(path: str, listed: _ArtifactV2, targets: Mapping[str, Target]) -> ReleaseArtifact:
    target = _target(path, listed.target_name, targets)
    return ReleaseArtifact(
        listed.target_name,
        listed.version,
        target.sha256,
        target.size_bytes,
        tags=tuple(sorted(listed.tags.items())),
    )


def _target(path: str, name: str, targets: Mapping[str, Target]) -> Target:
    target = targets.get(name)
    if target is None:
        raise BadRelease(f"{path} lists the target {name!r}, which the repository does not have")
    return target


def _plain(target: Target, version: str) -> ReleaseArtifact:
    return ReleaseArtifact(target.path, version, target.sha256, target.size_bytes)


def _known(version: str | None) -> str:
    if version is None:
        raise BadRelease(
            f"the repository has neither {DOCUMENT} nor {DOCUMENT_V2}, which would name its "
            "version; give one with --version"
        )
    if not _VERSION.fullmatch(version):
        raise BadRelease(
            "expected a version of at most 128 letters, digits and . + ~ _ -, "
            f"found {version[:150]!r}"
        )
    return version


def _once(artifacts: Iterable[ReleaseArtifact]) -> Iterator[ReleaseArtifact]:
    """Each artifact by itself, in order; one name may not mean two blobs."""
    named: dict[tuple[object, ...], ReleaseArtifact] = {}
    for artifact in artifacts:
        kind = artifact.kind or "", artifact.tags or ()
        other = named.setdefault((artifact.name, artifact.version, *kind), artifact)
        if other.sha256 != artifact.sha256:
            raise BadRelease(
                f"{artifact.name} {artifact.version} is listed twice, as {other.sha256} and as "
                f"{artifact.sha256}"
            )
    yield from (named[key] for key in sorted(named))
