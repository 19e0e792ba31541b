"""The state store with a checksum on every row, to find whoever changes a row that was read.

Immutable by declaration is not immutable: `object.__setattr__`, or a dict inside a row, goes
unnoticed until something reads nonsense elsewhere. Here each row is checksummed when it is put and
again whenever it is read, and a difference names the row and where it was put. A read costs many
times as much, so this is for tests and for hunting a bug, never for service.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from functools import cache
from hashlib import blake2b
from pathlib import Path, PurePath
from typing import Any, Final, TypeVar

from depot.artifact import ArtifactHash
from depot.state.tables import PlainStore, Snapshot, StateStore, Table, Transaction

K = TypeVar("K")
V = TypeVar("V")

VARIABLE: Final = "DEPOT_CHECKSUM_STATE"
"""Environment variable: `1` has every state store of the process checksummed."""
_SCALARS: Final = (type(None), int, float, str, bytes, Enum, PurePath)
_PACKAGE: Final = Path(__file__).parent.parent


def make_state(*, checksummed: bool = False) -> StateStore:
    """Make a state store, checksummed if asked to here or by the environment."""
    plain = PlainStore()
    wanted = checksummed or os.environ.get(VARIABLE) == "1"
    return ChecksummingStore(plain) if wanted else plain


class StateCorrupted(RuntimeError):
    """A row is not what it was when it was put: someone changed it instead of putting another.

    A bug of ours, never an outcome: no DepotError, so that nothing takes it for a refusal.
    """

    def __init__(self, table: str, key: object, expected: Checksum, found: str) -> None:
        super().__init__(
            f"state table {table!r}, key {key}: the row inserted at {expected.inserted_at} had "
            f"checksum {expected.value} and now has {found}: it was changed in place"
        )
        self.table = table
        self.key = key
        self.expected = expected
        self.found = found


@dataclass(frozen=True, slots=True)
class Checksum:
    """What a row's contents came to when it was put, and where that was."""

    value: str
    inserted_at: str


class ChecksummingStore:
    """A store in front of another, where each table's checksums are a table beside it."""

    checked: Final = True

    def __init__(self, inner: PlainStore) -> None:
        self._inner = inner

    def table(self, name: str) -> Table[Any, Any]:
        """See `StateStore`."""
        return Table(self, name)

    def snapshot(self) -> CheckedSnapshot:
        """See `StateStore`."""
        return CheckedSnapshot(self._inner.snapshot())

    @contextmanager
    def transaction(self) -> Iterator[CheckedTransaction]:
        """See `StateStore`.

        Raises:
            TypeError: a row that is put holds something mutable, or something unknown.
        """
        with self._inner.transaction() as transaction:
            yield CheckedTransaction(transaction)

    async def changed(self, *tables: Table[Any, Any], since: int) -> int:
        """See `StateStore`."""
        return await self._inner.changed(*tables, since=since)


@dataclass(frozen=True, slots=True)
class CheckedSnapshot:
    """See `depot.state.tables.Snapshot`."""

    inner: Snapshot

    @property
    def revision(self) -> int:  # noqa: D102
        return self.inner.revision

    def rows(self, table: Table[K, V]) -> Mapping[K, V]:  # noqa: D102
        return CheckedRows(
            table.name, self.inner.rows(table), self.inner.rows(_checksums_of(table))
        )

    def revision_of(self, table: Table[Any, Any]) -> int:  # noqa: D102
        return self.inner.revision_of(table)


class CheckedRows(Mapping[K, V]):
    """A table's rows, each verified whenever it is taken out."""

    def __init__(self, name: str, rows: Mapping[K, V], checksums: Mapping[K, Checksum]) -> None:
        self._name = name
        self._rows = rows
        self._checksums = checksums

    def __getitem__(self, key: K) -> V:
        row, expected = self._rows[key], self._checksums[key]
        found = checksum(row)
        if found != expected.value:
            raise StateCorrupted(self._name, key, expected, found)
        return row

    def __contains__(self, key: object) -> bool:
        return key in self._rows

    def __iter__(self) -> Iterator[K]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)


class CheckedTransaction:
    """See `depot.state.tables.Transaction`."""

    def __init__(self, inner: Transaction) -> None:
        self._inner = inner

    def put(self, table: Table[K, V], key: K, row: V) -> None:  # noqa: D102
        self._inner.put(table, key, row)
        self._inner.put(_checksums_of(table), key, Checksum(checksum(row), _caller()))

    def delete(self, table: Table[K, Any], key: K) -> None:  # noqa: D102
        self._inner.delete(table, key)
        self._inner.delete(_checksums_of(table), key)

    def replace(self, table: Table[K, V], rows: Mapping[K, V]) -> None:  # noqa: D102
        place = _caller()
        checksums = {key: Checksum(checksum(row), place) for key, row in rows.items()}
        self._inner.replace(table, rows)
        self._inner.replace(_checksums_of(table), checksums)


def checksum(row: object) -> str:
    """Reduce everything a row holds now to 16 hex characters.

    Two equal sets or mappings may come to different ones: what counts is that the same object does
    as long as nobody changes it, which saves sorting a config of 200,000 artifacts on every read.

    Raises:
        TypeError: it holds something mutable, or something that is not known here.
    """
    found = blake2b(digest_size=8)
    _feed(found.update, row)
    return found.hexdigest()


def _feed(update: Callable[[bytes], None], value: object) -> None:
    kind: type = type(value)
    if isinstance(value, ArtifactHash):
        update(b"#" + value)
    elif isinstance(value, _SCALARS):
        update(f"{kind.__qualname__} {value!r};".encode())
    elif isinstance(value, (tuple, frozenset)):
        update(f"{kind.__qualname__} {len(value)}:".encode())
        _feed_all(update, value)
    elif names := _frozen_fields(kind):
        update(f"{kind.__qualname__}:".encode())
        for name in names:
            _feed(update, getattr(value, name))
    elif isinstance(value, Mapping):
        # A dict is let through because a frozen row may own one; that it stays so is checked here.
        update(f"mapping {len(value)}:".encode())
        for key, item in value.items():
            _feed(update, key)
            _feed(update, item)
    else:
        raise TypeError(f"a row of the state may not hold a {kind.__qualname__}: {value!r:.200}")


def _feed_all(
    update: Callable[[bytes], None], values: tuple[object, ...] | frozenset[object]
) -> None:
    # A config's artifacts: at once, because one by one they take ten times as long.
    if set(map(type, values)) == {ArtifactHash}:
        update(b"".join(values))  # type: ignore[arg-type]  # as was just asked
        return
    for value in values:
        _feed(update, value)


@cache
def _frozen_fields(kind: type) -> tuple[str, ...]:
    """The fields of a frozen dataclass; none for anything else, a dataclass that can change too."""
    if not is_dataclass(kind) or kind.__hash__ is None:
        return ()
    return tuple(field.name for field in fields(kind))


def _checksums_of(table: Table[K, Any]) -> Table[K, Checksum]:
    return Table(table.store, f"checksums of {table.name}")


def _caller() -> str:
    """Where the row comes from: the nearest two calls that are not the store's own."""
    frame = inspect.currentframe()
    places: list[str] = []
    while frame is not None and len(places) < 2:
        code = frame.f_code
        if code.co_filename != __file__:
            places.append(f"{_shown(code.co_filename)}:{frame.f_lineno} in {code.co_qualname}")
        frame = frame.f_back
    return ", called from ".join(places)


@cache
def _shown(filename: str) -> str:
    path = Path(filename)
    return str(path.relative_to(_PACKAGE) if path.is_relative_to(_PACKAGE) else path)
