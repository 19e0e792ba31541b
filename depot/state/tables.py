"""What a process knows, in one place: tables of immutable rows that change together or not at all.

A row is replaced, never changed: whoever read one may keep it. A transaction puts every row it
names, in any number of tables, or none when its block raises; readers, in whatever thread, see all
of it or nothing of it, because what they read is one reference to persistent maps. One writer: the
event loop, and nothing is awaited inside a transaction.

`depot.state.checked` has the same store with a checksum on every row, and chooses between the two.
"""

from __future__ import annotations

import asyncio
from collections.abc import ItemsView, Iterator, Mapping, ValuesView
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar, overload

from depot.state.persistent import Draft, PersistentMap

K = TypeVar("K")
V = TypeVar("V")
T = TypeVar("T")


class Snapshot(Protocol):
    """Every table as of one moment, whatever is committed later."""

    @property
    def revision(self) -> int:
        """How many transactions had changed something by then."""

    def rows(self, table: Table[K, V]) -> Mapping[K, V]:
        """The rows of a table."""

    def revision_of(self, table: Table[Any, Any]) -> int:
        """The store's revision when the table last changed; 0: never."""


class Transaction(Protocol):
    """Changes that take effect together, when the block ends."""

    def put(self, table: Table[K, V], key: K, row: V) -> None:
        """Insert or replace a row."""

    def delete(self, table: Table[K, Any], key: K) -> None:
        """Remove a row; one that is not there is no change."""

    def replace(self, table: Table[K, V], rows: Mapping[K, V]) -> None:
        """Have a table hold these rows and no others."""


class StateStore(Protocol):
    """Tables, by name."""

    @property
    def checked(self) -> bool:
        """Rows are verified when they are read, whatever that costs."""

    def table(self, name: str) -> Table[Any, Any]:
        """The table of that name, which is empty until something is put; the caller types it."""

    def snapshot(self) -> Snapshot:
        """The state as of now; costs nothing."""

    def transaction(self) -> AbstractContextManager[Transaction]:
        """Commit the block's changes when it ends, or none of them when it raises."""

    async def changed(self, *tables: Table[Any, Any], since: int) -> int:
        """Return the newest revision of these tables once it is above `since`."""


class Table(Mapping[K, V]):
    """A table as of now, and the handle by which transactions name it."""

    __slots__ = ("name", "store")

    def __init__(self, store: StateStore, name: str) -> None:
        self.store = store
        self.name = name

    @property
    def revision(self) -> int:
        """Raised whenever a row changes: what is derived from the rows can be kept until then."""
        return self.store.snapshot().revision_of(self)

    @property
    def rows(self) -> Mapping[K, V]:
        """The rows as of now, for more than one look at the same moment."""
        return self.store.snapshot().rows(self)

    def __getitem__(self, key: K) -> V:
        return self.rows[key]

    @overload
    def get(self, key: K, /) -> V | None: ...
    @overload
    def get(self, key: K, /, default: V | T) -> V | T: ...
    def get(self, key: K, /, default: V | T | None = None) -> V | T | None:
        """Look a row up."""
        return self.store.snapshot().rows(self).get(key, default)

    def __contains__(self, key: object) -> bool:
        return key in self.rows

    def __iter__(self) -> Iterator[K]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def items(self) -> ItemsView[K, V]:
        """Every key with its row, as of now."""
        return self.rows.items()

    def values(self) -> ValuesView[V]:
        """Every row, as of now."""
        return self.rows.values()


@dataclass(frozen=True, slots=True)
class PlainSnapshot:
    """See `Snapshot`; the maps are by table name."""

    revision: int
    contents: Mapping[str, PersistentMap[Any, Any]]
    revisions: Mapping[str, int]

    def rows(self, table: Table[K, V]) -> Mapping[K, V]:  # noqa: D102
        rows: Mapping[K, V] = self.contents.get(table.name, _EMPTY)
        return rows

    def revision_of(self, table: Table[Any, Any]) -> int:  # noqa: D102
        return self.revisions.get(table.name, 0)


_EMPTY: PersistentMap[Any, Any] = PersistentMap.of({})


class PlainTransaction:
    """See `Transaction`."""

    def __init__(self, base: PlainSnapshot) -> None:
        self._base = base
        self._drafts: dict[str, Draft[Any, Any]] = {}

    @property
    def changed(self) -> dict[str, PersistentMap[Any, Any]]:
        """The tables that are to be different, by name; ask once."""
        return {name: draft.finished() for name, draft in self._drafts.items()}

    def put(self, table: Table[K, V], key: K, row: V) -> None:  # noqa: D102
        self._draft(table).insert(key, row)

    def delete(self, table: Table[K, Any], key: K) -> None:  # noqa: D102
        begun = self._drafts.get(table.name)
        if key in (self._rows(table) if begun is None else begun):
            self._draft(table).discard(key)

    def replace(self, table: Table[K, V], rows: Mapping[K, V]) -> None:  # noqa: D102
        self._drafts[table.name] = PersistentMap.of(rows).draft()

    def _draft(self, table: Table[Any, Any]) -> Draft[Any, Any]:
        begun = self._drafts.get(table.name)
        if begun is None:
            begun = self._drafts[table.name] = self._rows(table).draft()
        return begun

    def _rows(self, table: Table[Any, Any]) -> PersistentMap[Any, Any]:
        return self._base.contents.get(table.name, _EMPTY)


class PlainStore:
    """The store of a process in service.

    Attributes:
        latest: the state as of now.
    """

    checked: Final = False

    def __init__(self) -> None:
        self.latest = PlainSnapshot(0, {}, {})
        self._writing = False
        self._waiting: dict[asyncio.Future[None], frozenset[str]] = {}

    def table(self, name: str) -> Table[Any, Any]:
        """See `StateStore`."""
        return _PlainTable(self, name)

    def snapshot(self) -> PlainSnapshot:
        """See `StateStore`."""
        return self.latest

    @contextmanager
    def transaction(self) -> Iterator[PlainTransaction]:
        """See `StateStore`.

        Raises:
            RuntimeError: another transaction is open: in another thread, or across an `await`.
        """
        if self._writing:
            raise RuntimeError("a transaction is open already; state has one writer")
        self._writing = True
        try:
            transaction = PlainTransaction(self.latest)
            yield transaction
            self._commit(transaction.changed)
        finally:
            self._writing = False

    async def changed(self, *tables: Table[Any, Any], since: int) -> int:
        """See `StateStore`."""
        names = frozenset(table.name for table in tables)
        while (newest := max(table.revision for table in tables)) <= since:
            waiting = asyncio.get_running_loop().create_future()
            self._waiting[waiting] = names
            try:
                await waiting
            finally:
                del self._waiting[waiting]
        return newest

    def _commit(self, changed: Mapping[str, PersistentMap[Any, Any]]) -> None:
        if not changed:
            return
        before = self.latest
        revision = before.revision + 1
        self.latest = PlainSnapshot(
            revision,
            {**before.contents, **changed},
            {**before.revisions, **dict.fromkeys(changed, revision)},
        )
        for waiting, names in self._waiting.items():
            if not waiting.done() and not names.isdisjoint(changed):
                waiting.set_result(None)


class _PlainTable(Table[K, V]):
    """A table of a store in service: a row is looked up some fifty times for each put."""

    __slots__ = ()

    store: PlainStore

    @property
    def rows(self) -> Mapping[K, V]:
        """The rows as of now."""
        rows: Mapping[K, V] = self.store.latest.contents.get(self.name, _EMPTY)
        return rows

    def __getitem__(self, key: K) -> V:
        row: V = self.store.latest.contents.get(self.name, _EMPTY)[key]
        return row

    @overload
    def get(self, key: K, /) -> V | None: ...
    @overload
    def get(self, key: K, /, default: V | T) -> V | T: ...
    def get(self, key: K, /, default: V | T | None = None) -> V | T | None:
        """Look a row up."""
        return self.store.latest.contents.get(self.name, _EMPTY).get(key, default)

    def __contains__(self, key: object) -> bool:
        return key in self.store.latest.contents.get(self.name, _EMPTY)
