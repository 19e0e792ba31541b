"""Which wanted artifacts lack some of their copies and which all, kept up to date.

Counted anew when the config or a dataset as a whole changes; of a copy that changes, only its
artifact is looked at again. So asking costs nothing while nothing changes, and little while
something does, also when every artifact of a lost dataset is being copied back. Who expects that
it has to be counted anew has that done in a thread, by `recount`, before somebody asks.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from depot.artifact import ArtifactConfig, ArtifactHash, in_order
from depot.config.keeper import LedgerKeeper
from depot.mirrors.mirror_set import MirrorSet

_FEW: Final = 1000
"""So many that changed are looked at one by one; more are counted sooner with all the others."""
_Good = Mapping[ArtifactHash, int]
_BEING_COUNTED: Final[tuple[object, ...]] = ("being counted",)


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
        self._recounting = asyncio.Lock()
        for mirror in mirrors.all:
            mirror.on_copy = self._touched.add

    def lacks(self) -> Lacks:
        """What is lacking now."""
        config = self._keeper.resolved.config
        now = self._now()
        anew = not self._is_counted(now)
        if not anew and not self._touched:
            return self._lacks
        if config is None:
            self._some, self._all = [], []
        elif anew:
            self._some, self._all = _count(config, *self._stock())
        else:
            for artifact in self._touched & config.artifacts:
                self._look_at(artifact)
        self._touched.clear()
        self._keep(now)
        return self._lacks

    def lacks_as_counted(self) -> Lacks | None:
        """What is lacking now, unless everything has to be counted anew for that."""
        return self.lacks() if self._is_counted(self._now()) else None

    async def recount(self) -> None:
        """Count in a thread what `lacks` would have to count now; they may be a hundred thousand.

        What changes one by one meanwhile is looked at when somebody asks. Who asks before this has
        ended counts himself, and nothing of his is overwritten.
        """
        async with self._recounting:
            config, now = self._keeper.resolved.config, self._now()
            if config is None or self._is_counted(now):
                return
            self._seen = _BEING_COUNTED
            self._touched.clear()
            counted = await asyncio.to_thread(_count, config, *self._stock())
            if self._seen is _BEING_COUNTED and self._now() == now:
                self._some, self._all = counted
                self._keep(now)

    def lacks_all(self, artifact: ArtifactHash) -> bool:
        """Tell whether it is among those of `lacks` that lack all copies."""
        return _holds(self._all, artifact)

    def _now(self) -> tuple[object, ...]:
        """What everything is to be counted anew for when it is another."""
        revisions = (mirror.stock_revision for mirror in self._mirrors.all)
        return (self._keeper.resolved.config, *revisions)

    def _is_counted(self, now: tuple[object, ...]) -> bool:
        return now == self._seen and len(self._touched) <= _FEW

    def _stock(self) -> tuple[list[_Good | None], list[Collection[ArtifactHash]]]:
        """The good copies on each dataset, None of one that is away, and what is in doubt there."""
        mirrors = self._mirrors.all
        good: list[_Good | None] = [
            mirror.inventory.good.copy() if mirror.readable else None for mirror in mirrors
        ]
        return good, [mirror.doubts.rows for mirror in mirrors]

    def _keep(self, seen: tuple[object, ...]) -> None:
        self._seen = seen
        self._lacks = Lacks(tuple(self._some), tuple(self._all))

    def _look_at(self, artifact: ArtifactHash) -> None:
        good = any(artifact in mirror.inventory.good for mirror in self._mirrors.readable())
        whole = good and all(m.certain_copy(artifact) is not None for m in self._mirrors.all)
        _hold(self._some, artifact, held=good and not whole)
        _hold(self._all, artifact, held=not good)


def _count(
    config: ArtifactConfig,
    good: Sequence[_Good | None],
    doubted: Sequence[Collection[ArtifactHash]],
) -> tuple[list[ArtifactHash], list[ArtifactHash]]:
    """Wanted artifacts that lack some copies, and those that lack all; see `Census._stock`.

    Step by step, which lets other threads run: one operation on sets takes too long for that.
    """
    ordered, here = config.ordered, [copies for copies in good if copies is not None]
    lacking: Sequence[ArtifactHash] = ordered
    if len(here) == len(good):
        short = {artifact for copies in here for artifact in ordered if artifact not in copies}
        short |= {a for some in doubted for a in some if a in config.artifacts}
        lacking = in_order(short)
    nowhere = list(lacking)
    for copies in here:
        nowhere = [artifact for artifact in nowhere if artifact not in copies]
    gone = set(nowhere)
    return [artifact for artifact in lacking if artifact not in gone], nowhere


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
