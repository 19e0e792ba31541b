"""The tables, as SQLAlchemy knows them; `migrations` makes them, and a test compares the two.

Rules kept here:
- Nothing that only one database has: no sequences, no arrays, no JSON types, no advisory locks.
- No foreign key cascades: a row that decides what sleds hold goes only by a statement of its own,
  which `Transaction.write` sees (F3).
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Dialect,
    Double,
    ForeignKey,
    Index,
    LargeBinary,
    MetaData,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)

from depot.artifact import ArtifactHash


class Sha256(TypeDecorator[ArtifactHash]):
    """An artifact's hash, kept as its 32 bytes."""

    impl = LargeBinary
    cache_ok = True

    def process_bind_param(self, value: ArtifactHash | None, dialect: Dialect) -> bytes | None:
        """Drivers know plain bytes only."""
        return None if value is None else bytes(value)

    def process_result_value(self, value: bytes | None, dialect: Dialect) -> ArtifactHash | None:
        """Raises InvalidRequest when the column holds something else."""
        return None if value is None else ArtifactHash(value)


metadata: Final = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
    }
)

generation: Final = Table(
    "generation",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("value", BigInteger, nullable=False),
    CheckConstraint("id = 1", name="single_row"),
    CheckConstraint("value >= 0", name="not_negative"),
)

sleds: Final = Table(
    "sleds",
    metadata,
    Column("id", Text, primary_key=True),
    Column("agent_url", Text, nullable=False),
    Column("depot_url", Text, nullable=False),
    Column("policy", Text, nullable=False),
    Column("state", Text),
    Column("last_error", Text),
    Column("last_seen_at", Double),
    Column("generation", BigInteger),
)

sled_pins: Final = Table(
    "sled_pins",
    metadata,
    Column("sled_id", Text, ForeignKey("sleds.id"), primary_key=True),
    Column("sha256", Sha256, primary_key=True),
)
"""What a sled has pinned that no release had when it was found: wanted there all the same."""

releases: Final = Table(
    "releases",
    metadata,
    Column("version", Text, primary_key=True),
    Column("sha256", Sha256, nullable=False),
    Column("file_name", Text, nullable=False),
    Column("time_created", Double, nullable=False),
    Column("allowed_expired", Boolean, nullable=False),
    Column("state", Text, nullable=False),
    # The one that recording it led to: which release is the newer one, whatever clocks say.
    Column("generation", BigInteger, nullable=False),
)

artifacts: Final = Table(
    "artifacts",
    metadata,
    Column("sha256", Sha256, primary_key=True),
    Column("size_bytes", BigInteger, nullable=False),
    CheckConstraint("size_bytes >= 0", name="not_negative"),
)

release_artifacts: Final = Table(
    "release_artifacts",
    metadata,
    Column("release_version", Text, ForeignKey("releases.version"), primary_key=True),
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("name", Text, nullable=False),
    Column("version", Text, nullable=False),
    # The kind or the tags, as JSON: a unique constraint does not see NULLs.
    Column("qualifier", Text, nullable=False),
    # Of these three, which may be longer together than PostgreSQL's indexes take.
    Column("name_sha256", Sha256, nullable=False),
    Column("sha256", Sha256, ForeignKey("artifacts.sha256"), nullable=False),
    UniqueConstraint("release_version", "name_sha256"),
    Index("ix_release_artifacts_name_sha256", "name_sha256"),
    Index("ix_release_artifacts_sha256", "sha256"),
)

target_releases: Final = Table(
    "target_releases",
    metadata,
    Column("version", Text, ForeignKey("releases.version"), primary_key=True),
    Column("ordinal", BigInteger, nullable=False),
    Column("time_set", Double, nullable=False),
    UniqueConstraint("ordinal"),
)
"""The target is the one with the highest ordinal; the others were it before."""

trust_roots: Final = Table(
    "trust_roots",
    metadata,
    Column("id", Text, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("content", LargeBinary, nullable=False),
    Column("time_added", Double, nullable=False),
)

coordinators: Final = Table(
    "coordinators",
    metadata,
    Column("id", Text, primary_key=True),
    Column("host", Text, nullable=False),
    Column("first_seen_at", Double, nullable=False),
    Column("last_seen_at", Double, nullable=False),
)
"""Who said lately, or ever, that it works on this fleet."""

staged_artifacts: Final = Table(
    "staged_artifacts",
    metadata,
    Column("coordinator_id", Text, primary_key=True),
    Column("sha256", Sha256, primary_key=True),
)
"""What lies in which coordinator's staging depot."""

requests: Final = Table(
    "requests",
    metadata,
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("time", Double, nullable=False),
    Column("sled_id", Text, nullable=False),
    Column("operation", Text, nullable=False),
    Column("generation", BigInteger),
    Column("artifact", Sha256),
    Column("source", Text),
    Column("error", Text),
)

counters: Final = Table(
    "counters",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", BigInteger, nullable=False),
)

snapshot_turns: Final = Table(
    "snapshot_turns",
    metadata,
    Column("name", Text, primary_key=True),
    Column("coordinator_id", Text),
    # Until then nobody else takes the turn.
    Column("until", Double),
    Column("published_at", Double),
    Column("version", Text),
    Column("error", Text),
)
"""Snapshots of the database by their names: who is at the next one, and how the last ones fared."""

snapshots: Final = Table(
    "snapshots",
    metadata,
    # The higher one is the newer one, whatever clocks say.
    Column("ordinal", BigInteger, primary_key=True, autoincrement=False),
    Column("name", Text, nullable=False),
    Column("version", Text, nullable=False),
    # Of the stored form, which is the artifact.
    Column("sha256", Sha256, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("time_created", Double, nullable=False),
    # What the publisher says of it, as JSON.
    Column("said", Text, nullable=False),
    CheckConstraint("size_bytes >= 0", name="not_negative"),
    UniqueConstraint("name", "version"),
)

DECIDE_WHAT_IS_WANTED: Final = frozenset({release_artifacts, sled_pins, snapshots})
"""What a sled is to hold is a function of these, and of nothing else."""
