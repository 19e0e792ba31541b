"""What an archive says of a version: read, or refused in words."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from agent.snapshots.errors import Malformed
from agent.snapshots.values import Metadata


@pytest.mark.parametrize(
    "created", ["0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00", "yesterday"]
)
def test_a_time_that_is_none_is_refused(created: str) -> None:
    with pytest.raises(Malformed):
        Metadata.parse({"created": created})


def test_a_time_is_the_same_wherever_it_was_written() -> None:
    said = Metadata.parse({"created": "2026-11-22T12:00:00+02:00"})
    assert said.created == datetime(2026, 11, 22, 10, tzinfo=UTC)
    assert said.items()["created"] == "2026-11-22T10:00:00+00:00"
