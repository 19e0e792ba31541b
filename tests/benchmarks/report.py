"""Rows as a table on the terminal, as JSON, and as a table in a document."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from tests.benchmarks.measure import Row, Spread

HEADINGS: Final = (
    "work",
    "here",
    "against",
    "there",
    "ratio",
    "target",
    "verdict",
    "CPU-s/GiB here, there",
)
BEGIN: Final = "<!-- written by `make bench`: begin -->"
END: Final = "<!-- written by `make bench`: end -->"
_STYLES: Final = {"met": "green", "missed": "red"}


def print_table(console: Console, facts: Mapping[str, object], rows: Sequence[Row]) -> None:
    """The whole result for a person; medians, with the least and the most in brackets."""
    table = Table(*HEADINGS)
    for row in rows:
        table.add_row(*_cells(row), style=_STYLES.get(row.verdict, ""))
    console.print(facts_line(facts))
    console.print(table)
    for note in notes(rows):
        console.print(note)


def write_json(path: Path, facts: Mapping[str, object], rows: Sequence[Row]) -> None:
    content = {"run": facts, "rows": [asdict(row) | {"verdict": row.verdict} for row in rows]}
    path.write_text(json.dumps(content, indent=2, default=str) + "\n")


def write_into(document: Path, facts: Mapping[str, object], rows: Sequence[Row]) -> None:
    """Replace what stands between the two marks; the rest was written by people."""
    before, rest = document.read_text().split(BEGIN)
    _, after = rest.split(END)
    document.write_text(f"{before}{BEGIN}\n\n{_markdown(facts, rows)}\n{END}{after}")


def _markdown(facts: Mapping[str, object], rows: Sequence[Row]) -> str:
    lines = [facts_line(facts), ""]
    lines += ["| " + " | ".join(HEADINGS) + " |", "|---" * len(HEADINGS) + "|"]
    lines += ["| " + " | ".join(_cells(row)) + " |" for row in rows]
    lines += ["", *(f"- {note}" for note in notes(rows))]
    return "\n".join(lines) + "\n"


def facts_line(facts: Mapping[str, object]) -> str:
    return ", ".join(f"{name.replace('_', ' ')}: {value}" for name, value in facts.items())


def notes(rows: Sequence[Row]) -> list[str]:
    return [f"{row.work}: {row.note}" for row in rows if row.note]


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.work,
        _rate(row.value, row.unit),
        row.against,
        _rate(row.other, row.unit),
        _spread(row.ratio, ".2f"),
        "" if row.target is None else str(row.target),
        row.verdict,
        ", ".join(
            f"{cpu:.2f}" for cpu in (row.cpu_s_per_gib, row.other_cpu_s_per_gib) if cpu is not None
        ),
    )


def _rate(value: Spread | None, unit: str) -> str:
    return f"{_spread(value, '.0f')} {unit}" if value else ""


def _spread(value: Spread | None, form: str) -> str:
    if value is None:
        return ""
    median, least, most = (format(part, form) for part in (value.median, value.least, value.most))
    return median if least == most else f"{median} ({least}-{most})"
