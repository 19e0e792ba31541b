"""Which wanted artifacts lack some of their copies and which all, kept up to date.

Counted anew, by sets, when the config or a dataset as a whole changes; of a copy that changes, only
its artifact is looked at again. So asking costs nothing while nothing changes, and little while
something does, also when every artifact of a lost dataset is being copied back.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import Final

from depot.artifact import ArtifactConfig, ArtifactHash, in_order
from depot.config.keeper import LedgerKeeper
from depot.mirrors.mirror_set import MirrorSet

_FEW: Final = 1000
"""So many that changed are looked at one by one; more are counted sooner by sets."""


@dataclass(frozen=True, slots=True)
class Lacks:
    """Wanted artifacts that lack some of their copies, and those that lack all; in order."""

    some: tuple[ArtifactHash, ...] = ()
    all: tuple[ArtifactHash, ...] = ()


class Census:
    """Counts what is lacking on the mirrors of a store."""

    def __init__(self, mirrors: MirrorSet, keeper: LedgerKeeper) -> None:
        self._mirrors = mirrors
        self._keeper = keeper
        self._seen: tuple[object, ...] = ()
        self._some: list[ArtifactHash] = []
        self._all: list[ArtifactHash] = []
        self._touched: set[ArtifactHash] = set()
        self._lacks = Lacks()
        for mirror in mirrors.all:
            mirror.on_copy = self._touched.add

    def lacks(self) -> Lacks:
        """What is lacking now."""
        config = self._keeper.resolved.config
        seen = (config, *(mirror.stock_revision for mirror in self._mirrors.all))
        anew = seen != self._seen or len(self._touched) > _FEW
        if not anew and not self._touched:
            return self._lacks
        self._seen = seen
        if config is None:
            self._some, self._all = [], []
        elif anew:
            self._count(config)
        else:
            for artifact in self._touched & config.artifacts:
                self._look_at(artifact)
        self._touched.clear()
        self._lacks = Lacks(tuple(self._some), tuple(self._all))
        return self._lacks

    def lacks_all(self, artifact: ArtifactHash) -> bool:
        """Tell whether it is among those of `lacks` that lack all copies."""
        return _holds(self._all, artifact)

    def _count(self, config: ArtifactConfig) -> None:
        lacking = set[ArtifactHash]()
        for mirror in self._mirrors.all:
            if not mirror.readable:
                lacking = set(config.artifacts)
                break
            lacking |= config.artifacts.difference(mirror.inventory.good)
            lacking.update(a for a in mirror.doubts.rows if a in config.artifacts)
        none = lacking
        for mirror in self._mirrors.readable():
            none = none.difference(mirror.inventory.good)
        self._some = _ordered(lacking - none, config)
        self._all = _ordered(none, config)

    def _look_at(self, artifact: ArtifactHash) -> None:
        good = any(artifact in mirror.inventory.good for mirror in self._mirrors.readable())
        whole = good and all(m.certain_copy(artifact) is not None for m in self._mirrors.all)
        _hold(self._some, artifact, held=good and not whole)
        _hold(self._all, artifact, held=not good)


def _ordered(artifacts: set[ArtifactHash], config: ArtifactConfig) -> list[ArtifactHash]:
    if len(artifacts) <= _FEW:
        return list(in_order(artifacts))
    return [artifact for artifact in config.ordered if artifact in artifacts]


def _holds(ordered: list[ArtifactHash], artifact: ArtifactHash) -> bool:
    place = bisect_left(ordered, artifact)
    return place < len(ordered) and ordered[place] == artifact


def _hold(ordered: list[ArtifactHash], artifact: ArtifactHash, *, held: bool) -> None:
    """Have a sorted list hold an artifact once, or not at all."""
    place = bisect_left(ordered, artifact)
    holds = _holds(ordered, artifact)
    if held and not holds:
        ordered.insert(place, artifact)
    elif holds and not held:
        del ordered[place]
