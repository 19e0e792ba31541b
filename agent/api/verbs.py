"""What the sled agent API asks of the store and of the copies; both are more than that."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

from agent.copies.record import CopyRecord
from depot.artifact import ArtifactConfig, ArtifactHash, Generation
from depot.quarantine.keeper import Quarantined
from depot.reading.answers import ArtifactDetail, Listing
from depot.scrub.report import ScrubStatus
from depot.store_status import StoreStatus
from depot.streams.sources import Source
from depot.writing.stored import Stored


class RunningPut(Protocol):
    """A put that was admitted."""

    @property
    def held(self) -> Stored | None:
        """How it ended, when nothing needs to be sent."""

    @property
    def wants_whole(self) -> bool:
        """Its body is short: `store` takes it at once."""

    async def store(self, content: bytes) -> Stored:
        """Take a short body."""

    async def receive(self, source: Source) -> Stored:
        """Take the bytes in."""


class Store(Protocol):
    """The verbs of `depot.store.ArtifactStore` that have an endpoint; see there for the errors."""

    def require_dataset(self) -> None:
        """Raise NoDataset when none can be used."""

    def config(self) -> ArtifactConfig:
        """The current config."""

    async def put_config(self, config: ArtifactConfig) -> None:
        """Accept a config."""

    async def reset(self, expected_generation: Generation) -> None:
        """Forget the config."""

    def list_artifacts(self) -> Listing:
        """What is held of the current config."""

    async def describe(self, artifact: ArtifactHash, /) -> ArtifactDetail:
        """Where one artifact is."""

    def begin_put(
        self, artifact: ArtifactHash, generation: Generation, length_bytes: int | None, /
    ) -> AbstractAsyncContextManager[RunningPut]:
        """Admit a put."""

    async def put_pin(self, name: str, artifacts: Collection[ArtifactHash]) -> None:
        """Set a pin."""

    async def delete_pin(self, name: str) -> None:
        """Remove a pin."""

    def pins(self) -> Mapping[str, frozenset[ArtifactHash]]:
        """Every pin."""

    def scrub_status(self) -> ScrubStatus:
        """How the background verification is."""

    async def start_scrub(self) -> None:
        """Verify every copy from now on."""

    async def pause_scrub(self, seconds: float) -> None:
        """Verify nothing for so long."""

    async def resume_scrub(self) -> None:
        """End a pause."""

    def quarantined(self) -> tuple[Quarantined, ...]:
        """Every damaged copy that was set aside."""

    async def restore_quarantined(self, id_: str, /) -> None:
        """Give one its name back."""

    async def purge_quarantined(self, id_: str, /, *, force: bool) -> None:
        """Delete one."""

    def status(self) -> StoreStatus:
        """How the store is."""

    async def release_dataset(self, path: Path, /, *, last: bool) -> None:
        """Let go of a dataset."""

    async def attach_dataset(self, path: Path, /) -> None:
        """Take a dataset back."""

    async def replace_dataset(self, path: Path, /, *, plain_directory: bool) -> str:
        """Adopt an empty disk."""


class Copies(Protocol):
    """The verbs of `agent.copies.manager.CopyManager` that have an endpoint."""

    async def start(
        self, artifact: ArtifactHash, generation: Generation, sources: Sequence[str], /
    ) -> str:
        """Begin or join a copy; its id."""

    def list(self) -> tuple[CopyRecord, ...]:
        """Running and recent copies, oldest first."""

    def get(self, copy_id: str) -> CopyRecord:
        """One of them; raises NotFound."""
