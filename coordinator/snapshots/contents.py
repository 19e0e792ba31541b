"""What a copy of the fleet's database says of the fleet: read without opening it to work on it.

A dump is read by PostgreSQL's own programs; a SQLite file is read as it is, and nothing is written
beside it. Blocking.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sqlalchemy import URL

from agent.snapshots.errors import Unfit
from coordinator.snapshots import ours, postgres
from coordinator.values import SledPolicy

_VERSIONS: Final = "alembic_version"
_TABLES: Final = ("generation", "sleds", "journal_shards", _VERSIONS)
Row = Mapping[str, str | None]


@dataclass(frozen=True, slots=True)
class KnownSled:
    """A sled in service. `generation` is the one that it last confirmed, as far as is known."""

    id: str
    agent_url: str
    generation: int | None


@dataclass(frozen=True, slots=True)
class Contents:
    """What a database says of the fleet.

    Attributes:
        shards: how many entries each shard of the journal has, by its id.
        schema: the revision of its tables; of a whole database there is one.
    """

    generation: int
    sleds: tuple[KnownSled, ...]
    shards: Mapping[str, int]
    schema: tuple[str, ...]


def of_file(path: Path, *, immutable: bool = True) -> Contents:
    """Read a SQLite file; with `immutable`, one that nobody else has open.

    Raises:
        Unfit: it is not of a coordinator.
    """
    uri = f"{path.absolute().as_uri()}?mode=ro{'&immutable=1' if immutable else ''}"
    try:
        with closing(sqlite3.connect(uri, uri=True)) as connection:
            connection.row_factory = sqlite3.Row
            return _contents(path, lambda table: _select(connection, table))
    except sqlite3.Error as error:
        raise Unfit(f"{path} is no database of a coordinator: {error}") from error


def of_dump(path: Path) -> Contents:
    """Read a dump.

    Raises:
        LibraryMissing: the program is not installed.
        Unfit: it is not of a coordinator.
    """
    tables = [f"--table={table}" for table in _TABLES]
    where = [f"--schema={schema}" for schema in sorted(ours.schemas(ours.listed(path)))]
    text = postgres.output(["pg_restore", "--data-only", *where, *tables, "--file=-", str(path)])
    return _of_text(path, text)


def of_server(url: URL) -> Contents:
    """Read a database of PostgreSQL.

    Raises:
        LibraryMissing: the program is not installed.
        Unfit: it cannot be read, or is not of a coordinator.
    """
    tables = [f"--table={table}" for table in _TABLES]
    command = ["pg_dump", "--data-only", "--no-password", postgres.lock_wait(), *tables]
    text = postgres.output(command, url, limit_s=postgres.ANSWER_S)
    return _of_text(url.database, text)


def _of_text(place: object, text: str) -> Contents:
    tables = dict(copied_tables(text))
    return _contents(place, lambda table: tables.get(table, []))


def _contents(place: object, rows: Callable[[str], Sequence[Row]]) -> Contents:
    generations = [row["value"] for row in rows("generation")]
    if len(generations) != 1 or generations[0] is None:
        raise Unfit(f"{place} is no database of a coordinator: it says no generation")
    sleds = [_sled(row) for row in rows("sleds") if row["policy"] == SledPolicy.IN_SERVICE.value]
    shards = {str(row["id"]): int(row["size"] or 0) for row in rows("journal_shards")}
    in_order = tuple(sorted(sleds, key=lambda sled: sled.id))
    schema = tuple(str(row["version_num"]) for row in rows(_VERSIONS))
    return Contents(int(generations[0]), in_order, shards, schema)


def _sled(row: Row) -> KnownSled:
    generation = row["generation"]
    return KnownSled(
        str(row["id"]), str(row["agent_url"]), None if generation is None else int(generation)
    )


def _select(connection: sqlite3.Connection, table: str) -> list[Row]:
    assert table in _TABLES
    return [
        {key: None if row[key] is None else str(row[key]) for key in row.keys()}  # noqa: SIM118
        for row in connection.execute(f"SELECT * FROM {table}")
    ]


def copied_tables(text: str) -> Iterator[tuple[str, list[Row]]]:
    """Read the `COPY` statements of a dump in text: each table, and its rows."""
    # Not splitlines: other characters that it splits at may stand in a value.
    lines = iter(text.split("\n"))
    for line in lines:
        if not (line.startswith("COPY ") and line.endswith(" FROM stdin;")):
            continue
        table, _, columns = line.removeprefix("COPY ").partition(" (")
        names = [name.strip(' "') for name in columns.partition(")")[0].split(",")]
        rows: list[Row] = []
        for values in lines:
            if values == "\\.":
                break
            rows.append(dict(zip(names, map(_value, values.split("\t")), strict=True)))
        yield table.rpartition(".")[2].strip('"'), rows


def _value(text: str) -> str | None:
    # Of ids, addresses and numbers only: nothing else in them is ever escaped.
    return None if text == "\\N" else text.replace("\\\\", "\\")
