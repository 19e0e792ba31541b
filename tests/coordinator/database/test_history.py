from __future__ import annotations

import pytest

from coordinator.database import history
from coordinator.database.database import Database
from coordinator.database.texts import MAX_CHARACTERS
from coordinator.values import MAX_HISTORY, RequestRecord
from depot.artifact import Generation
from tests.coordinator.database.making import sha


def request(time_s: float, sled_id: str = "s1", **more: object) -> RequestRecord:
    return RequestRecord(time_s, sled_id, "list", **more)  # type: ignore[arg-type]


async def test_requests_are_read_as_they_were_recorded_newest_first(database: Database) -> None:
    full = RequestRecord(1.5, "s1", "copy", Generation(4), sha("a"), "s2", "no answer")
    bare = RequestRecord(1.0, "s2", "list")
    await database.run(history.append, [full, bare])
    await database.run(history.append, [full])
    assert await database.run(history.read) == (full, bare, full)


async def test_requests_are_filtered_by_artifact_and_by_sled(database: Database) -> None:
    records = [
        request(1.0, "s1", artifact=sha("a")),
        request(2.0, "s2", artifact=sha("a")),
        request(3.0, "s1", artifact=sha("b")),
        request(4.0, "s1"),
    ]
    await database.run(history.append, records)

    async def times(**by: object) -> list[float]:
        found = await database.run(history.read, **by)  # type: ignore[arg-type]
        return [record.time_s for record in found]

    assert await times(artifact=sha("a")) == [2.0, 1.0]
    assert await times(sled_id="s1") == [4.0, 3.0, 1.0]
    assert await times(sled_id="s1", artifact=sha("a")) == [1.0]
    assert await times(sled_id="s1", limit=2) == [4.0, 3.0]


@pytest.mark.parametrize("batches", [[5000], [4000, 90, 7, 3, 100]])
async def test_the_newest_requests_are_kept_and_no_more(
    database: Database, batches: list[int]
) -> None:
    number = 0
    for size in batches:
        batch = [request(float(number + more)) for more in range(size)]
        number += size
        await database.run(history.append, batch)
    kept = [record.time_s for record in await database.run(history.read, limit=10_000)]
    newest = range(number - 1, number - 1 - MAX_HISTORY, -1)
    assert kept == [float(time) for time in newest]


async def test_nothing_to_record_is_fine(database: Database) -> None:
    await database.run(history.append, [])
    assert await database.run(history.read) == ()


async def test_an_error_that_a_peer_made_up_is_kept_as_far_as_it_can_be(
    database: Database,
) -> None:
    said = "a\0b\udc80" + "c" * (2 * MAX_CHARACTERS)
    await database.run(history.append, [request(1.0, error=said)])
    (record,) = await database.run(history.read)
    assert record.error is not None
    assert record.error.startswith("a\N{REPLACEMENT CHARACTER}b?ccc")
    assert record.error.endswith("c…")
    assert len(record.error) == MAX_CHARACTERS
