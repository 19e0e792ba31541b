"""Small fleets and releases, for the tests of the database."""

from __future__ import annotations

import asyncio
import os
import random
import sys

from sqlalchemy import delete, update

from coordinator.database import sleds
from coordinator.database.database import PATIENCE_S, Database
from coordinator.database.engine import make_engine, parse_url
from coordinator.database.snapshot import DatabaseSnapshot
from coordinator.database.tables import generation, metadata
from coordinator.database.transaction import Transaction
from coordinator.values import Release, ReleaseArtifact, ReleaseState, Sled
from depot.artifact import ArtifactConfig, ArtifactHash


async def opened(url: str) -> Database:
    """Open a database that is known to be migrated: most of `Database.open` is looking at that."""
    engine = await asyncio.to_thread(make_engine, parse_url(url), PATIENCE_S)
    return Database(engine, patience_s=PATIENCE_S, rng=random.Random())


async def make_empty(tx: Transaction) -> None:
    """Bring a database back to how the migrations left it."""
    for table in reversed(metadata.sorted_tables):
        if table is not generation:
            await tx.write(delete(table))
    await tx.write(update(generation).values(value=1))


async def start_python(program: str, *arguments: str) -> asyncio.subprocess.Process:
    """Start another process, with pipes to and from it."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        program,
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


def sha(content: str) -> ArtifactHash:
    return ArtifactHash.of(content.encode())


def artifact(name: str, content: str | None = None, *, version: str = "1.0") -> ReleaseArtifact:
    """An artifact of a kind; of the same content, the same artifact."""
    content = name if content is None else content
    return ReleaseArtifact(name, version, sha(content), len(content), kind="image")


def release(version: str, *artifacts: ReleaseArtifact) -> Release:
    return Release(
        version=version,
        sha256=sha(f"zip of {version}"),
        file_name=f"{version}.zip",
        time_created_s=1234.5,
        allowed_expired=False,
        state=ReleaseState.COMPLETE,
        artifacts=artifacts,
    )


def config_of(found: DatabaseSnapshot, sled_id: str) -> ArtifactConfig:
    """What a sled is to hold, worked out in the plainest way."""
    here = found.kept.get(sled_id, frozenset())
    return ArtifactConfig(found.generation, frozenset(found.wanted) | here)


async def add_sled(tx: Transaction, sled_id: str) -> Sled:
    return await sleds.upsert(tx, sled_id, f"http://{sled_id}:12345", f"http://{sled_id}:12348")
