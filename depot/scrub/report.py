"""What is told of scrubbing: one pass over a dataset, a dataset, the whole. Pure values.

Times are Unix seconds.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Final, Literal

MAX_PAUSE_S: Final = 7 * 86400
DEFAULT_PAUSE_S: Final = 3600

DatasetScrubState = Literal["idle", "running", "paused", "skipped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScrubPass:
    """One pass over the copies of one dataset.

    Attributes:
        since_s: copies that were verified after this are not part of it.
        requested: somebody asked for it; otherwise it was time.
        copies: judged so far.
        bytes_done: of these copies.
        bad: copies that turned out damaged, which are among them, or gone.
        copies_left: still to be read.
    """

    started_at_s: float
    since_s: float
    requested: bool = False
    finished_at_s: float | None = None
    copies: int = 0
    bytes_done: int = 0
    bad: int = 0
    copies_left: int = 0
    bytes_left: int = 0

    @property
    def seconds(self) -> float:
        """How long it took, by a clock that may have been set meanwhile; 0 while it runs."""
        return max(0.0, (self.finished_at_s or self.started_at_s) - self.started_at_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetScrub:
    """How one dataset is scrubbed.

    Attributes:
        state: `skipped` while it is not healthy.
        rate_bytes_per_s: at most so fast is read now; 0 when nothing is.
        oldest_age_s: since the copy that was not verified for longest was (or was first seen).
        never_verified: copies that nobody has verified yet.
        verified_bytes: read since the start.
        bad_found: bad copies found since the start, by whomever.
        healed: of all that were found, so many have a good copy again.
        heal_s: the times from found to healed, summed.
        waiting: bad copies that are still to be healed.
    """

    dataset: str
    state: DatasetScrubState
    rate_bytes_per_s: float
    current: ScrubPass | None
    last: ScrubPass | None
    oldest_age_s: float | None
    never_verified: int
    copies: int
    total_bytes: int
    verified_bytes: int
    bad_found: int
    healed: int
    heal_s: float
    last_heal_s: float | None
    waiting: int


@dataclass(frozen=True, slots=True)
class ScrubStatus:
    """How scrubbing is.

    Attributes:
        paused_until_s: None when it is not paused.
        warnings: for an operator.
    """

    interval_s: float
    max_bytes_per_s: int
    paused_until_s: float | None
    datasets: tuple[DatasetScrub, ...]
    warnings: tuple[str, ...] = ()


def encode_passes(current: ScrubPass | None, last: ScrubPass | None) -> str:
    """Render the passes of a dataset, to be gone on with after a restart."""
    passes = {"current": current, "last": last}
    return json.dumps({name: asdict(each) if each else None for name, each in passes.items()})


def decode_passes(text: str | None) -> tuple[ScrubPass | None, ScrubPass | None]:
    """Read what `encode_passes` wrote; passes that cannot be read are begun anew."""
    try:
        passes = json.loads(text or "{}")
        return _decoded(passes.get("current")), _decoded(passes.get("last"))
    except (AttributeError, TypeError, ValueError):
        return None, None


def _decoded(values: object) -> ScrubPass | None:
    if values is None:
        return None
    if not isinstance(values, dict):
        raise ValueError("expected an object")
    known = {each.name for each in fields(ScrubPass)}
    numbers = {name: value for name, value in values.items() if name in known}
    if not all(isinstance(value, int | float | None) for value in numbers.values()):
        raise ValueError("expected numbers")
    return ScrubPass(**numbers)
