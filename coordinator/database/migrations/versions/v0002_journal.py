"""The journal: what was told, the entries, their trees, and what keeps a sealed shard as it is."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_SEALED = "the shard is sealed"
_REFUSE_IN_SQLITE = """
    CREATE TRIGGER {table}_sealed BEFORE INSERT ON {table}
    WHEN (SELECT state FROM journal_shards WHERE id = NEW.shard_id) <> 'active'
    BEGIN SELECT RAISE(ABORT, '{sealed}'); END
"""
# A check's error: what the database refuses because somebody else was there first is tried again.
_FUNCTION = """
    CREATE FUNCTION journal_sealed() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF (SELECT state FROM journal_shards WHERE id = NEW.shard_id) <> 'active' THEN
            RAISE EXCEPTION '{sealed}' USING ERRCODE = 'check_violation';
        END IF;
        RETURN NEW;
    END $$
"""
_REFUSE = """
    CREATE TRIGGER {table}_sealed BEFORE INSERT ON {table}
    FOR EACH ROW EXECUTE FUNCTION journal_sealed()
"""


def upgrade() -> None:
    """Make the tables and the triggers; the first shard is made by who has a place for its key."""
    _told()
    _shards()
    _entries()
    _trees()
    sqlite = op.get_bind().dialect.name == "sqlite"
    if not sqlite:
        op.execute(_FUNCTION.format(sealed=_SEALED))
    for table in ("journal_entries", "journal_nodes"):
        statement = _REFUSE_IN_SQLITE if sqlite else _REFUSE
        op.execute(statement.format(table=table, sealed=_SEALED))


def _told() -> None:
    op.create_table(
        "journal_told",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("time", sa.Double, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("sled_id", sa.Text),
        sa.Column("release", sa.Text),
        sa.Column("epoch", sa.Text),
        sa.Column("sequence", sa.BigInteger),
        sa.Column("content", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_journal_told")),
        sa.UniqueConstraint("sled_id", "epoch", "sequence", name=op.f("uq_journal_told_sled_id")),
    )
    op.create_table(
        "journal_artifacts",
        sa.Column("sha256", sa.LargeBinary, nullable=False),
        sa.Column("entry_id", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("sha256", "entry_id", name=op.f("pk_journal_artifacts")),
    )
    op.create_table(
        "journal_cursors",
        sa.Column("sled_id", sa.Text, nullable=False),
        sa.Column("epoch", sa.Text, nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("time", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("sled_id", "epoch", name=op.f("pk_journal_cursors")),
    )


def _shards() -> None:
    op.create_table(
        "journal_shards",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("ordinal", sa.BigInteger, nullable=False),
        sa.Column("first_index", sa.BigInteger, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("edge", sa.LargeBinary, nullable=False),
        sa.Column("verifier_key", sa.Text, nullable=False),
        sa.Column("time_created", sa.Double, nullable=False),
        sa.Column("time_sealed", sa.Double),
        sa.Column("time_dropped", sa.Double),
        sa.CheckConstraint(
            "state = 'active' OR state = 'sealed'", name=op.f("ck_journal_shards_state")
        ),
        sa.CheckConstraint("size >= 0", name=op.f("ck_journal_shards_not_negative")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_journal_shards")),
        sa.UniqueConstraint("ordinal", name=op.f("uq_journal_shards_ordinal")),
    )
    op.create_index(
        op.f("ix_journal_shards_active"),
        "journal_shards",
        ["state"],
        unique=True,
        sqlite_where=sa.text("state = 'active'"),
        postgresql_where=sa.text("state = 'active'"),
    )


def _entries() -> None:
    op.create_table(
        "journal_entries",
        sa.Column("shard_id", sa.Text, nullable=False),
        sa.Column("position", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("time", sa.Double, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("sled_id", sa.Text),
        sa.Column("release", sa.Text),
        sa.Column("epoch", sa.Text),
        sa.Column("sequence", sa.BigInteger),
        sa.Column("content", sa.Text, nullable=False),
        sa.ForeignKeyConstraint(
            ["shard_id"], ["journal_shards.id"], name=op.f("fk_journal_entries_shard_id")
        ),
        sa.PrimaryKeyConstraint("shard_id", "position", name=op.f("pk_journal_entries")),
        sa.UniqueConstraint("id", name=op.f("uq_journal_entries_id")),
        sa.UniqueConstraint(
            "sled_id", "epoch", "sequence", name=op.f("uq_journal_entries_sled_id")
        ),
    )
    op.create_index(op.f("ix_journal_entries_time"), "journal_entries", ["time"])
    op.create_index(op.f("ix_journal_entries_release"), "journal_entries", ["release"])


def _trees() -> None:
    op.create_table(
        "journal_nodes",
        sa.Column("shard_id", sa.Text, nullable=False),
        sa.Column("level", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("position", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("hash", sa.LargeBinary, nullable=False),
        sa.ForeignKeyConstraint(
            ["shard_id"], ["journal_shards.id"], name=op.f("fk_journal_nodes_shard_id")
        ),
        sa.PrimaryKeyConstraint("shard_id", "level", "position", name=op.f("pk_journal_nodes")),
    )
    op.create_table(
        "journal_checkpoints",
        sa.Column("shard_id", sa.Text, nullable=False),
        sa.Column("size", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("time", sa.Double, nullable=False),
        sa.ForeignKeyConstraint(
            ["shard_id"], ["journal_shards.id"], name=op.f("fk_journal_checkpoints_shard_id")
        ),
        sa.PrimaryKeyConstraint("shard_id", "size", name=op.f("pk_journal_checkpoints")),
    )
