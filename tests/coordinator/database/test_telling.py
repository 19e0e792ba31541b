"""What is told in one transaction is told in an order, which ids keep."""

from __future__ import annotations

from coordinator.database.telling import new_id


def test_ids_of_one_moment_are_in_the_order_they_were_made() -> None:
    ids = [new_id(1_800_000_000.25) for _ in range(0x10000 + 1)]
    assert ids == sorted(ids)
    assert len(set(ids)) == len(ids)
    assert ids[-1] < new_id(1_800_000_000.250001)
