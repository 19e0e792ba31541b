"""`python -m tests.benchmarks`: everything in one run, side by side, as ratios."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich.console import Console

from tests.benchmarks import machine, report, scenarios
from tests.benchmarks.measure import MIB, Row
from tests.benchmarks.rig import Rig, rig

DOCUMENT: Final = Path(__file__).parents[2] / "docs" / "performance.md"
# A table in a file or a log is not folded into 80 columns.
WIDTH: Final = 200


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write what was asked for. A missed target is no failure of the run."""
    options = _parser().parse_args(arguments)
    progress, output = Console(stderr=True), Console()
    if not output.is_terminal:
        output.width = WIDTH
    options.dir.mkdir(parents=True, exist_ok=True)
    facts = machine.describe(options.dir) | {"size_mib": options.size, "pairs": options.pairs}
    if facts["filesystem"] in machine.IN_MEMORY:
        progress.print(f"{options.dir} is in memory: nothing is measured of a disk; try --dir")
    with rig(options.dir, options.size * MIB, options.pairs) as means:
        rows = [row for name in options.only for row in _run(means, name, progress)]
        rows.append(scenarios.memory(means))
    report.print_table(output, facts, rows)
    if options.json:
        report.write_json(options.json, facts, rows)
    if options.write_docs:
        report.write_into(DOCUMENT, facts, rows)


def _run(means: Rig, name: str, progress: Console) -> list[Row]:
    progress.print(f"measuring {name} ...")
    means.memory.phase(name)
    return scenarios.SCENARIOS[name](means)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=main.__doc__)
    parser.add_argument(
        "--only",
        type=_names,
        default=list(scenarios.SCENARIOS),
        help=f"some of {','.join(scenarios.SCENARIOS)}, with commas between them",
    )
    parser.add_argument("--size", type=_positive, default=512, help="of the artifact, in MiB")
    parser.add_argument("--pairs", type=_positive, default=5, help="runs of each side")
    parser.add_argument("--dir", type=Path, default=Path("/var/tmp"), help="on a real disk")
    parser.add_argument("--json", type=Path, help="write all numbers to this file")
    parser.add_argument(
        "--write-docs", action="store_true", help=f"write the table into {DOCUMENT.name}"
    )
    return parser


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, found {number}")
    return number


def _names(text: str) -> list[str]:
    names = text.split(",")
    if unknown := set(names) - set(scenarios.SCENARIOS):
        raise argparse.ArgumentTypeError(f"no such part: {', '.join(sorted(unknown))}")
    return names


if __name__ == "__main__":
    main()
