"""`python -m tests.torture`: mistreat the store in every way there is, and judge what is left.

The exit status is 1 when any run broke a rule. Every violation is printed with the command that
replays it.
"""

from __future__ import annotations

import argparse
import multiprocessing
import secrets
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from rich.console import Console

from tests.torture import report
from tests.torture.campaign import (
    ENOUGH_VIOLATIONS,
    SEED_BITS,
    Campaign,
    Outcome,
    Plan,
    begin_process,
    merged,
)
from tests.torture.disks import own_mounts
from tests.torture.registry import CAMPAIGNS, by_name, run_plan

DOCUMENT: Final = Path(__file__).parents[2] / "docs" / "reliability.md"
# A table in a file or a log is not folded into 80 columns.
WIDTH: Final = 200
_EPILOG: Final = "From make: `make torture TORTURE_ARGS='power-cut --runs 500'`, or ARGS."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what was asked for; the exit status."""
    options = _parser().parse_args(arguments)
    begin_process()
    # An exception unmounts what is mounted, and ends the processes that share the runs.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    output = Console()
    if not output.is_terminal:
        output.width = WIDTH
    if options.list:
        for campaign in CAMPAIGNS:
            output.print(f"{campaign.name}: {campaign.about} ({campaign.runs:,} runs)")
        return 0
    chosen = options.campaigns or list(CAMPAIGNS)
    outcomes = []
    for campaign in chosen:
        outcomes.append(_run(campaign, options))
        # Written after each: a campaign of hours that is interrupted keeps what it has.
        if options.write_docs:
            report.write_into(DOCUMENT, outcomes, [c.name for c in CAMPAIGNS])
    if options.json:
        sys.stdout.write(f"{report.as_json(outcomes)}\n")
    else:
        report.print_table(output, outcomes)
    return int(any(outcome.violations for outcome in outcomes))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.torture", description=__doc__, epilog=_EPILOG
    )
    parser.add_argument("campaigns", nargs="*", type=_known, metavar="NAME", help="all if none")
    parser.add_argument("--runs", type=_some, help="how many of each; by default a whole campaign")
    parser.add_argument("--seed", type=int, help="of the first run; by default a new one")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="at most, for each")
    parser.add_argument("--jobs", type=_some, default=1, help="processes that share the runs")
    parser.add_argument("--first", action="store_true", help="end with the first violation")
    parser.add_argument("--brief", action="store_true", help="runs as short as in `make test`")
    parser.add_argument("--write-docs", action="store_true", help=f"the table in {DOCUMENT.name}")
    parser.add_argument("--json", action="store_true", help="instead of the table")
    parser.add_argument("--list", action="store_true", help="the campaigns, and run none")
    return parser


def _run(campaign: Campaign, options: argparse.Namespace) -> Outcome:
    seed = secrets.randbits(SEED_BITS) if options.seed is None else options.seed
    runs = campaign.runs if options.runs is None else options.runs
    ends_at_s = time.monotonic() + options.seconds
    sys.stderr.write(f"{campaign.name}: {runs:,} runs, seed {seed}\n")
    jobs = min(options.jobs, runs)
    enough = 1 if options.first else ENOUGH_VIOLATIONS
    shares = [(turn, jobs) for turn in range(jobs)]
    plan = Plan(campaign.name, seed, runs, ends_at_s, enough=enough, brief=options.brief)
    plans = [replace(plan, share=share) for share in shares]
    if jobs == 1:
        return run_plan(plans[0])
    # Spawned, so that each has no other thread and may fork.
    with multiprocessing.get_context("spawn").Pool(jobs, begin_process) as pool:
        outcomes = pool.map(run_plan, plans, chunksize=1)
        pool.close()
        pool.join()
    return merged(outcomes)


def _some(text: str) -> int:
    """A count of at least one: a campaign of no runs would be passed by anything."""
    count = int(text) if text.isascii() and text.isdecimal() else 0
    if not count:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, found {text!r}")
    return count


def _known(name: str) -> Campaign:
    try:
        return by_name(name)
    except KeyError:
        known = ", ".join(campaign.name for campaign in CAMPAIGNS)
        raise argparse.ArgumentTypeError(f"{name!r} is none of {known}") from None


if __name__ == "__main__":
    own_mounts()
    sys.exit(main())
