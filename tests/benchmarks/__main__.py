"""`python -m tests.benchmarks`: everything in one run, side by side, as ratios."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from rich.console import Console

from tests.benchmarks import catalog, machine, plot, profile, report, scale
from tests.benchmarks.measure import MEBIBYTES, MIB, MIB_PER_S, Row, Side, alone, at_most
from tests.benchmarks.processes import Memory
from tests.benchmarks.programs import missing, not_found
from tests.benchmarks.rig import Rig, rig
from tests.benchmarks.scale import Scale

DOCUMENT: Final = Path(__file__).parents[2] / "docs" / "performance.md"
# A table in a file or a log is not folded into 80 columns.
WIDTH: Final = 320
FAILED: Final = "failed"
MEMORY_TARGET: Final = at_most(100, MEBIBYTES)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write what was asked for; a missed target is no failure."""
    options = _parser().parse_args(arguments)
    # Agents, namespaces and files go on every way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    progress, output = Console(stderr=True), Console()
    if not output.is_terminal:
        output.width = WIDTH
    options.dir.mkdir(parents=True, exist_ok=True)
    size = scale.tiny() if options.tiny else scale.full(options.size * MIB, options.pairs)
    facts = machine.describe(options.dir)
    facts |= {"size_mib": size.size_bytes // MIB, "pairs": size.rounds}
    if facts["filesystem"] in machine.IN_MEMORY:
        progress.print(f"{options.dir} is in memory: nothing is measured of a disk; try --dir")
    if options.profile:
        _profile(options, size, facts, output)
        return
    with rig(options.dir, size) as means:
        rows = [row for name in options.only for row in _run(means, name, progress)]
    rows += _peaks(rows)
    report.print_table(output, facts, rows)
    if options.json:
        report.write_json(options.json, facts, rows)
    if options.svg:
        options.svg.write_text(plot.svg(rows))
    if options.write_docs:
        report.write_into(DOCUMENT, facts, rows)
    if any(row.note.startswith(FAILED) for row in rows):
        sys.exit("some of it failed; see above")


def _profile(
    options: argparse.Namespace, size: Scale, facts: Mapping[str, object], output: Console
) -> None:
    """Tell where the time goes; to be sampled costs some, so nothing else comes of such a run."""
    if lacking := missing(profile.PROGRAM):
        sys.exit(not_found(lacking))
    found: list[profile.Profile] = []
    with rig(options.dir, size) as means:
        for name in options.only:
            means.memory.phase()
            with profile.sampled(means, name) as of_this:
                catalog.MEASUREMENTS[name](means)
            found += of_this
    report.print_profiles(output, found)
    if options.write_docs:
        report.write_profiles_into(DOCUMENT, facts, found)


def _run(means: Rig, name: str, progress: Console) -> list[Row]:
    began_s = time.monotonic()
    means.memory.phase()
    try:
        rows = catalog.MEASUREMENTS[name](means)
    except Exception as error:
        # The others take a quarter of an hour, and are worth having all the same.
        progress.print_exception()
        return [alone(name, name, (), MIB_PER_S, note=f"{FAILED}: {error!r}")]
    ours, theirs = means.peaks()
    # A run that is ended before its end has told something.
    found = ", ".join(f"{row.key} {report.short(row)}" for row in rows)
    progress.print(f"{found} (took {time.monotonic() - began_s:.0f} s)")
    return [
        replace(row, here=_with_peak(row.here, ours), there=_with_peak(row.there, theirs))
        for row in rows
    ]


def _with_peak(side: Side, peak: Memory | None) -> Side:
    if peak is None or not side.each:
        return side
    return replace(side, memory=(peak.all_bytes / MIB, peak.main_bytes / MIB))


def _peaks(rows: Sequence[Row]) -> list[Row]:
    """The largest memory that any agent had, but for the rows of very many artifacts."""
    found = {row.key: row.here.memory for row in rows if row.here.memory}
    peaks = {key: peak for key, peak in found.items() if not key.startswith("start-")}
    parts = zip(*peaks.values(), strict=True) if peaks else ((), ())
    names = ("all its processes", "the main process alone")
    return [
        alone(
            key,
            f"peak memory of an agent, {name}",
            [max(part)] if part else (),
            MEBIBYTES,
            target=MEMORY_TARGET,
            note="" if part else "no agent ran",
        )
        for key, name, part in zip(("memory-peak", "memory-peak-main"), names, parts, strict=True)
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=main.__doc__)
    parser.add_argument(
        "--only",
        type=_names,
        default=list(catalog.MEASUREMENTS),
        help=f"some, or what their names begin with: {','.join(catalog.MEASUREMENTS)}",
    )
    parser.add_argument(
        "--size",
        type=_positive,
        default=scale.TARGET_BYTES // MIB,
        help="of the large artifact, in MiB; with a smaller one, fewer small ones as well",
    )
    parser.add_argument("--pairs", type=_positive, default=5, help="runs of each side")
    parser.add_argument(
        "--tiny", action="store_true", help="one run of everything, as small as shows that it works"
    )
    parser.add_argument("--dir", type=Path, default=Path("/var/tmp"), help="on a real disk")
    parser.add_argument("--json", type=Path, help="write all numbers to this file")
    parser.add_argument("--svg", type=Path, help="draw the ratios into this file")
    parser.add_argument(
        "--profile",
        action="store_true",
        help="instead of how fast it is, tell where the processor time goes",
    )
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
