"""The state store, and that the checksumming one is the same store."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

from depot.state.checked import ChecksummingStore
from depot.state.tables import PlainStore, StateStore, Table


def checksumming() -> StateStore:
    return ChecksummingStore(PlainStore())


@pytest.fixture(params=[PlainStore, checksumming])
def store(request: pytest.FixtureRequest) -> StateStore:
    make: Callable[[], StateStore] = request.param
    return make()


@pytest.fixture
def ports(store: StateStore) -> Table[str, int]:
    return store.table("ports")


@pytest.fixture
def names(store: StateStore) -> Table[int, str]:
    return store.table("names")


def put(store: StateStore, table: Table[str, int], **rows: int) -> None:
    with store.transaction() as change:
        for key, row in rows.items():
            change.put(table, key, row)


def test_a_transaction_changes_several_tables_at_once(
    store: StateStore, ports: Table[str, int], names: Table[int, str]
) -> None:
    with store.transaction() as change:
        change.put(ports, "http", 80)
        change.put(names, 80, "http")
        assert not ports
        assert not names

    assert dict(ports.items()) == {"http": 80}
    assert dict(names.items()) == {80: "http"}
    assert ports.revision == names.revision == store.snapshot().revision == 1


def test_a_transaction_whose_block_raises_changes_nothing(
    store: StateStore, ports: Table[str, int], names: Table[int, str]
) -> None:
    put(store, ports, http=80)
    before = store.snapshot().revision

    def fail() -> None:
        with store.transaction() as change:
            change.put(names, 443, "https")
            change.replace(ports, {})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()

    assert dict(ports.items()) == {"http": 80}
    assert not names
    assert store.snapshot().revision == before
    put(store, ports, https=443)  # and the next one is not in its way
    assert len(ports) == 2


def test_the_last_change_of_a_row_in_a_transaction_counts(
    store: StateStore, ports: Table[str, int]
) -> None:
    with store.transaction() as change:
        change.replace(ports, {"http": 80, "ssh": 22})
        change.put(ports, "http", 8080)
        change.delete(ports, "ssh")

    assert dict(ports.items()) == {"http": 8080}


def test_a_snapshot_stays_what_it_was(store: StateStore, ports: Table[str, int]) -> None:
    put(store, ports, http=80, ssh=22)
    before = store.snapshot()
    rows = ports.rows

    with store.transaction() as change:
        change.put(ports, "http", 8080)
        change.delete(ports, "ssh")

    assert dict(before.rows(ports)) == dict(rows) == {"http": 80, "ssh": 22}
    assert before.revision == before.revision_of(ports) == 1
    assert ports["http"] == 8080
    assert ports.get("ssh") is None


def test_a_table_reads_like_a_mapping(store: StateStore, ports: Table[str, int]) -> None:
    put(store, ports, http=80, ssh=22)

    assert "http" in ports
    assert "smtp" not in ports
    assert len(ports) == 2
    assert sorted(ports) == ["http", "ssh"]
    assert sorted(ports.values()) == [22, 80]
    assert ports.get("smtp", 25) == 25
    with pytest.raises(KeyError):
        ports["smtp"]


def test_a_name_leads_to_the_same_table(store: StateStore, ports: Table[str, int]) -> None:
    put(store, ports, http=80)
    assert store.table("ports")["http"] == 80


def test_only_the_tables_that_changed_have_a_new_revision(
    store: StateStore, ports: Table[str, int], names: Table[int, str]
) -> None:
    assert ports.revision == 0
    put(store, ports, http=80)
    put(store, ports, http=8080)
    assert (ports.revision, names.revision) == (2, 0)


def test_what_changes_nothing_has_no_revision(store: StateStore, ports: Table[str, int]) -> None:
    with store.transaction() as change:
        change.delete(ports, "http")
    assert store.snapshot().revision == 0


def test_a_second_writer_is_refused(store: StateStore, ports: Table[str, int]) -> None:
    with store.transaction() as change:
        change.put(ports, "http", 80)
        with pytest.raises(RuntimeError, match="one writer"), store.transaction():
            pass
    assert ports["http"] == 80


def test_another_thread_never_sees_half_of_a_transaction(
    store: StateStore, ports: Table[str, int], names: Table[int, str]
) -> None:
    torn: list[tuple[int, str]] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            now = store.snapshot()
            port, name = now.rows(ports).get("port", 0), now.rows(names).get(0, "0")
            if str(port) != name:
                torn.append((port, name))

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(500):
        with store.transaction() as change:
            change.put(ports, "port", number)
            change.put(names, 0, str(number))
    done.set()
    reader.join()
    assert not torn


async def test_a_watch_ends_when_its_table_changes(
    store: StateStore, ports: Table[str, int], names: Table[int, str]
) -> None:
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        watch = group.create_task(store.changed(ports, since=0))
        await asyncio.sleep(0)
        with store.transaction() as change:
            change.put(names, 80, "http")
        await asyncio.sleep(0)
        assert not watch.done(), "another table's change"
        put(store, ports, http=80)

    assert watch.result() == ports.revision == 2


async def test_a_watch_misses_no_change_from_before_it_began(
    store: StateStore, ports: Table[str, int], names: Table[int, str]
) -> None:
    seen = ports.revision
    put(store, ports, http=80)
    async with asyncio.timeout(10):
        assert await store.changed(names, ports, since=seen) == 1


async def test_a_watch_that_is_given_up_leaves_nothing(
    store: StateStore, ports: Table[str, int]
) -> None:
    watch = asyncio.ensure_future(store.changed(ports, since=0))
    await asyncio.sleep(0)
    watch.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watch
    put(store, ports, http=80)
    assert await store.changed(ports, since=0) == 1
