"""What a store says of artifacts: how many copies each has, and where they are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby, repeat
from operator import add, itemgetter
from typing import TYPE_CHECKING, Final

from depot.artifact import ArtifactConfig, ArtifactHash, Generation
from depot.errors import NotFound

if TYPE_CHECKING:
    from depot.mirrors.mirror import Mirror
    from depot.quarantine.keeper import Quarantined


@dataclass(frozen=True, slots=True)
class Listing:
    """Good copies of each artifact of a config that has any."""

    generation: Generation
    copies: Mapping[ArtifactHash, int]


_STRIDE: Final = 2048


class CopyCounts(Mapping[ArtifactHash, int]):
    """Copies of each artifact that has any, in order; counted when first asked, in any thread.

    Args:
        certain: for each dataset, the artifacts whose copy there counts.
        lacking: those that may lack a copy, if it is known: `certain` need not have any other.
    """

    def __init__(
        self,
        config: ArtifactConfig,
        certain: Sequence[Set[ArtifactHash]],
        lacking: Set[ArtifactHash] | None = None,
    ) -> None:
        self._config = config
        self._certain = certain
        self._lacking = lacking

    def runs(self) -> Iterator[tuple[Sequence[ArtifactHash], int]]:
        """Artifacts in order with how many copies each of them has, those together that may be.

        For a thread: they may be many.
        """
        ordered, most = self._config.ordered, len(self._certain)
        for at in range(0, len(ordered), _STRIDE):  # other threads run in between
            some = ordered[at : at + _STRIDE]
            if self._lacking is not None and self._lacking.isdisjoint(some):
                yield some, most
                continue
            for count, run in groupby(zip(some, self._counted(some), strict=True), itemgetter(1)):
                if count:
                    yield [artifact for artifact, _ in run], count

    def _counted(self, some: Sequence[ArtifactHash]) -> Iterator[int]:
        lacking = self._lacking
        if lacking is not None:
            most = len(self._certain)
            return (sum(a in c for c in self._certain) if a in lacking else most for a in some)
        counts: Iterator[int] = repeat(0, len(some))
        for here in self._certain:
            counts = map(add, counts, map(here.__contains__, some))
        return counts

    @cached_property
    def _counts(self) -> dict[ArtifactHash, int]:
        return {artifact: count for some, count in self.runs() for artifact in some}

    def __getitem__(self, artifact: ArtifactHash) -> int:
        return self._counts[artifact]

    def __iter__(self) -> Iterator[ArtifactHash]:
        return iter(self._counts)

    def __len__(self) -> int:
        return len(self._counts)


@dataclass(frozen=True, slots=True)
class CopyDetail:
    """One dataset's copy.

    Attributes:
        dataset: the dataset's path.
        present: there is a good copy, and it is not in doubt.
        verified_at: Unix time when it last hashed to its name; None: never.
        path: the file, for consumers on this machine.
        damaged: there is no good copy, but a damaged one, under its name or in quarantine.
        quarantined: ids of the copies in quarantine.
    """

    dataset: str
    present: bool
    verified_at: float | None = None
    size_bytes: int | None = None
    path: str | None = None
    damaged: bool = False
    quarantined: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ArtifactDetail:
    """One artifact on every dataset."""

    sha256: ArtifactHash
    copies: tuple[CopyDetail, ...]


def detail_of(
    artifact: ArtifactHash, mirrors: Iterable[Mirror], quarantined: Iterable[Quarantined]
) -> ArtifactDetail:
    """Describe an artifact's copies.

    Raises:
        NotFound: no dataset has a file of that name, nor a damaged one in quarantine.
    """
    aside = [each for each in quarantined if each.file.artifact == artifact]
    copies = tuple(_copy_detail(artifact, mirror, aside) for mirror in mirrors)
    if not aside and all(copy.size_bytes is None for copy in copies):
        raise NotFound(f"{artifact} is not here")
    return ArtifactDetail(artifact, copies)


def _copy_detail(
    artifact: ArtifactHash, mirror: Mirror, aside: Iterable[Quarantined]
) -> CopyDetail:
    copy = mirror.artifacts.get(artifact)
    ids = tuple(each.id for each in aside if each.index == mirror.index)
    if copy is None:
        return CopyDetail(str(mirror.path), present=False, damaged=bool(ids), quarantined=ids)
    counts = mirror.certain_copy(artifact) is not None
    return CopyDetail(
        str(mirror.path),
        counts,
        copy.verified_at_s,
        copy.size_bytes,
        str(mirror.path / str(artifact)) if counts else None,
        damaged=mirror.good_copy(artifact) is None,
        quarantined=ids,
    )
