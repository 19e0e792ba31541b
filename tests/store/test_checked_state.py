"""State of an open store: changed in one step, and found out when changed in place."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from depot.artifact import Generation
from depot.dataset.quarantine_names import QuarantinedFile, Reason
from depot.mirrors.inventory import Copy
from depot.mirrors.mirror import Mirror
from depot.mirrors.records import check_inventory
from depot.state.checked import VARIABLE, ChecksummingStore, StateCorrupted, make_state
from depot.state.tables import PlainStore, StateStore, Table
from depot.store import ArtifactStore
from tests.store.builders import ONE, BytesSource, Node, config, hash_of, off_loop


async def holding(store: ArtifactStore) -> Table[Any, Copy]:
    """Store ONE, and return what is known of the copies on the first dataset."""
    await store.put_config(config(1, ONE))
    async with store.begin_put(hash_of(ONE), Generation(1), len(ONE)) as put:
        await put.receive(BytesSource(ONE))
    return store.state.table("copies on dataset 1")


@contextmanager
def changed(row: object, **values: object) -> Iterator[None]:
    """Have a row say something else for a while; closing the store reads it too."""
    before = {name: getattr(row, name) for name in values}
    try:
        for name, value in values.items():
            object.__setattr__(row, name, value)
        yield
    finally:
        for name, value in before.items():
            object.__setattr__(row, name, value)


def mirror_of(state: StateStore) -> Mirror:
    return Mirror(
        0,
        Path("/nowhere"),
        state=state,
        quota_bytes=1,
        device_timeout_s=1.0,
        on_transition=lambda *_: None,
    )


async def test_a_copy_that_is_changed_in_place_is_caught_at_the_next_read(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "0")
    async with node.open(checksum_state=True) as store:
        copies = await holding(store)
        copy = copies[hash_of(ONE)]
        object.__setattr__(copy, "size_bytes", 1)
        try:
            with pytest.raises(StateCorrupted, match="'copies on dataset 1'") as caught:
                await store.describe(hash_of(ONE))
            assert "writing/landing.py" in str(caught.value), "where it was inserted"
            with pytest.raises(StateCorrupted):
                await store.open_artifact(hash_of(ONE))
        finally:
            object.__setattr__(copy, "size_bytes", len(ONE))  # closing reads it too


async def test_without_checksums_the_same_change_goes_unnoticed(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "0")
    async with node.open() as store:
        copies = await holding(store)
        object.__setattr__(copies[hash_of(ONE)], "size_bytes", 1)
        assert store.list_artifacts().copies == {hash_of(ONE): 2}


@pytest.mark.parametrize("read", [ArtifactStore.status, ArtifactStore.list_artifacts])
async def test_a_copy_that_is_changed_in_place_is_caught_by_who_counts_copies(
    node: Node, read: Callable[[ArtifactStore], object]
) -> None:
    async with node.open(checksum_state=True) as store:
        copy = (await holding(store))[hash_of(ONE)]
        read(store)
        with changed(copy, damaged=True), pytest.raises(StateCorrupted) as caught:
            read(store)
        assert (caught.value.table, caught.value.key) == ("copies on dataset 1", hash_of(ONE))
        read(store)


@pytest.mark.parametrize(
    ("table", "change"),
    [("datasets", {"last_error": "it burns"}), ("space", {"free_bytes": 1})],
    ids=["condition", "space"],
)
@pytest.mark.parametrize("number", [0, 1])
async def test_the_state_of_a_dataset_that_is_changed_in_place_is_caught_by_the_status(
    node: Node, table: str, change: Mapping[str, object], number: int
) -> None:
    async with node.open(checksum_state=True) as store:
        await holding(store)
        row = store.state.table(table)[number]
        store.status()
        with changed(row, **change), pytest.raises(StateCorrupted) as caught:
            store.status()
        assert (caught.value.table, caught.value.key) == (table, number)
        store.status()


async def test_a_condition_that_is_changed_in_place_is_caught_by_the_list(node: Node) -> None:
    async with node.open(checksum_state=True) as store:
        await holding(store)
        with (
            changed(store.state.table("datasets")[0], last_error="it burns"),
            pytest.raises(StateCorrupted, match="table 'datasets', key 0"),
        ):
            store.list_artifacts()


async def test_the_first_state_of_a_dataset_is_verified_too() -> None:
    mirror = mirror_of(make_state(checksummed=True))
    with changed(mirror.condition, released=True), pytest.raises(StateCorrupted, match="datasets"):
        mirror.released  # noqa: B018
    await mirror.close()


@pytest.mark.parametrize("checksummed", [False, True])
async def test_an_inventory_that_is_not_what_its_copies_come_to_is_caught_with_checksums(
    *, checksummed: bool
) -> None:
    mirror = mirror_of(ChecksummingStore(PlainStore()) if checksummed else PlainStore())
    mirror.record(hash_of(ONE), Copy(len(ONE)))
    check_inventory(mirror)
    mirror.inventory.good.clear()
    with pytest.raises(RuntimeError, match=r"dataset 1.*: good$") if checksummed else nullcontext():
        check_inventory(mirror)
    await mirror.close()


@contextmanager
def one_in_quarantine(store: ArtifactStore) -> Iterator[Table[str, QuarantinedFile]]:
    """Have a file of it noted on the first dataset, and return what is known of these."""
    quarantine, mirror = store._parts.quarantine, store._parts.mirrors.all[0]
    quarantine.note(mirror, quarantine.new_name(hash_of(ONE), Reason.MISMATCH), len(ONE))
    store.status()
    yield store.state.table("quarantine of dataset 1")
    store.status()


async def test_a_file_in_quarantine_that_is_changed_in_place_is_caught_by_the_status(
    node: Node,
) -> None:
    async with node.open(checksum_state=True) as store:
        with one_in_quarantine(store) as files:
            (name,) = files
            with changed(files[name], size_bytes=1), pytest.raises(StateCorrupted) as caught:
                store.status()
            assert (caught.value.table, caught.value.key) == (files.name, name)


@pytest.mark.parametrize("checksum_state", [False, True])
async def test_a_shelf_that_is_not_what_its_files_come_to_is_caught_with_checksums(
    node: Node, monkeypatch: pytest.MonkeyPatch, *, checksum_state: bool
) -> None:
    monkeypatch.setenv(VARIABLE, "0")
    refused = pytest.raises(RuntimeError, match=r"quarantine of dataset 1.*: used_bytes$")
    async with node.open(checksum_state=checksum_state) as store:
        with one_in_quarantine(store):
            shelf = store._parts.quarantine._shelves[0]
            shelf.used_bytes += 1
            with refused if checksum_state else nullcontext():
                store.status()
            shelf.used_bytes -= 1


async def test_pins_that_are_handed_out_and_changed_are_caught(node: Node) -> None:
    async with node.open(checksum_state=True) as store:
        await store.put_config(config(1, ONE))
        await store.put_pin("service", [hash_of(ONE)])
        pins = store.pins()
        assert isinstance(pins, dict)
        pins.clear()
        with pytest.raises(StateCorrupted, match="'pins'"):
            store.pins()


async def test_a_put_enters_every_mirror_in_one_step(node: Node) -> None:
    async with node.open() as store:
        one = await holding(store)
        other = store.state.table("copies on dataset 2")
        assert one.revision == other.revision > 0
        assert one[hash_of(ONE)] == other[hash_of(ONE)]


async def test_a_dataset_comes_with_its_copies_and_leaves_with_them(node: Node) -> None:
    async with node.open() as store:
        copies = await holding(store)
        conditions = store.state.table("datasets")
        await off_loop(node.paths[0].rename, node.paths[0].with_name("elsewhere"))
        await store.check_datasets()
        assert not copies
        assert copies.revision == conditions.revision
        assert conditions[0].state == "missing"
