"""Datasets over the wire: listed, released, attached, replaced."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.client import AgentClient
from depot.errors import Refused
from tests.http.sled import Sled, dataset_paths, prepare_datasets, sled_with_store


@pytest.fixture
def paths(tmp_path: Path) -> list[str]:
    prepare_datasets(tmp_path)
    return [str(path) for path in dataset_paths(tmp_path)]


@pytest.fixture
async def sled(tmp_path: Path, paths: list[str]) -> AsyncIterator[Sled]:
    async with sled_with_store(tmp_path) as sled:
        yield sled


@pytest.fixture
async def client(sled: Sled) -> AsyncIterator[AgentClient]:
    async with AgentClient(sled.url) as client:
        yield client


async def states(client: AgentClient) -> list[str]:
    return [dataset.state for dataset in await client.datasets()]


async def test_datasets_are_listed_in_the_order_of_the_configuration(
    client: AgentClient, paths: list[str]
) -> None:
    found = await client.datasets()
    assert [dataset.path for dataset in found] == paths
    assert found == (await client.status()).datasets


async def test_a_dataset_is_released_and_attached(client: AgentClient, paths: list[str]) -> None:
    released = await client.release_dataset(paths[1])
    assert (released.path, released.state, released.mounted) == (paths[1], "released", False)
    assert await states(client) == ["healthy", "released"]
    assert (await client.attach_dataset(f"{paths[1]}/")).state == "healthy"
    assert await states(client) == ["healthy", "healthy"]


async def test_the_last_dataset_takes_a_word_more(client: AgentClient, paths: list[str]) -> None:
    await client.release_dataset(paths[0])
    with pytest.raises(Refused) as refused:
        await client.release_dataset(paths[1])
    assert (refused.value.status, refused.value.remote_code) == (409, "DatasetRefused")
    await client.release_dataset(paths[1], last=True)
    assert await states(client) == ["released", "released"]


async def test_an_empty_directory_takes_a_datasets_place(
    client: AgentClient, paths: list[str]
) -> None:
    before = (await client.datasets())[1].dataset_id
    with pytest.raises(Refused) as refused:
        await client.replace_dataset(paths[1])
    assert refused.value.remote_code == "DatasetRefused"
    await client.release_dataset(paths[1])
    await asyncio.to_thread(shutil.rmtree, paths[1])
    await asyncio.to_thread(Path(paths[1]).mkdir)
    replaced = await client.replace_dataset(paths[1])
    assert replaced.state == "healthy"
    assert replaced.dataset_id not in (None, before)


@pytest.mark.parametrize("verb", ["release", "attach", "replace"])
async def test_refusals_name_no_path_of_the_machine(
    sled: Sled, paths: list[str], verb: str
) -> None:
    await asyncio.to_thread(shutil.rmtree, paths[1])
    reply = await sled.call("POST", f"/datasets/{verb}", {"path": paths[1]})
    again = await sled.call("POST", f"/datasets/{verb}", {"path": "/nowhere"})
    assert reply.status == (200 if verb == "release" else 409)
    assert again.code == "404 NotFound"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"path": "m2/b"},
        {"path": ""},
        {"path": 1},
        {"path": "/b", "force": True},
        [],
    ],
)
async def test_a_body_that_names_no_path_is_refused(sled: Sled, body: object) -> None:
    for verb in ("release", "attach", "replace"):
        reply = await sled.call("POST", f"/datasets/{verb}", body)
        assert reply.code == "400 InvalidRequest"
