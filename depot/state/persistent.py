"""A mapping that is replaced, never changed: what has it keeps it, whatever others make of it.

The rows lie in small dicts, told apart by the hash of the key. A changed mapping shares all of them
with the one before but the one it changes, so a change costs the same however many rows there are,
and looking up and going through them costs what it costs a dict.
"""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, Mapping, ValuesView
from itertools import chain
from typing import Any, Final, Generic, TypeVar, overload

K = TypeVar("K")
V = TypeVar("V")
T = TypeVar("T")

_PARTS: Final = 1024
_WHOLE: Final = 256
"""Up to so many rows are kept in one dict: to copy it costs less than to divide it."""


class PersistentMap(Mapping[K, V]):
    """See the module; make one with `of`."""

    __slots__ = ("_count", "_mask", "_parts")

    def __init__(self, parts: list[dict[K, V]], count: int) -> None:
        self._parts = parts
        self._mask = len(parts) - 1
        self._count = count

    @classmethod
    def of(cls, rows: Mapping[K, V]) -> PersistentMap[K, V]:
        """Hold these rows; costs nothing when they are in such a mapping already."""
        if isinstance(rows, PersistentMap):
            return rows
        if len(rows) <= _WHOLE:
            return cls([dict(rows)], len(rows))
        parts: list[dict[K, V]] = [{} for _ in range(_PARTS)]
        mask = _PARTS - 1
        for key, row in rows.items():
            parts[hash(key) & mask][key] = row
        return cls(parts, len(rows))

    def draft(self) -> Draft[K, V]:
        """Begin to change many rows at once."""
        return Draft(self._parts, self._count)

    def __getitem__(self, key: K) -> V:
        return self._parts[hash(key) & self._mask][key]

    @overload
    def get(self, key: K, /) -> V | None: ...
    @overload
    def get(self, key: K, /, default: V | T) -> V | T: ...
    def get(self, key: K, /, default: V | T | None = None) -> V | T | None:
        """Look a row up."""
        return self._parts[hash(key) & self._mask].get(key, default)

    def __contains__(self, key: object) -> bool:
        parts: list[dict[Any, V]] = self._parts
        return key in parts[hash(key) & self._mask]

    def __iter__(self) -> Iterator[K]:
        return chain.from_iterable(self._parts)

    def __len__(self) -> int:
        return self._count

    def items(self) -> ItemsView[K, V]:
        """Every key with its row."""
        return _Items(self, self._parts)

    def values(self) -> ValuesView[V]:
        """Every row."""
        return _Values(self, self._parts)


class Draft(Generic[K, V]):
    """What a mapping is to become: each part of it is copied once, however many rows change."""

    __slots__ = ("_count", "_mask", "_ours", "_parts")

    def __init__(self, parts: list[dict[K, V]], count: int) -> None:
        self._parts = parts.copy()
        self._mask = len(parts) - 1
        self._ours: set[int] = set()
        self._count = count

    def insert(self, key: K, row: V) -> None:
        """Have one row more, or another one."""
        part = self._part(key)
        self._count -= len(part)
        part[key] = row
        self._count += len(part)

    def discard(self, key: K) -> None:
        """Have a row no longer that is there."""
        del self._part(key)[key]
        self._count -= 1

    def __contains__(self, key: K) -> bool:
        return key in self._parts[hash(key) & self._mask]

    def finished(self) -> PersistentMap[K, V]:
        """The mapping; the draft is of no further use."""
        if self._count > _WHOLE and not self._mask:
            return PersistentMap.of(self._parts[0])
        return PersistentMap(self._parts, self._count)

    def _part(self, key: K) -> dict[K, V]:
        place = hash(key) & self._mask
        if place not in self._ours:
            self._ours.add(place)
            self._parts[place] = self._parts[place].copy()
        return self._parts[place]


class _Items(ItemsView[K, V]):
    __slots__ = ("_parts",)

    def __init__(self, rows: Mapping[K, V], parts: list[dict[K, V]]) -> None:
        super().__init__(rows)
        self._parts = parts

    def __iter__(self) -> Iterator[tuple[K, V]]:
        return chain.from_iterable(part.items() for part in self._parts)


class _Values(ValuesView[V]):
    __slots__ = ("_parts",)

    def __init__(self, rows: Mapping[Any, V], parts: list[dict[Any, V]]) -> None:
        super().__init__(rows)
        self._parts = parts

    def __iter__(self) -> Iterator[V]:
        return chain.from_iterable(part.values() for part in self._parts)
