"""The names of all configuration keys, taken from the models so that no list can go stale.

A key has one name in the file (`storage.quota`) and one in the environment
(`SLED_AGENT__STORAGE__QUOTA`). An array of tables is one key in the environment: `datasets` is the
list of paths. A `Form` is what one program may be told: the agent's is here, others bring theirs.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import NoneType
from typing import Annotated, Final, Generic, TypeVar, get_args, get_origin

from pydantic import BaseModel

from agent.config.settings import Conflict, DatasetTable, Settings, conflicts

PREFIX: Final = "SLED_AGENT__"

S = TypeVar("S", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Key:
    """One key: where it stands in the file, the type that a value has, and its default."""

    place: tuple[str, ...]
    annotation: object
    default: object
    prefix: str = PREFIX

    @property
    def name(self) -> str:
        """The name for people: `storage.quota`."""
        return ".".join(self.place)

    @property
    def variable(self) -> str:
        """The environment variable that overrides it."""
        return self.prefix + "__".join(self.place).upper()


@dataclass(frozen=True)
class Form(Generic[S]):
    """What a program's configuration may say.

    Attributes:
        model: every key, with its type and default.
        conflicts: lists what is wrong between valid keys.
        prefix: of its environment variables.
        arrays: the models of its arrays of tables, by name; in the environment each is the list of
            its tables' `path`.
    """

    model: type[S]
    conflicts: Callable[[S], Iterator[Conflict]]
    prefix: str
    arrays: Mapping[str, type[BaseModel]] = field(default_factory=dict)

    @cached_property
    def keys(self) -> tuple[Key, ...]:
        """Every key, in the order of the models."""
        return tuple(_keys(self.model, self.prefix))

    @cached_property
    def by_variable(self) -> Mapping[str, Key]:
        """Every key, by its environment variable."""
        return {key.variable: key for key in self.keys}

    def unknown_key(self, place: Sequence[str | int]) -> str:
        """Say that the file has a key that does not exist, and which one may be meant.

        The same word in another table comes first: forgetting a table header is the likeliest slip.
        """
        name = ".".join(part for part in place if isinstance(part, str))
        word = name.rpartition(".")[2]
        elsewhere = [known for known in self._names if known.rpartition(".")[2] == word]
        others = [known for known in self._names if not name.startswith(f"{known}.")]
        return "unknown key" + _meant(elsewhere or difflib.get_close_matches(name, others, 1))

    def unknown_variable(self, variable: str) -> str:
        """Say that an environment variable does not exist, and which one may be meant."""
        known = sorted(self.by_variable)
        return "unknown variable" + _meant(difflib.get_close_matches(variable, known, 1, 0.8))

    @cached_property
    def _names(self) -> Sequence[str]:
        within = (
            key.name
            for name, row in self.arrays.items()
            for key in _keys(row, self.prefix, (name,))
        )
        tables = {".".join(key.place[:depth]) for key in self.keys for depth in (1, 2)}
        return sorted(tables | set(within))


def _keys(model: type[BaseModel], prefix: str, above: tuple[str, ...] = ()) -> Iterator[Key]:
    for name, found in model.model_fields.items():
        place = (*above, found.alias or name)
        if isinstance(found.annotation, type) and issubclass(found.annotation, BaseModel):
            yield from _keys(found.annotation, prefix, place)
        else:
            yield Key(place, _type_of_value(found.annotation), found.default, prefix)


def _type_of_value(annotation: object) -> object:
    """The type of what is given: without None, which is nothing, and without its rules."""
    kinds = get_args(annotation)
    if NoneType in kinds:
        [annotation] = (kind for kind in kinds if kind is not NoneType)
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


AGENT: Final = Form(Settings, conflicts, PREFIX, {"datasets": DatasetTable})
KEYS: Final = AGENT.keys


def name_of(place: Sequence[str | int]) -> str:
    """Write a place for people: `datasets[1].path`."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)
    return "".join(parts).removeprefix(".")


def _meant(candidates: Sequence[str]) -> str:
    return f"; did you mean {candidates[0]}?" if candidates else ""
