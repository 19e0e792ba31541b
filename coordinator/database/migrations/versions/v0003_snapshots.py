"""Whose turn it is to make a snapshot."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "snapshot_turns",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("coordinator_id", sa.Text),
        sa.Column("until", sa.Double),
        sa.Column("published_at", sa.Double),
        sa.Column("version", sa.Text),
        sa.Column("error", sa.Text),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_snapshot_turns")),
    )
