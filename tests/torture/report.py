"""Outcomes as one table: on the terminal, as JSON, and in the document."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tests.torture.campaign import Outcome

HEADINGS: Final = (
    "test",
    "runs",
    "violations",
    "seconds",
    "seed",
    "held before and after",
    "of these",
)
BUG_HEADINGS: Final = ("planted bug", "noticed by")
BEGIN: Final = "<!-- written by `make torture`: begin -->"
END: Final = "<!-- written by `make torture`: end -->"
BUGS_BEGIN: Final = "<!-- planted bugs: begin -->"
BUGS_END: Final = "<!-- planted bugs: end -->"


def print_table(console: Console, outcomes: Sequence[Outcome]) -> None:
    """The result for a person."""
    table = Table(*HEADINGS)
    for outcome in outcomes:
        table.add_row(*map(escape, _cells(outcome)), style="red" if outcome.violations else "")
    console.print(table)


def as_json(outcomes: Sequence[Outcome]) -> str:
    # `asdict` cannot copy a Counter.
    fields = [asdict(replace(o, counts=Counter())) | {"counts": dict(o.counts)} for o in outcomes]
    return json.dumps(fields)


def write_into(document: Path, outcomes: Sequence[Outcome], order: Sequence[str]) -> None:
    """Replace the rows of what was run, between the marks; other campaigns keep theirs."""
    done = [outcome for outcome in outcomes if outcome.skipped is None]
    text = document.read_text()
    text = _with_rows(text, (BEGIN, END), HEADINGS, {o.campaign: _cells(o) for o in done}, order)
    noticed = {bug: (bug, by) for outcome in done for bug, by in outcome.noticed.items()}
    text = _with_rows(text, (BUGS_BEGIN, BUGS_END), BUG_HEADINGS, noticed, ())
    document.write_text(text)


def _with_rows(
    text: str,
    marks: tuple[str, str],
    headings: Sequence[str],
    cells: Mapping[str, Sequence[str]],
    order: Sequence[str],
) -> str:
    before, rest = text.split(marks[0])
    table, after = rest.split(marks[1])
    rows = _rows(table) | {name: _row(each) for name, each in cells.items()}
    for heading in (headings[0], "---"):
        rows.pop(heading, None)
    lines = [_row(headings), "|---" * len(headings) + "|"]
    lines += [rows[name] for name in order or rows if name in rows]
    found = "\n".join(lines)
    return f"{before}{marks[0]}\n\n{found}\n\n{marks[1]}{after}"


def _rows(table: str) -> dict[str, str]:
    lines = [line for line in table.splitlines() if line.startswith("|")]
    return {line.split("|")[1].strip(): line for line in lines}


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _cells(outcome: Outcome) -> tuple[str, ...]:
    if outcome.skipped is not None:
        return (outcome.campaign, "skipped", "", "", "", outcome.skipped)
    return (
        outcome.campaign,
        f"{outcome.runs:,}",
        str(len(outcome.violations)),
        f"{outcome.seconds:.0f}",
        str(outcome.seed),
        " → ".join(map(str, outcome.held or ())),
        ", ".join(f"{what} {count:,}" for what, count in sorted(outcome.counts.items())),
    )
