"""The names of all configuration keys, taken from the models so that no list can go stale.

A key has one name in the file (`storage.quota`) and one in the environment
(`SLED_AGENT__STORAGE__QUOTA`). `datasets` is one key in the environment: the list of paths.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from pydantic import BaseModel

from agent.config.settings import DatasetTable, Settings

PREFIX: Final = "SLED_AGENT__"


@dataclass(frozen=True, slots=True)
class Key:
    """One key: where it stands in the file, the type that a value has, and its default."""

    place: tuple[str, ...]
    annotation: object
    default: object

    @property
    def name(self) -> str:
        """The name for people: `storage.quota`."""
        return ".".join(self.place)

    @property
    def variable(self) -> str:
        """The environment variable that overrides it."""
        return PREFIX + "__".join(self.place).upper()


def _keys(model: type[BaseModel], above: tuple[str, ...] = ()) -> Iterator[Key]:
    for name, field in model.model_fields.items():
        place = (*above, field.alias or name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _keys(field.annotation, place)
        else:
            yield Key(place, field.annotation, field.default)


KEYS: Final = tuple(_keys(Settings))
_FILE_NAMES: Final = sorted(
    {".".join(key.place[:depth]) for key in KEYS for depth in (1, 2)}
    | {key.name for key in _keys(DatasetTable, ("datasets",))}
)
_VARIABLES: Final = sorted(key.variable for key in KEYS)


def name_of(place: Sequence[str | int]) -> str:
    """Write a place for people: `datasets[1].path`."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)
    return "".join(parts).removeprefix(".")


def unknown_key(place: Sequence[str | int]) -> str:
    """Say that the file has a key that does not exist, and which one may be meant.

    The same word in another table comes first: forgetting a table header is the likeliest slip.
    """
    name = ".".join(part for part in place if isinstance(part, str))
    word = name.rpartition(".")[2]
    elsewhere = [known for known in _FILE_NAMES if known.rpartition(".")[2] == word]
    others = [known for known in _FILE_NAMES if not name.startswith(f"{known}.")]
    return "unknown key" + _meant(elsewhere or difflib.get_close_matches(name, others, 1))


def unknown_variable(variable: str) -> str:
    """Say that an environment variable does not exist, and which one may be meant."""
    return "unknown variable" + _meant(difflib.get_close_matches(variable, _VARIABLES, 1, 0.8))


def _meant(candidates: Sequence[str]) -> str:
    return f"; did you mean {candidates[0]}?" if candidates else ""
