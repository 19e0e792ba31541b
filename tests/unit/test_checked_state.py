"""A row that is changed in place is found by whoever reads it next."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from depot.artifact import ArtifactConfig, ArtifactHash
from depot.config.ledger import Ledger, Resolved, Standing
from depot.config.pins import PinBook
from depot.mirrors.condition import Condition, MirrorState
from depot.mirrors.inventory import Copy
from depot.state.checked import (
    VARIABLE,
    ChecksummingStore,
    StateCorrupted,
    checksum,
    make_state,
)
from depot.state.tables import PlainStore, StateStore, Table

ONE = ArtifactHash.of(b"one")
TWO = ArtifactHash.of(b"two")


@dataclass(frozen=True, slots=True)
class Crate:
    label: str
    contents: Mapping[str, int]


@dataclass(slots=True)
class Changeable:
    size_bytes: int


@pytest.fixture
def store() -> StateStore:
    return make_state(checksummed=True)


@pytest.fixture
def crates(store: StateStore) -> Table[str, Crate]:
    return store.table("crates")


def stored(store: StateStore, crates: Table[str, Crate]) -> Crate:
    with store.transaction() as change:
        change.put(crates, "a", Crate("apples", {"red": 1}))
    return crates["a"]


def relabel(crate: Crate) -> None:
    object.__setattr__(crate, "label", "pears")


def fill(crate: Crate) -> None:
    assert isinstance(crate.contents, dict)
    crate.contents["green"] = 2


@pytest.mark.parametrize("mutate", [relabel, fill])
@pytest.mark.parametrize(
    "read",
    [
        lambda crates: crates["a"],
        lambda crates: crates.get("a"),
        lambda crates: list(crates.values()),
        lambda crates: dict(crates.items()),
        lambda crates: dict(crates.rows),
    ],
    ids=["index", "get", "values", "items", "rows"],
)
def test_a_row_that_was_changed_in_place_is_never_read_again(
    store: StateStore,
    crates: Table[str, Crate],
    mutate: Callable[[Crate], None],
    read: Callable[[Table[str, Crate]], object],
) -> None:
    crate = stored(store, crates)
    read(crates)
    mutate(crate)
    with pytest.raises(StateCorrupted):
        read(crates)


def test_the_error_names_table_key_both_checksums_and_where_the_row_came_from(
    store: StateStore, crates: Table[str, Crate]
) -> None:
    crate = stored(store, crates)
    before = checksum(crate)
    fill(crate)
    after = checksum(crate)
    assert before != after

    with pytest.raises(StateCorrupted) as caught:
        crates["a"]

    message = str(caught.value)
    line = stored.__code__.co_firstlineno + 2
    assert "table 'crates'" in message
    assert "key a:" in message
    assert before in message
    assert after in message
    assert f"tests/unit/test_checked_state.py:{line} in stored, called from " in message


def test_a_snapshot_is_verified_too(store: StateStore, crates: Table[str, Crate]) -> None:
    crate = stored(store, crates)
    snapshot = store.snapshot()
    with store.transaction() as change:
        change.put(crates, "a", replace(crate, label="pears"))
    assert snapshot.rows(crates)["a"] is crate

    relabel(crate)

    with pytest.raises(StateCorrupted):
        snapshot.rows(crates)["a"]
    assert crates["a"].label == "pears", "the row of now is another one"


def test_rows_that_replace_a_table_are_checksummed(
    store: StateStore, crates: Table[str, Crate]
) -> None:
    crate = Crate("apples", {})
    with store.transaction() as change:
        change.put(crates, "old", Crate("old", {}))
        change.replace(crates, {"a": crate})
    assert list(crates) == ["a"]
    relabel(crate)
    with pytest.raises(StateCorrupted, match="test_rows_that_replace_a_table"):
        crates["a"]


def test_a_row_that_was_put_again_after_a_change_is_trusted(
    store: StateStore, crates: Table[str, Crate]
) -> None:
    crate = stored(store, crates)
    relabel(crate)
    with store.transaction() as change:
        change.put(crates, "a", crate)
    assert crates["a"].label == "pears"


@pytest.mark.parametrize("row", [[1], {1}, bytearray(b"x"), object(), Changeable(1), (1, [2])])
def test_a_row_that_can_change_or_is_not_known_is_refused_and_nothing_is_put(
    store: StateStore, row: object
) -> None:
    rows: Table[str, Any] = store.table("rows")

    def put() -> None:
        with store.transaction() as change:
            change.put(rows, "before", 1)
            change.put(rows, "bad", row)

    with pytest.raises(TypeError, match="may not hold a"):
        put()
    assert not rows


class Colour(Enum):
    RED = 1
    GREEN = 2


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 2),
        (1, True),
        (1, 1.0),
        (1, "1"),
        ("a", b"a"),
        (None, "None"),
        (("ab", "c"), ("a", "bc")),
        ((), frozenset()),
        ((1, (2,)), (1, 2)),
        (Path("/a"), "/a"),
        (Colour.RED, Colour.GREEN),
        (ONE, TWO),
        (frozenset({ONE}), frozenset({TWO})),
        (frozenset({ONE}), frozenset({ONE, TWO})),
        ({"a": 1}, {"a": 2}),
        ({"a": 1}, {"b": 1}),
        (MappingProxyType({"a": (ONE,)}), MappingProxyType({"a": (TWO,)})),
        (Copy(1), Copy(1, damaged=True)),
        (Condition(MirrorState.HEALTHY), Condition(MirrorState.SUSPECT)),
        (ArtifactConfig.make(1, [ONE]), ArtifactConfig.make(2, [ONE])),
        (PinBook(1, {"a": frozenset({ONE})}), PinBook(1, {"a": frozenset()})),
    ],
)
def test_different_contents_have_different_checksums(one: object, other: object) -> None:
    assert checksum(one) == checksum(one)
    assert checksum(one) != checksum(other)


def test_what_a_row_works_out_and_keeps_is_no_change(store: StateStore) -> None:
    ledgers: Table[str, Ledger] = store.table("ledgers")
    with store.transaction() as change:
        change.put(ledgers, "now", Ledger(1, ArtifactConfig.make(1, [ONE])))
    assert ledgers["now"].rank == ledgers["now"].rank


def test_a_large_config_of_which_a_hash_was_exchanged_is_found(store: StateStore) -> None:
    config = ArtifactConfig.make(1, [ONE, TWO])
    ledger = Ledger(1, config)
    resolved: Table[str, Resolved] = store.table("ledger")
    with store.transaction() as change:
        change.put(resolved, "now", Resolved(Standing.CLEAR, ledger, ledger.rank, certain=True))
    other = frozenset({ONE, ArtifactHash(bytes(32))})
    object.__setattr__(config, "artifacts", other)
    with pytest.raises(StateCorrupted):
        resolved["now"]


@pytest.mark.parametrize("name", ["digest", "other"])
def test_nobody_can_alter_a_hash(name: str) -> None:
    with pytest.raises(AttributeError):
        object.__setattr__(ONE, name, bytes(32))


def test_the_environment_has_every_store_checksummed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "1")
    assert isinstance(make_state(), ChecksummingStore)
    monkeypatch.setenv(VARIABLE, "0")
    assert isinstance(make_state(), PlainStore)
    assert isinstance(make_state(checksummed=True), ChecksummingStore)
    monkeypatch.delenv(VARIABLE)
    assert isinstance(make_state(), PlainStore)


def test_this_suite_runs_checksummed() -> None:
    assert isinstance(make_state(), ChecksummingStore)
