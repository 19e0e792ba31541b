"""The datasets: how each of them is, and what is asked of one."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from agent.wire.fields import Answer, Count, DatasetPath, Request


class DatasetBody(Answer):
    """One dataset: what it is, how it is, how full it is."""

    path: str
    dataset_id: str | None
    device: str | None
    mounted: bool
    state: Literal["healthy", "suspect", "missing", "released"]
    full: bool
    last_error: str | None
    quota_bytes: Count
    used_bytes: Count
    reserved_bytes: Count
    available_bytes: Count
    artifacts: Count
    quarantined: Count = Field(default=0, description="Damaged copies that were set aside.")
    quarantined_bytes: Count = Field(
        default=0, description="Their bytes, which are outside the quota."
    )
    in_doubt: Count = Field(
        default=0,
        description="Artifacts that do not count before they were verified again: the dataset "
        "failed in a way after which nothing on it is believed, or another dataset has a copy of "
        "another size.",
    )
    worker_pid: int | None = Field(
        default=None, description="The process that works on it; null when there is none."
    )
    worker_hangs: bool = Field(
        default=False, description="A call to the device has had its time and has not ended."
    )
    left_behind: tuple[int, ...] = Field(
        default=(), description="Processes that were given up, and hang in the kernel."
    )


class DatasetsBody(Answer):
    """Every dataset, in the order of the configuration."""

    datasets: tuple[DatasetBody, ...]


class DatasetPathBody(Request):
    """Which dataset is meant."""

    path: DatasetPath


class DatasetReleaseBody(DatasetPathBody):
    """Which dataset is let go of."""

    last: bool = Field(
        default=False, description="Also when no other dataset can be read: nothing is served then."
    )


class DatasetReplaceBody(DatasetPathBody):
    """At which path an empty disk takes the place of what was there."""

    plain_directory: bool = Field(
        default=False, description="The path is meant to be no mount although others are."
    )
