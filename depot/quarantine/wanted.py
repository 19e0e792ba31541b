"""Which artifacts may still be asked for, and of which a damaged copy may be the last trace.

Everything is wanted while that cannot be told (no config, no pins known), or may be taken back: the
grace period before a mass deletion runs (D4). What is wanted is needed when no copy of it is known
to be good by its bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from depot.artifact import ArtifactHash
from depot.config.keeper import LedgerKeeper
from depot.mirrors.mirror import Mirror

Test = Callable[[ArtifactHash], bool]


def wanted_by(keeper: LedgerKeeper) -> Test:
    """What tells whether an artifact is wanted now, also in another thread."""
    config, pinned = keeper.resolved.config, keeper.book.artifacts
    grace = keeper.deletions_held_until_s()
    if config is None or grace or not keeper.pins_known:
        return lambda _: True
    wanted = config.artifacts
    return lambda artifact: artifact in wanted or artifact in pinned


def needed_by(keeper: LedgerKeeper, mirrors: Iterable[Mirror]) -> Test:
    """What tells whether it is wanted, and no copy there is known to be good, by its bytes."""
    is_wanted = wanted_by(keeper)
    return lambda artifact: is_wanted(artifact) and not _verified_on(mirrors, artifact)


def _verified_on(mirrors: Iterable[Mirror], artifact: ArtifactHash) -> bool:
    copies = (mirror.certain_copy(artifact) for mirror in mirrors)
    return any(copy and copy.verified_at_s is not None for copy in copies)
