"""Rows as a table on the terminal, as JSON, and in a document, with a picture."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tests.benchmarks import plot, profile
from tests.benchmarks.measure import Row, Side, Spread
from tests.benchmarks.profile import Profile

HEADINGS: Final = (
    "work",
    "here",
    "against",
    "there",
    "ratio",
    "target",
    "verdict",
    "CPU here, there",
    "peak MiB here, there",
)
BEGIN: Final = "<!-- written by `make bench`: begin -->"
END: Final = "<!-- written by `make bench`: end -->"
PROFILES: Final = "<!-- written by `make bench ARGS=--profile`: {} -->"
_STYLES: Final = {"met": "green", "missed": "red"}
_DIGITS: Final = 4


def print_table(console: Console, facts: Mapping[str, object], rows: Sequence[Row]) -> None:
    """The whole result for a person; medians, with the least and the most in brackets."""
    table = Table(*HEADINGS)
    for row in rows:
        table.add_row(*map(escape, _cells(row)), style=_STYLES.get(row.verdict, ""))
    console.print(facts_line(facts))
    console.print(table)
    for note in notes(rows):
        console.print(note)


def write_json(path: Path, facts: Mapping[str, object], rows: Sequence[Row]) -> None:
    """Every number of every run, one row a line."""
    lines = [json.dumps(_plain(asdict(row) | {"verdict": row.verdict})) for row in rows]
    body = ",\n    ".join(lines)
    path.write_text(f'{{\n  "run": {json.dumps(facts)},\n  "rows": [\n    {body}\n  ]\n}}\n')


def write_into(document: Path, facts: Mapping[str, object], rows: Sequence[Row]) -> None:
    """Replace what stands between the two marks; the rest was written by people.

    The picture and all numbers go beside the document, under its name.
    """
    before, rest = document.read_text().split(BEGIN)
    _, after = rest.split(END)
    picture, numbers = document.with_suffix(".svg"), document.with_suffix(".json")
    picture.write_text(plot.svg(rows))
    write_json(numbers, facts, rows)
    shown = f"![The ratios]({picture.name})"
    linked = f"Every number of every run: [{numbers.name}]({numbers.name})."
    written = "\n\n".join((BEGIN, facts_line(facts), _table(rows), shown, linked, END))
    document.write_text(f"{before}{written}{after}")


def print_profiles(console: Console, found: Sequence[Profile]) -> None:
    """Where the processor time went, for a person."""
    table = Table(*profile.HEADINGS)
    for each in found:
        table.add_row(*map(escape, each.cells()))
    console.print(table)


def write_profiles_into(
    document: Path, facts: Mapping[str, object], found: Sequence[Profile]
) -> None:
    """Replace what stands between the two marks of the profiles."""
    begin, end = (PROFILES.format(mark) for mark in ("begin", "end"))
    before, rest = document.read_text().split(begin)
    _, after = rest.split(end)
    table = _markdown(profile.HEADINGS, [each.cells() for each in found])
    written = "\n\n".join((begin, facts_line(facts), table, end))
    document.write_text(f"{before}{written}{after}")


def facts_line(facts: Mapping[str, object]) -> str:
    return ", ".join(f"{name.replace('_', ' ')}: {value}" for name, value in facts.items())


def short(row: Row) -> str:
    """What came of a row, in a few characters: its ratio, or its value."""
    if row.ratio is not None:
        return _spread(row.ratio)
    return _value(row.here.spread, row.unit.name) or row.note


def notes(rows: Sequence[Row]) -> list[str]:
    return [f"{row.work}: {row.note}" for row in rows if row.note]


def _table(rows: Sequence[Row]) -> str:
    remarks = [f"- {note}" for note in notes(rows)]
    return "\n".join([_markdown(HEADINGS, map(_cells, rows)), *([""] if remarks else []), *remarks])


def _markdown(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(headings) + " |", "|---" * len(headings) + "|"]
    cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in cells])


def _cells(row: Row) -> tuple[str, ...]:
    sides = (row.here, row.there)
    return (
        row.work,
        _value(row.here.spread, row.unit.name),
        row.there.name,
        _value(row.there.spread, row.unit.name),
        "" if row.ratio is None else _spread(row.ratio),
        "" if row.target is None else str(row.target),
        row.verdict,
        _both([side.cpu for side in sides], row.unit.cost),
        ", ".join(_peak(side) for side in sides if side.memory),
    )


def _value(value: Spread | None, unit: str) -> str:
    return f"{_spread(value)} {unit}" if value else ""


def _spread(value: Spread) -> str:
    median, least, most = map(number, (value.median, value.least, value.most))
    return median if least == most else f"{median} ({least}-{most})"


def _both(costs: Sequence[float | None], unit: str) -> str:
    known = [number(cost) for cost in costs if cost is not None]
    return f"{', '.join(known)} {unit}" if known else ""


def _peak(side: Side) -> str:
    assert side.memory is not None
    every, main = side.memory
    return f"{every:.0f} (main {main:.0f})"


def number(value: float) -> str:
    """Write a number with as many places as it takes to compare it."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _plain(value: object) -> object:
    """Shorten numbers to what they are good for."""
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}")
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return value
