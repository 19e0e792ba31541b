"""How the background verification is, as it stands on the wire."""

from __future__ import annotations

from agent.wire.fields import timestamp
from agent.wire.scrub import DatasetScrubBody, ScrubBody, ScrubPassBody
from depot.scrub.report import DatasetScrub, ScrubPass, ScrubStatus


def scrub_body(status: ScrubStatus) -> ScrubBody:
    """Render the whole."""
    return ScrubBody(
        interval_s=status.interval_s,
        max_bytes_per_s=status.max_bytes_per_s,
        paused_until=timestamp(status.paused_until_s),
        datasets=tuple(map(_dataset_body, status.datasets)),
    )


def _dataset_body(dataset: DatasetScrub) -> DatasetScrubBody:
    return DatasetScrubBody(
        dataset=dataset.dataset,
        state=dataset.state,
        rate_bytes_per_s=dataset.rate_bytes_per_s,
        current=_pass_body(dataset.current),
        last=_pass_body(dataset.last),
        oldest_unverified_s=dataset.oldest_age_s,
        never_verified=dataset.never_verified,
        copies=dataset.copies,
        bytes=dataset.total_bytes,
        verified_bytes=dataset.verified_bytes,
        bad_found=dataset.bad_found,
        healed=dataset.healed,
        heal_s=dataset.heal_s,
        last_heal_s=dataset.last_heal_s,
        waiting=dataset.waiting,
    )


def _pass_body(scrub: ScrubPass | None) -> ScrubPassBody | None:
    if scrub is None:
        return None
    return ScrubPassBody(
        requested=scrub.requested,
        started_at=timestamp(scrub.started_at_s),
        finished_at=timestamp(scrub.finished_at_s),
        copies=scrub.copies,
        copies_total=scrub.copies + scrub.copies_left,
        bytes_done=scrub.bytes_done,
        bytes_total=scrub.bytes_done + scrub.bytes_left,
        bad=scrub.bad,
    )
