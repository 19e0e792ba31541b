"""The machine that the agent runs on, as the kernel sees it."""

from __future__ import annotations

from pydantic import AwareDatetime

from agent.wire.fields import Answer, Count


class DiskBody(Answer):
    """The filesystem under a dataset, as the kernel sees it."""

    dataset: str
    device: str | None
    total_bytes: Count | None
    free_bytes: Count | None
    error: str | None


class ProcessBody(Answer):
    """The agent's own process."""

    rss_bytes: Count
    open_files: Count
    threads: Count
    cpu_percent: float


class NodeBody(Answer):
    """The machine the agent runs on, at `sampled_at`."""

    sampled_at: AwareDatetime
    cpu_count: Count
    cpu_percent: float
    load_1m: float
    load_5m: float
    load_15m: float
    memory_total_bytes: Count
    memory_available_bytes: Count
    process: ProcessBody
    disks: tuple[DiskBody, ...]
