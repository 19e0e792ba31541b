"""Outcomes as one table: on the terminal, as JSON, and in the document."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tests.torture.campaign import Outcome

HEADINGS: Final = ("test", "runs", "violations", "seconds", "seed", "of these")
BEGIN: Final = "<!-- written by `make torture`: begin -->"
END: Final = "<!-- written by `make torture`: end -->"


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
    """Replace the rows of what was run, between the two marks; other campaigns keep theirs."""
    before, rest = document.read_text().split(BEGIN)
    table, after = rest.split(END)
    rows = _rows(table) | {o.campaign: _row(_cells(o)) for o in outcomes if o.skipped is None}
    lines = [_row(HEADINGS), "|---" * len(HEADINGS) + "|"]
    lines += [rows[name] for name in order if name in rows]
    found = "\n".join(lines)
    document.write_text(f"{before}{BEGIN}\n\n{found}\n\n{END}{after}")


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
        ", ".join(f"{what} {count:,}" for what, count in sorted(outcome.counts.items())),
    )
