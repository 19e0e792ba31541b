"""Copies from depots: asked for, running, ended."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AwareDatetime, Field

from agent.wire.fields import (
    MAX_SOURCES,
    Answer,
    Count,
    DepotUrl,
    GenerationNumber,
    Request,
    Sha256,
)


class CopyFromDepotBody(Request):
    """Where to fetch an artifact from: one depot, and others to fall over to."""

    depot_base_url: DepotUrl
    depot_base_urls: Annotated[tuple[DepotUrl, ...], Field(max_length=MAX_SOURCES)] = ()

    def sources(self) -> tuple[str, ...]:
        """Every source once, in the order in which they are to be tried."""
        return tuple(dict.fromkeys((self.depot_base_url, *self.depot_base_urls)))


class CopyStartedBody(Answer):
    """The copy that now runs, or ran already, for the artifact."""

    copy_id: str


CopyState = Literal["running", "succeeded", "failed", "superseded"]


class CopyBody(Answer):
    """One running or recent copy."""

    copy_id: str
    sha256: Sha256
    generation: GenerationNumber
    sources: tuple[str, ...]
    state: CopyState
    bytes_done: Count
    bytes_total: Count | None
    started_at: AwareDatetime
    finished_at: AwareDatetime | None = None
    error: str | None = None
    datasets: Count | None = None
    successful_writes: Count | None = None


class CopiesBody(Answer):
    """Running and recent copies, oldest first."""

    copies: tuple[CopyBody, ...]
