"""How copies are verified in the background."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AwareDatetime, Field

from agent.wire.fields import Answer, Count, Request
from depot.scrub.report import DEFAULT_PAUSE_S, MAX_PAUSE_S


class ScrubPauseBody(Request):
    """For how long nothing is to be verified in the background."""

    seconds: Annotated[int, Field(ge=1, le=MAX_PAUSE_S)] = DEFAULT_PAUSE_S


class ScrubPassBody(Answer):
    """One pass over the copies of one dataset."""

    requested: bool = Field(description="False: it was time for one.")
    started_at: AwareDatetime
    finished_at: AwareDatetime | None
    copies: Count = Field(description="Copies read so far.")
    copies_total: Count
    bytes_done: Count
    bytes_total: Count
    bad: Count = Field(description="Copies that turned out damaged or gone.")


class DatasetScrubBody(Answer):
    """How one dataset is verified. Counts without another word are since the agent started."""

    dataset: str
    state: Literal["idle", "running", "paused", "skipped"] = Field(
        description="`skipped` while the dataset is not healthy."
    )
    rate_bytes_per_s: float = Field(description="At most so fast is read now.")
    current: ScrubPassBody | None = Field(description="The pass that is to be gone on with.")
    last: ScrubPassBody | None = Field(description="The last pass that ended.")
    oldest_unverified_s: float | None = Field(
        description="Age of the oldest verification; of a copy never verified, since it was seen."
    )
    never_verified: Count
    copies: Count
    bytes: Count
    verified_bytes: Count
    bad_found: Count = Field(description="Copies found damaged or gone, by whatever read them.")
    healed: Count = Field(description="Of these: were made good.")
    heal_s: float = Field(description="Seconds from found to healed, summed.")
    last_heal_s: float | None
    waiting: Count = Field(description="Of these: still to be healed.")


class ScrubBody(Answer):
    """How the background verification is."""

    interval_s: float
    max_bytes_per_s: Count
    paused_until: AwareDatetime | None
    datasets: tuple[DatasetScrubBody, ...]
