"""The first schema: sleds, releases, trust roots, the generation, and what was done."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make every table, and the one row of the generation."""
    generation = op.create_table(
        "generation",
        sa.Column("id", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("value", sa.BigInteger, nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_generation_single_row")),
        sa.CheckConstraint("value >= 0", name=op.f("ck_generation_not_negative")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_generation")),
    )
    op.bulk_insert(generation, [{"id": 1, "value": 1}])
    _sleds()
    _releases()
    _records()


def _sleds() -> None:
    op.create_table(
        "sleds",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("agent_url", sa.Text, nullable=False),
        sa.Column("depot_url", sa.Text, nullable=False),
        sa.Column("policy", sa.Text, nullable=False),
        sa.Column("state", sa.Text),
        sa.Column("last_error", sa.Text),
        sa.Column("last_seen_at", sa.Double),
        sa.Column("generation", sa.BigInteger),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sleds")),
    )
    op.create_table(
        "sled_pins",
        sa.Column("sled_id", sa.Text, nullable=False),
        sa.Column("sha256", sa.LargeBinary, nullable=False),
        sa.ForeignKeyConstraint(["sled_id"], ["sleds.id"], name=op.f("fk_sled_pins_sled_id")),
        sa.PrimaryKeyConstraint("sled_id", "sha256", name=op.f("pk_sled_pins")),
    )


def _releases() -> None:
    op.create_table(
        "releases",
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("sha256", sa.LargeBinary, nullable=False),
        sa.Column("file_name", sa.Text, nullable=False),
        sa.Column("time_created", sa.Double, nullable=False),
        sa.Column("allowed_expired", sa.Boolean, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("generation", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("version", name=op.f("pk_releases")),
    )
    op.create_table(
        "artifacts",
        sa.Column("sha256", sa.LargeBinary, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.CheckConstraint("size_bytes >= 0", name=op.f("ck_artifacts_not_negative")),
        sa.PrimaryKeyConstraint("sha256", name=op.f("pk_artifacts")),
    )
    op.create_table(
        "release_artifacts",
        sa.Column("release_version", sa.Text, nullable=False),
        sa.Column("position", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("qualifier", sa.Text, nullable=False),
        sa.Column("name_sha256", sa.LargeBinary, nullable=False),
        sa.Column("sha256", sa.LargeBinary, nullable=False),
        sa.ForeignKeyConstraint(
            ["release_version"],
            ["releases.version"],
            name=op.f("fk_release_artifacts_release_version"),
        ),
        sa.ForeignKeyConstraint(
            ["sha256"], ["artifacts.sha256"], name=op.f("fk_release_artifacts_sha256")
        ),
        sa.PrimaryKeyConstraint("release_version", "position", name=op.f("pk_release_artifacts")),
        sa.UniqueConstraint(
            "release_version",
            "name_sha256",
            name=op.f("uq_release_artifacts_release_version"),
        ),
    )
    op.create_index(op.f("ix_release_artifacts_name_sha256"), "release_artifacts", ["name_sha256"])
    op.create_index(op.f("ix_release_artifacts_sha256"), "release_artifacts", ["sha256"])
    op.create_table(
        "target_releases",
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("ordinal", sa.BigInteger, nullable=False),
        sa.Column("time_set", sa.Double, nullable=False),
        sa.ForeignKeyConstraint(
            ["version"], ["releases.version"], name=op.f("fk_target_releases_version")
        ),
        sa.PrimaryKeyConstraint("version", name=op.f("pk_target_releases")),
        sa.UniqueConstraint("ordinal", name=op.f("uq_target_releases_ordinal")),
    )


def _records() -> None:
    op.create_table(
        "trust_roots",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("content", sa.LargeBinary, nullable=False),
        sa.Column("time_added", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_trust_roots")),
    )
    op.create_table(
        "coordinators",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("first_seen_at", sa.Double, nullable=False),
        sa.Column("last_seen_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_coordinators")),
    )
    op.create_table(
        "staged_artifacts",
        sa.Column("coordinator_id", sa.Text, nullable=False),
        sa.Column("sha256", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("coordinator_id", "sha256", name=op.f("pk_staged_artifacts")),
    )
    op.create_table(
        "requests",
        sa.Column("sequence", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("time", sa.Double, nullable=False),
        sa.Column("sled_id", sa.Text, nullable=False),
        sa.Column("operation", sa.Text, nullable=False),
        sa.Column("generation", sa.BigInteger),
        sa.Column("artifact", sa.LargeBinary),
        sa.Column("source", sa.Text),
        sa.Column("error", sa.Text),
        sa.PrimaryKeyConstraint("sequence", name=op.f("pk_requests")),
    )
    op.create_table(
        "counters",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("value", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_counters")),
    )
