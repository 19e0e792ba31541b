"""Pins: what local consumers hold, no config may drop."""

from __future__ import annotations

import pytest

from depot.artifact import Generation
from depot.config.ledger import Ledger
from depot.errors import (
    ArtifactInUse,
    InvalidRequest,
    LedgerUnknown,
    NoConfig,
    NotFound,
    NotInConfig,
)
from tests.store.builders import ONE, THREE, TWO, A, B, Node, config, hash_of, off_loop, put

PINS = ".sled-depot/pins.json"


async def test_pins_outlive_a_restart_and_are_listed_in_order(node: Node) -> None:
    async with node.open() as store:
        await store.put_config(config(1, ONE, TWO))
        await store.put_pin("zone", [hash_of(ONE)])
        await store.put_pin("host", [hash_of(TWO), hash_of(ONE)])
    async with node.open() as store:
        assert list(store.pins()) == ["host", "zone"]
        assert store.pins()["host"] == {hash_of(ONE), hash_of(TWO)}


async def test_a_config_that_drops_a_pinned_artifact_is_refused_and_names_it(node: Node) -> None:
    async with node.open() as store:
        await store.put_config(config(1, ONE, TWO))
        await store.put_pin("host", [hash_of(ONE)])
        with pytest.raises(ArtifactInUse) as refused:
            await store.put_config(config(2, TWO))
        assert refused.value.artifacts == (hash_of(ONE),)
        assert store.config() == config(1, ONE, TWO)
        await store.delete_pin("host")
        await store.put_config(config(2, TWO))
    assert "config_refused" in node.kinds()


async def test_a_pin_replaces_the_one_of_the_same_name(node: Node) -> None:
    async with node.open() as store:
        await store.put_config(config(1, ONE, TWO))
        await store.put_pin("host", [hash_of(ONE)])
        await store.put_pin("host", [hash_of(TWO)])
        assert dict(store.pins()) == {"host": frozenset({hash_of(TWO)})}
        await store.put_config(config(2, TWO))


async def test_a_pin_needs_a_config_that_knows_its_artifacts(node: Node) -> None:
    async with node.open() as store:
        with pytest.raises(NoConfig):
            await store.put_pin("host", [hash_of(ONE)])
        await store.put_config(config(1, ONE))
        with pytest.raises(NotInConfig):
            await store.put_pin("host", [hash_of(ONE), hash_of(TWO)])
        for name in ("", ".", "../up", "a/b", "a" * 129, "ä", "-dash"):
            with pytest.raises(InvalidRequest):
                await store.put_pin(name, [hash_of(ONE)])
        with pytest.raises(NotFound):
            await store.delete_pin("host")
        assert dict(store.pins()) == {}


async def test_the_newest_pins_win_when_a_dataset_returns(node: Node) -> None:
    async with node.open() as store:
        await store.put_config(config(1, ONE, TWO))
        await store.put_pin("old", [hash_of(ONE)])
        await node.take_away(B)
        await store.check_datasets()
        await store.put_pin("new", [hash_of(TWO)])
        await store.delete_pin("old")
        await node.bring_back(B)
        await store.check_datasets()
        assert list(store.pins()) == ["new"]
    await node.take_away(A)
    async with node.open() as store:
        assert list(store.pins()) == ["new"]


async def test_torn_pins_give_way_to_the_intact_ones(node: Node) -> None:
    async with node.open() as store:
        await store.put_config(config(1, ONE))
        await store.put_pin("host", [hash_of(ONE)])
    await node.write_file(A, ".sled-depot/pins.json", b"torn")
    async with node.open() as store:
        assert list(store.pins()) == ["host"]
    await node.take_away(B)
    async with node.open() as store:  # it was repaired
        assert list(store.pins()) == ["host"]


async def test_pins_that_cannot_be_read_are_reported(node: Node) -> None:
    async with node.open() as store:
        await store.put_config(config(1, ONE))
        await store.put_pin("host", [hash_of(ONE)])
    for index in (A, B):
        await node.write_file(index, ".sled-depot/pins.json", b"torn")
    async with node.open() as store:
        assert store.config() == config(1, ONE)
        assert sum("pins.json" in warning for warning in store.status().warnings) == 2


async def torn_pins(node: Node) -> None:
    async with node.open() as store:
        await store.put_config(config(1, ONE, TWO))
        await put(store, ONE)
        await store.put_pin("host", [hash_of(ONE)])
    for index in (A, B):
        await node.write_file(index, PINS, b"torn")


async def test_d1_nothing_is_dropped_while_no_pins_can_be_read(node: Node) -> None:
    await torn_pins(node)
    async with node.open(delete_grace_s=0.0) as store:
        with pytest.raises(LedgerUnknown, match="no dataset has pins that can be read"):
            await store.put_config(config(2, TWO))
        with pytest.raises(LedgerUnknown):
            await store.put_pin("host", [hash_of(TWO)])
        with pytest.raises(LedgerUnknown):
            await store.delete_pin("host")
        assert any("nothing may be dropped" in said for said in store.status().warnings)
        await store.put_config(config(2, ONE, TWO, THREE))  # drops nothing
        assert await node.read(A, ONE) == ONE


async def test_d1_nothing_is_deleted_while_no_pins_can_be_read(node: Node) -> None:
    await torn_pins(node)
    for index in (A, B):  # a config that came from elsewhere
        await node.write_ledger(index, Ledger(0, config(2, TWO)))
    async with node.open(delete_grace_s=0.0) as store:
        assert store.config() == config(2, TWO)
        assert await store.reconcile() == 0
        assert await node.names(A) == {str(hash_of(ONE))}


async def test_moving_unreadable_pins_away_lets_things_be_dropped_again(node: Node) -> None:
    await torn_pins(node)
    async with node.open(delete_grace_s=0.0) as store:
        for index in (A, B):
            await off_loop((node.paths[index] / PINS).unlink)
        await store.put_pin("host", [hash_of(TWO)])
        await store.put_config(config(2, TWO))
        assert await store.reconcile() == 1
        assert not any("pins" in said for said in store.status().warnings)


async def test_a_dataset_with_intact_pins_that_returns_makes_them_known(node: Node) -> None:
    async with node.open() as store:
        await store.put_config(config(1, ONE, TWO))
        await store.put_pin("host", [hash_of(ONE)])
    await node.write_file(A, PINS, b"torn")
    await node.take_away(B)
    async with node.open() as store:
        with pytest.raises(LedgerUnknown):
            await store.put_config(config(2, ONE))
        await node.bring_back(B)
        await store.check_datasets()
        assert list(store.pins()) == ["host"]
        with pytest.raises(ArtifactInUse):
            await store.put_config(config(2, TWO))
        await store.put_config(config(2, ONE))


async def test_a_pinned_artifact_is_kept_though_a_newer_config_drops_it(node: Node) -> None:
    # D1: the config came with a returned dataset, so nobody could refuse it.
    async with node.open(delete_grace_s=0.0) as store:
        await store.put_config(config(1, ONE, TWO, THREE))
        for content in (ONE, TWO):
            await put(store, content)
        await node.take_away(B)
        await store.check_datasets()
        await store.put_pin("host", [hash_of(ONE)])
        await node.write_ledger(B, Ledger(0, config(2, TWO, THREE)))
        await node.bring_back(B)
        await store.check_datasets()
        assert store.config().generation == 2
        await store.reconcile()
        assert await node.names(A) == {str(hash_of(ONE)), str(hash_of(TWO))}


async def test_pins_outlive_a_reset(node: Node) -> None:
    async with node.open() as store:
        await store.put_config(config(1, ONE, TWO))
        await store.put_pin("host", [hash_of(ONE)])
        await store.reset(Generation(1))
        with pytest.raises(ArtifactInUse):
            await store.put_config(config(0, TWO))
        await store.put_config(config(0, ONE))
