"""Accepting configs (G2, B4)."""

from __future__ import annotations

import asyncio

import pytest

from depot.artifact import ArtifactConfig, ArtifactHash
from depot.config.ledger import LEDGER_NAME
from depot.errors import ConfigGeneration, ConfigNotFound, LedgerUnknown, NoConfig, NoDataset
from depot.initialise import init_datasets
from tests.store.builders import ONE, TWO, A, B, Node, config, off_loop, states


async def test_a_new_node_has_no_config(node: Node) -> None:
    async with node.open() as store:
        assert store.status().ledger == "empty"
        assert store.status().generation is None
        with pytest.raises(ConfigNotFound):
            store.config()
        with pytest.raises(NoConfig):
            store.list_artifacts()


async def test_a_config_outlives_a_restart(node: Node) -> None:
    async with node.open() as store:
        await store.put_config(config(3, ONE, TWO))
        digest = store.status().config_digest
    async with node.open() as store:
        assert store.config() == config(3, ONE, TWO)
        assert store.status().config_digest == digest
    assert node.kinds() == ["config_changed"]


async def test_g2_the_same_config_again_changes_nothing(node: Node) -> None:
    async with node.open() as store:
        await store.put_config(config(3, ONE))
        inode = (await off_loop((node.paths[A] / LEDGER_NAME).stat)).st_ino
        await store.put_config(config(3, ONE))
        assert (await off_loop((node.paths[A] / LEDGER_NAME).stat)).st_ino == inode
    assert node.kinds() == ["config_changed"]


@pytest.mark.parametrize("content", [None, b"", b"torn"])
async def test_the_same_config_again_repairs_its_copies(node: Node, content: bytes | None) -> None:
    async with node.open() as store:
        await store.put_config(config(3, ONE))
        if content is None:
            await off_loop((node.paths[B] / LEDGER_NAME).unlink)
        else:
            await node.write_file(B, LEDGER_NAME, content)
        await store.put_config(config(3, ONE))
    assert await node.ledger(A) == await node.ledger(B)


@pytest.mark.parametrize(
    "refused",
    [config(2, ONE), config(2), config(3, TWO), config(3), config(0, ONE)],
    ids=["older", "older, empty", "others", "empty", "oldest"],
)
async def test_g2_an_older_config_or_another_of_the_same_generation_is_refused(
    node: Node, refused: ArtifactConfig
) -> None:
    async with node.open() as store:
        await store.put_config(config(3, ONE))
        with pytest.raises(ConfigGeneration) as error:
            await store.put_config(refused)
        assert (error.value.attempted, error.value.current) == (refused.generation, 3)
        assert store.config() == config(3, ONE)
    assert await node.ledger(A) == await node.ledger(B)
    assert node.kinds() == ["config_changed", "config_refused"]


async def test_g2_of_concurrent_configs_the_highest_is_in_force(node: Node) -> None:
    async with node.open() as store:
        proposals = [config(generation, ONE) for generation in (5, 2, 9, 4, 7)]
        outcomes = await asyncio.gather(
            *(store.put_config(proposal) for proposal in proposals), return_exceptions=True
        )
        assert store.config().generation == 9
    refused = [isinstance(outcome, ConfigGeneration) for outcome in outcomes]
    assert refused == [False, True, False, True, True]
    assert await node.generation(A) == await node.generation(B) == 9


async def test_a_large_config_is_kept(node: Node) -> None:
    hashes = [ArtifactHash(number.to_bytes(32)) for number in range(20_000)]
    async with node.open() as store:
        await store.put_config(ArtifactConfig.make(1, hashes))
    async with node.open() as store:
        assert len(store.config().artifacts) == 20_000


# The very first config (B4)


async def test_a_first_config_is_refused_while_a_dataset_is_missing(node: Node) -> None:
    await node.take_away(B)
    async with node.open() as store:
        assert store.status().ledger == "unknown"
        with pytest.raises(LedgerUnknown, match="init --force"):
            await store.put_config(config(1, ONE))
        await node.bring_back(B)
        await store.check_datasets()
        assert store.status().ledger == "empty"
        await store.put_config(config(1, ONE))
        assert store.config() == config(1, ONE)


async def test_a_first_config_is_refused_while_a_ledger_cannot_be_read(node: Node) -> None:
    await node.write_file(B, LEDGER_NAME, b"torn")
    async with node.open() as store:
        with pytest.raises(LedgerUnknown):
            await store.put_config(config(1, ONE))
    assert await off_loop((node.paths[B] / LEDGER_NAME).read_bytes) == b"torn"


async def test_forcing_lets_a_first_config_in_with_a_dataset_missing(node: Node) -> None:
    await node.take_away(B)
    reports = await off_loop(init_datasets, node.paths, force=True)
    assert [report.created for report in reports] == [False, False]
    assert reports[B].problem is not None
    async with node.open() as store:
        assert store.status().ledger == "empty"
        assert not store.status().generation_certain
        await store.put_config(config(1, ONE))
        await node.bring_back(B)
        await store.check_datasets()
        assert states(store) == ["healthy", "healthy"]
    assert await node.generation(B) == 1


async def test_g1_forcing_never_moves_a_known_generation_back(node: Node) -> None:
    async with node.open() as store:
        await store.put_config(config(5, ONE))
    await node.write_file(A, LEDGER_NAME, b"torn")
    await node.take_away(B)
    await off_loop(init_datasets, node.paths, force=True)
    async with node.open() as store:
        assert store.status().generation == 5  # the witness remembers
        with pytest.raises(ConfigGeneration):
            await store.put_config(config(4, ONE))
        await node.bring_back(B)
        await store.check_datasets()
        assert store.config() == config(5, ONE)


async def test_a_config_after_the_first_needs_only_one_dataset(node: Node) -> None:
    async with node.open() as store:
        await store.put_config(config(1, ONE))
        await node.take_away(B)
        await store.check_datasets()
        await store.put_config(config(2, TWO))
    await node.bring_back(B)
    async with node.open() as store:
        assert store.config() == config(2, TWO)
    assert await node.generation(B) == 2


@pytest.mark.in_threads
async def test_no_config_is_accepted_by_datasets_that_can_only_be_read(node: Node) -> None:
    async with node.open() as store:
        await store.put_config(config(1, ONE))
    for index in (A, B):
        node.disk(index).turn_read_only()
    async with node.open() as store:
        assert states(store) == ["suspect", "suspect"]
        assert store.config() == config(1, ONE)
        with pytest.raises(NoDataset):
            await store.put_config(config(2, ONE))
