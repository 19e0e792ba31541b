"""The quarantine over HTTP, on a real store whose files were hurt."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from depot.artifact import ArtifactHash
from tests.http.sled import Sled, dataset_paths, prepare_datasets, sled_with_store
from tests.store.damage import flip, hurt_file, truncate

CONTENT = b"an artifact that rots" * 9000
NAME = str(ArtifactHash.of(CONTENT))


@asynccontextmanager
async def stocked(root: Path) -> AsyncIterator[Sled]:
    """A sled that holds one artifact on both datasets."""
    await asyncio.to_thread(prepare_datasets, root)
    async with sled_with_store(root) as sled:
        config = {"generation": 1, "artifacts": [NAME]}
        assert (await sled.call("PUT", "/artifacts-config", config)).status == 204
        assert (await put(sled)).status == 200
        yield sled


async def put(sled: Sled, content: bytes = CONTENT) -> Any:
    return await sled.call("PUT", f"/artifacts/{NAME}?generation=1", data=content)


async def rot(sled: Sled, root: Path, *indexes: int) -> None:
    """Damage copies, and have them looked at by a put that is refused for other reasons."""
    for index in indexes:
        await asyncio.to_thread(hurt_file, dataset_paths(root)[index] / NAME, flip(index))
    assert (await put(sled, b"x")).code.startswith(("400", "200"))


async def quarantined(sled: Sled) -> list[dict[str, Any]]:
    reply = await sled.call("GET", "/quarantine")
    assert reply.status == 200
    found: list[dict[str, Any]] = reply.body["quarantined"]
    return found


async def test_an_empty_quarantine_is_an_empty_list(tmp_path: Path) -> None:
    async with stocked(tmp_path) as sled:
        assert await quarantined(sled) == []


async def counted(sled: Sled) -> Any:
    return (await sled.call("GET", "/artifacts")).body["list"]


@pytest.mark.parametrize("size_bytes", [0, 1, len(CONTENT) - 1])
async def test_b6_a_file_that_lost_its_bytes_is_not_counted_as_a_copy(
    tmp_path: Path, size_bytes: int
) -> None:
    async with stocked(tmp_path) as sled:
        assert await counted(sled) == {NAME: 2}
    file = dataset_paths(tmp_path)[0] / NAME
    await asyncio.to_thread(hurt_file, file, truncate(size_bytes))
    async with sled_with_store(tmp_path) as sled:
        assert await counted(sled) == {NAME: 1}


async def test_b6_what_was_set_aside_is_not_counted_as_a_copy(tmp_path: Path) -> None:
    async with stocked(tmp_path) as sled:
        await rot(sled, tmp_path, 1)
        assert len(await quarantined(sled)) == 1
        assert await counted(sled) == {NAME: 1}
        await rot(sled, tmp_path, 0)
        assert await counted(sled) == {}


async def test_what_was_set_aside_is_listed_with_reason_time_and_path(tmp_path: Path) -> None:
    async with stocked(tmp_path) as sled:
        await rot(sled, tmp_path, 1)
        (found,) = await quarantined(sled)
        assert found["sha256"] == NAME
        assert (found["reason"], found["size_bytes"]) == ("mismatch", len(CONTENT))
        assert found["dataset"] == str(dataset_paths(tmp_path)[1])
        assert found["time"].endswith(("Z", "+00:00"))
        assert await asyncio.to_thread(Path(found["path"]).exists)
        assert found["last_copy"] is False
        detail = (await sled.call("GET", f"/artifacts/{NAME}")).body["copies"]
        assert [copy["damaged"] for copy in detail] == [False, True]
        assert [copy["quarantined"] for copy in detail] == [[], [found["id"]]]
        status = (await sled.call("GET", "/status")).body
        assert [each["quarantined"] for each in status["datasets"]] == [0, 1]
        assert [each["quarantined_bytes"] for each in status["datasets"]] == [0, len(CONTENT)]
        assert status["healing"]["todo"] == 1
        figures = (await sled.call("GET", "/metrics")).content.decode()
        assert "sled_depot_heal_todo_artifacts 1.0" in figures
        assert "sled_depot_heal_seconds_count" in figures


async def test_b1_wrong_bytes_are_a_conflict_and_no_path_is_told(tmp_path: Path) -> None:
    async with stocked(tmp_path) as sled:
        await rot(sled, tmp_path, 0, 1)
        for found in await quarantined(sled):
            reply = await sled.call("POST", f"/quarantine/{found['id']}/restore")
            assert reply.code == "409 KeptInQuarantine"
            assert str(tmp_path) not in reply.body["message"]
        assert len(await quarantined(sled)) == 2


async def test_right_bytes_get_their_name_back(tmp_path: Path) -> None:
    async with stocked(tmp_path) as sled:
        await rot(sled, tmp_path, 0, 1)
        for found in await quarantined(sled):
            index = [str(path) for path in dataset_paths(tmp_path)].index(found["dataset"])
            await asyncio.to_thread(hurt_file, Path(found["path"]), flip(index))
            reply = await sled.call("POST", f"/quarantine/{found['id']}/restore")
            assert reply.status == 204
        assert await quarantined(sled) == []
        assert (await sled.call("GET", "/artifacts")).body["list"] == {NAME: 2}


async def test_the_last_copy_goes_only_by_force(tmp_path: Path) -> None:
    async with stocked(tmp_path) as sled:
        await rot(sled, tmp_path, 0, 1)
        for found in await quarantined(sled):
            path = f"/quarantine/{found['id']}"
            assert found["last_copy"] is True
            assert (await sled.call("DELETE", path)).code == "409 KeptInQuarantine"
            refused = await sled.call("DELETE", f"{path}?force=perhaps")
            assert refused.code == "400 InvalidRequest"
            assert (await sled.call("DELETE", f"{path}?force=true")).status == 204
            assert (await sled.call("DELETE", f"{path}?force=true")).code == "404 NotFound"
        assert await quarantined(sled) == []


async def test_s4_an_id_is_never_a_path(tmp_path: Path) -> None:
    async with stocked(tmp_path) as sled:
        for id_ in ("..%2Fmarker.json", "%2e%2e", f"{NAME}", "marker.json.1"):
            reply = await sled.call("DELETE", f"/quarantine/{id_}?force=true")
            assert reply.status == 404, id_
        marker = dataset_paths(tmp_path)[0] / ".sled-depot/marker.json"
        assert await asyncio.to_thread(marker.exists)
