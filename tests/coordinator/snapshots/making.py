"""Small snapshots of databases, for the tests."""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path

from sqlalchemy import select

from agent.snapshots.archive import Archive
from agent.snapshots.course import Result
from agent.snapshots.download import Download, Telling
from coordinator.database import generation
from coordinator.database.database import Database
from coordinator.database.engine import parse_url
from coordinator.database.journal_tables import journal_told
from coordinator.database.transaction import GENERATION_RAISED, Transaction
from coordinator.snapshots import postgres
from coordinator.snapshots.copying import Order
from coordinator.snapshots.publishing import Published, publish_database
from depot.artifact import Generation
from tests.coordinator.database.making import opened
from tests.coordinator.postgres import PostgresServer


def publish(
    archive: Archive, url: str, place: Path, *, keep: int = 7, compressed: bool = True
) -> Published:
    return publish_database(
        archive,
        Order(parse_url(url), "fleet", compressed),
        directory=place / "work",
        keep=keep,
        line=lambda _: None,
        progress=lambda _: None,
    )


def downloaded(archive: Archive, target: Path) -> Path:
    telling = Telling(
        line=lambda _: None,
        warning=lambda _: None,
        failure=lambda *_: None,
        progress=lambda _: None,
    )
    assert Download(archive, "fleet", target, telling).run().result is Result.DOWNLOADED
    return target


async def started_from(snapshot: Path, server: PostgresServer | None) -> Database:
    """A database that holds what a snapshot does."""
    if server is None:
        return await opened(f"sqlite+aiosqlite:///{snapshot}")
    url = await server.create()
    await asyncio.to_thread(_put_back, url, snapshot)
    return await opened(url)


def _put_back(url: str, snapshot: Path) -> None:
    subprocess.run(
        ["pg_restore", "--exit-on-error", "--no-owner", f"--dbname={parse_url(url).database}",
         str(snapshot)],
        env=postgres.environment_of(parse_url(url)),
        check=True,
    )  # fmt: skip


async def raise_by_one(tx: Transaction) -> int:
    """One change: of a row, and of what is told of it."""
    return int(await generation.advance(tx, Generation(int(await generation.read(tx)) + 1)))


async def told(tx: Transaction) -> list[int]:
    """Of every change that was told, the generation it led to; sorted."""
    contents = await tx.rows(
        select(journal_told.c.content).where(journal_told.c.kind == GENERATION_RAISED)
    )
    return sorted(json.loads(row.content)["data"]["generation"] for row in contents)
