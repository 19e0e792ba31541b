"""One staging directory, and depots opened on it one after the other."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from coordinator.staging.depot import StagingDepot
from depot.artifact import ArtifactHash
from depot.dataset.disk import Disk, system_disk
from tests import ondisk
from tests.store.builders import off_loop

MIB: Final = 1 << 20
ONE: Final = b"the first artifact" * 5000
TWO: Final = b"the second artifact" * 9000
THREE: Final = b"the third artifact"


def hash_of(content: bytes) -> ArtifactHash:
    return ArtifactHash.of(content)


@dataclass
class Bench:
    """One staging directory.

    Attributes:
        disk: what its depots work on; None: the real one.
        events: what every depot on it has told.
    """

    path: Path
    quota_bytes: int = 16 * MIB
    disk: Disk | None = None
    events: list[tuple[str, Mapping[str, object]]] = field(default_factory=list)

    @asynccontextmanager
    async def depot(self) -> AsyncIterator[StagingDepot]:
        opened = await StagingDepot.open(
            self.path,
            quota_bytes=self.quota_bytes,
            on_event=lambda kind, fields: self.events.append((kind, fields)),
            disk_of=lambda path: self.disk or system_disk(path),
        )
        async with opened:
            yield opened

    @property
    def dataset(self) -> Path:
        return self.path / "artifacts"

    async def files(self) -> list[str]:
        """The artifacts that have a file, whatever a depot says."""
        return sorted(await off_loop(ondisk.artifact_files, self.dataset))

    async def damage(self, artifact: ArtifactHash) -> None:
        """Turn one bit of an artifact, as a dying disk would."""
        await off_loop(_turn_a_bit, self.dataset / str(artifact))


def _turn_a_bit(path: Path) -> None:
    path.chmod(0o644)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


async def hold(depot: StagingDepot, *contents: bytes) -> list[ArtifactHash]:
    """Stage all of it in one claim."""
    by_hash = {hash_of(content): content for content in contents}
    async with depot.claim({a: len(content) for a, content in by_hash.items()}) as claim:
        for artifact, content in by_hash.items():
            await claim.hold(artifact, io.BytesIO(content))
    return list(by_hash)
