"""The catalogue of snapshots that sleds hold."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "snapshots",
        sa.Column("ordinal", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("sha256", sa.LargeBinary, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("time_created", sa.Double, nullable=False),
        sa.Column("said", sa.Text, nullable=False),
        sa.CheckConstraint("size_bytes >= 0", name=op.f("ck_snapshots_not_negative")),
        sa.PrimaryKeyConstraint("ordinal", name=op.f("pk_snapshots")),
        sa.UniqueConstraint("name", "version", name=op.f("uq_snapshots_name")),
    )
