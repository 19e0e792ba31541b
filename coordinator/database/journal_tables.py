"""The journal's tables: what was told, the entries that became of it, and the trees over those.

Rules kept here:
- A hash is not in the row of its entry: whoever changes an entry changes both, or is seen.
- Nothing is inserted for a sealed shard: triggers refuse it, which the migration makes.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Index,
    LargeBinary,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from coordinator.database.tables import Sha256, metadata

journal_told: Final = Table(
    "journal_told",
    metadata,
    # Begins with the time, so that its order is that of telling.
    Column("id", Text, primary_key=True),
    Column("time", Double, nullable=False),
    Column("kind", Text, nullable=False),
    Column("sled_id", Text),
    Column("release", Text),
    Column("epoch", Text),
    Column("sequence", BigInteger),
    Column("content", Text, nullable=False),
    UniqueConstraint("sled_id", "epoch", "sequence"),
)
"""What was told in the transaction that did it, until it has a place in a shard."""

journal_artifacts: Final = Table(
    "journal_artifacts",
    metadata,
    Column("sha256", Sha256, primary_key=True),
    Column("entry_id", Text, primary_key=True),
)
"""Which artifacts an entry is about; it may still be among what was told."""

journal_shards: Final = Table(
    "journal_shards",
    metadata,
    Column("id", Text, primary_key=True),
    # In the order they were created.
    Column("ordinal", BigInteger, nullable=False),
    # The journal's index of its first entry: what the ones before it hold together.
    Column("first_index", BigInteger, nullable=False),
    Column("state", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    # Of its tree, as `coordinator.journal.tree.Edge` writes it.
    Column("edge", LargeBinary, nullable=False),
    Column("verifier_key", Text, nullable=False),
    Column("time_created", Double, nullable=False),
    Column("time_sealed", Double),
    # Its entries were exported, and are not here any more.
    Column("time_dropped", Double),
    UniqueConstraint("ordinal"),
    CheckConstraint("state = 'active' OR state = 'sealed'", name="state"),
    CheckConstraint("size >= 0", name="not_negative"),
    Index(
        "ix_journal_shards_active",
        "state",
        unique=True,
        sqlite_where=text("state = 'active'"),
        postgresql_where=text("state = 'active'"),
    ),
)
"""One tree each; there is one that is active."""

journal_entries: Final = Table(
    "journal_entries",
    metadata,
    Column("shard_id", Text, ForeignKey("journal_shards.id"), primary_key=True),
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("id", Text, nullable=False),
    Column("time", Double, nullable=False),
    Column("kind", Text, nullable=False),
    Column("sled_id", Text),
    Column("release", Text),
    Column("epoch", Text),
    Column("sequence", BigInteger),
    # What is hashed: all of the above and more, as JSON. The columns are there to find it by.
    Column("content", Text, nullable=False),
    UniqueConstraint("id"),
    UniqueConstraint("sled_id", "epoch", "sequence"),
    Index("ix_journal_entries_time", "time"),
    Index("ix_journal_entries_release", "release"),
)

journal_nodes: Final = Table(
    "journal_nodes",
    metadata,
    Column("shard_id", Text, ForeignKey("journal_shards.id"), primary_key=True),
    Column("level", BigInteger, primary_key=True, autoincrement=False),
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("hash", LargeBinary, nullable=False),
)
"""The hashes of whole subtrees; those of level 0 are of the entries."""

journal_checkpoints: Final = Table(
    "journal_checkpoints",
    metadata,
    Column("shard_id", Text, ForeignKey("journal_shards.id"), primary_key=True),
    Column("size", BigInteger, primary_key=True, autoincrement=False),
    Column("note", Text, nullable=False),
    Column("time", Double, nullable=False),
)

journal_cursors: Final = Table(
    "journal_cursors",
    metadata,
    Column("sled_id", Text, primary_key=True),
    Column("epoch", Text, primary_key=True),
    Column("sequence", BigInteger, nullable=False),
    Column("time", Double, nullable=False),
)
"""Up to which number a sled's events are told; never deleted, so that none is told twice."""
