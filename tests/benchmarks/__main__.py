"""`python -m tests.benchmarks`: everything in one run, side by side, as ratios."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from rich.console import Console

from tests.benchmarks import catalog, machine, plot, report, scale
from tests.benchmarks.measure import MEBIBYTES, MIB, Row, Side, alone, at_most
from tests.benchmarks.processes import Memory
from tests.benchmarks.rig import Rig, rig

DOCUMENT: Final = Path(__file__).parents[2] / "docs" / "performance.md"
# A table in a file or a log is not folded into 80 columns.
WIDTH: Final = 240
MEMORY_TARGET: Final = at_most(100, MEBIBYTES)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write what was asked for. A missed target is no failure of the run."""
    options = _parser().parse_args(arguments)
    progress, output = Console(stderr=True), Console()
    if not output.is_terminal:
        output.width = WIDTH
    options.dir.mkdir(parents=True, exist_ok=True)
    size = scale.tiny() if options.tiny else scale.full(options.size * MIB, options.pairs)
    facts = machine.describe(options.dir)
    facts |= {"size_mib": size.size_bytes // MIB, "pairs": size.rounds}
    if facts["filesystem"] in machine.IN_MEMORY:
        progress.print(f"{options.dir} is in memory: nothing is measured of a disk; try --dir")
    with rig(options.dir, size) as means:
        rows = [row for name in options.only for row in _run(means, name, progress)]
    rows.append(_peak(rows))
    report.print_table(output, facts, rows)
    if options.json:
        report.write_json(options.json, facts, rows)
    if options.svg:
        options.svg.write_text(plot.svg(rows))
    if options.write_docs:
        report.write_into(DOCUMENT, facts, rows)
        report.write_json(DOCUMENT.with_suffix(".json"), facts, rows)
        DOCUMENT.with_suffix(".svg").write_text(plot.svg(rows))


def _run(means: Rig, name: str, progress: Console) -> list[Row]:
    began_s = time.monotonic()
    means.memory.phase()
    rows = catalog.MEASUREMENTS[name](means)
    ours, theirs = means.peaks()
    progress.print(f"{name}: {time.monotonic() - began_s:.0f} s")
    return [
        replace(row, here=_with_peak(row.here, ours), there=_with_peak(row.there, theirs))
        for row in rows
    ]


def _with_peak(side: Side, peak: Memory | None) -> Side:
    if peak is None or not side.each:
        return side
    return replace(side, memory=(peak.all_bytes / MIB, peak.main_bytes / MIB))


def _peak(rows: Sequence[Row]) -> Row:
    """The largest memory that any agent had in any of these."""
    peaks = {row.key: row.here.memory for row in rows if row.here.memory}
    note = "; ".join(f"{key} {every:.0f}, {main:.0f}" for key, (every, main) in peaks.items())
    return alone(
        "memory-peak",
        "peak memory of an agent in all of this",
        [max(every for every, _ in peaks.values())] if peaks else (),
        MEBIBYTES,
        target=MEMORY_TARGET,
        note=f"all its processes, main process alone: {note}",
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=main.__doc__)
    parser.add_argument(
        "--only",
        type=_names,
        default=list(catalog.MEASUREMENTS),
        help=f"some, or what their names begin with: {','.join(catalog.MEASUREMENTS)}",
    )
    parser.add_argument("--size", type=_positive, default=512, help="of the artifact, in MiB")
    parser.add_argument("--pairs", type=_positive, default=5, help="runs of each side")
    parser.add_argument(
        "--tiny", action="store_true", help="one run of everything, as small as shows that it works"
    )
    parser.add_argument("--dir", type=Path, default=Path("/var/tmp"), help="on a real disk")
    parser.add_argument("--json", type=Path, help="write all numbers to this file")
    parser.add_argument("--svg", type=Path, help="draw the ratios into this file")
    parser.add_argument(
        "--write-docs", action="store_true", help=f"write all of it into docs/{DOCUMENT.name}"
    )
    return parser


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, found {number}")
    return number


def _names(text: str) -> list[str]:
    try:
        return catalog.chosen(text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


if __name__ == "__main__":
    main()
