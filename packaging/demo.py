"""A guided tour on a throw-away fleet: `make demo`.

One coordinator and four agents on loopback ports in a temporary directory. A signed release is
uploaded, and reaches every disk of every sled while a table shows how far it is; then a sled loses
a disk, gets an empty one, and fills it again. Each command is printed as a user would type it, and
in the end every copy is checked with `sha256sum`, which knows nothing of this project.

Ends with 0 and a line of figures, or with 1 and the end of the logs. Nothing outside the temporary
directory is written; `--keep` leaves the fleet running there.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from demo_processes import (
    TIMEOUT_S,
    Coordinator,
    DemoFailed,
    Program,
    Sled,
    kill_all,
    run,
    stop_all,
)
from demo_release import VERSION, MadeRelease, make_release
from rich.console import Console
from rich.live import Live
from rich.table import Table

NAMES: Final = ("alpha", "beta", "gamma", "delta")
CONVERGED_WITHIN_S: Final = 120
BAR_WIDTH: Final = 20
LOG_LINES: Final = 20
_console = Console(highlight=False)


class Tour:
    """The fleet, and what is shown of it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.coordinator = Coordinator(home / "coordinator")
        self.sleds = [Sled(home / name) for name in NAMES]

    @property
    def programs(self) -> list[Program]:
        """Every process, in the order in which they are stopped."""
        return [self.coordinator, *self.sleds]

    def make(self) -> MadeRelease:
        """Do everything."""
        _heading("A signed release")
        release = make_release(self.home / "release")
        print(f"{len(release.hashes)} artifacts, {release.size_bytes:,} bytes")

        _heading("A coordinator, and four sleds that register with it, of two disks each")
        self.coordinator.begin()
        self.coordinator.await_ready()
        print(f"coordinator {self.coordinator.url}", flush=True)
        for sled in self.sleds:
            sled.begin(self.coordinator.url)
        for sled in self.sleds:
            sled.await_ready()
        os.environ["DEPOT_COORDINATOR_URL"] = self.coordinator.url
        self._await_sleds()
        _typed("depot-coordinator", "sled", "ls")

        _heading("Trust its root, and upload it")
        _typed("depot-coordinator", "trust", "add", str(release.root))
        _typed("depot-coordinator", "release", "upload", str(release.archive))
        self._watch(release, "every disk of every sled")
        _typed("depot-coordinator", "wait", "--release", VERSION, "--timeout", str(TIMEOUT_S))
        _typed("depot-coordinator", "status")

        sled = self.sleds[2]
        dataset = sled.datasets[1]
        _heading(f"{sled.name} loses a disk, and gets an empty one in its place")
        print(f"$ rm -r {dataset} && mkdir {dataset}", flush=True)
        sled.lose(dataset)
        self._replace(sled, dataset)
        self._watch(release, f"the new disk of {sled.name}, too,")

        _heading("Check every copy on every disk with sha256sum")
        self._check(release)
        return release

    def _await_sleds(self) -> None:
        """Wait until all of them have told where they are."""
        command = ("depot-coordinator", "sled", "ls", "--json")
        deadline_s = time.monotonic() + TIMEOUT_S
        while (listed := _output(*command).count('"agent_url"')) < len(self.sleds):
            if time.monotonic() > deadline_s:
                raise DemoFailed(f"only {listed} of {len(self.sleds)} sleds have registered")
            time.sleep(0.2)

    def _replace(self, sled: Sled, dataset: Path) -> None:
        """Have the agent take the new disk; it may not have noticed yet that the old one went."""
        agent_url = str(sled.ready["agent_url"])
        command = ("sled-agent", "datasets", "replace", str(dataset), "--agent", agent_url)
        deadline_s = time.monotonic() + TIMEOUT_S
        while refusal := _refusal(*command):
            if time.monotonic() > deadline_s:
                raise DemoFailed(f"{sled.name} does not take the new disk: {refusal}")
            time.sleep(0.5)

    def _watch(self, release: MadeRelease, what: str) -> None:
        """Show how many artifacts each disk has, by its files, until that is all of them."""
        started_s = time.monotonic()
        with Live(console=_console, refresh_per_second=10, transient=False) as live:
            while True:
                counts = {
                    dataset: sled.held(dataset, release.hashes)
                    for sled in self.sleds
                    for dataset in sled.datasets
                }
                live.update(_table(self.sleds, counts, len(release.hashes)))
                if min(counts.values()) == len(release.hashes):
                    break
                if time.monotonic() - started_s > CONVERGED_WITHIN_S:
                    raise DemoFailed(f"not everywhere within {CONVERGED_WITHIN_S} s")
                time.sleep(0.05)
        if not _console.is_terminal:
            print()  # where nothing is drawn anew, the last line is not ended
        print(f"on {what} after {time.monotonic() - started_s:.1f} s", flush=True)

    def _check(self, release: MadeRelease) -> None:
        for sled in self.sleds:
            for dataset in sled.datasets:
                verdict = _sha256sum_check(dataset, release.hashes)
                print(f"{sled.name:<8}{dataset.name:<8}{verdict}", flush=True)
                if verdict != "OK":
                    raise DemoFailed(f"{sled.name}: {dataset.name} does not hold the release")


def main() -> int:
    """Run the tour; the exit status says whether all of it went well."""
    keep = _arguments().keep
    # The processes have sessions of their own, so a tour that is told to end has to end them too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    started_s = time.monotonic()
    home = Path(tempfile.mkdtemp(prefix="sled-demo-"))
    tour = Tour(home)
    kept = False
    try:
        release = tour.make()
        if not keep:
            stop_all(tour.programs)
        _tell_success(release, time.monotonic() - started_s)
        kept = keep
    except (DemoFailed, OSError, subprocess.SubprocessError) as error:
        _tell_failure(tour.programs, error)
        return 1
    except KeyboardInterrupt:
        print("\ndemo: interrupted", file=sys.stderr)
        return 130
    finally:
        if kept:
            _tell_kept(tour)
        else:
            kill_all(tour.programs)
            shutil.rmtree(home, ignore_errors=True)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="demo.py", description="A tour on a throw-away fleet.")
    parser.add_argument("--keep", action="store_true", help="leave the fleet running")
    return parser.parse_args()


def _table(sleds: Sequence[Sled], counts: dict[Path, int], most: int) -> Table:
    table = Table(box=None, pad_edge=False)
    for title in ("SLED", *(path.name for path in sleds[0].datasets)):
        table.add_column(title)
    for sled in sleds:
        table.add_row(sled.name, *(_bar(counts[dataset], most) for dataset in sled.datasets))
    return table


def _bar(count: int, most: int) -> str:
    full = BAR_WIDTH * count // most
    return f"[green]{'━' * full}[/][dim]{'━' * (BAR_WIDTH - full)}[/] {count:>3}/{most}"


def _typed(*command: str) -> None:
    """Run a command and show its line; its output is the user's to see."""
    print(f"$ {shlex.join(command)}", flush=True)
    run(command)


def _output(*command: str) -> str:
    program, *arguments = command
    try:
        done = subprocess.run(
            [Path(sys.executable).parent / program, *arguments],
            capture_output=True,
            text=True,
            check=True,
            timeout=TIMEOUT_S,
        )
    except subprocess.TimeoutExpired as error:
        line = shlex.join(command)
        raise DemoFailed(f"`{line}` has not ended after {TIMEOUT_S} s: is it busy here?") from error
    return done.stdout


def _refusal(*command: str) -> str | None:
    """Run a command that may be refused for now; show it, and return None, when it was not."""
    try:
        said = _output(*command)
    except subprocess.CalledProcessError as error:
        return str(error.stderr)
    print(f"$ {shlex.join(command)}\n{said}", end="", flush=True)
    return None


def _sha256sum_check(dataset: Path, hashes: Sequence[str]) -> str:
    """Let sha256sum judge the files; `OK`, or what it complains about."""
    done = subprocess.run(
        ["sha256sum", "--check", "--strict", "--quiet", "-"],
        input="".join(f"{sha256}  {sha256}\n" for sha256 in hashes),
        cwd=dataset,
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
    )
    return "OK" if done.returncode == 0 else " ".join((done.stdout + done.stderr).split())


def _heading(text: str) -> None:
    print(f"\n== {text}", flush=True)


def _tell_success(release: MadeRelease, elapsed_s: float) -> None:
    artifacts = len(release.hashes)
    copies = len(NAMES) * 2 * artifacts
    print(
        f"\nOK: {artifacts} artifacts, {release.size_bytes:,} bytes on {len(NAMES)} sleds, "
        f"{copies} copies verified, {elapsed_s:.1f} seconds"
    )


def _tell_kept(tour: Tour) -> None:
    print(f"\nThe fleet goes on running; everything is in {tour.home}. Try:")
    print(f"  depot-coordinator --coordinator {tour.coordinator.url} status")
    for sled in tour.sleds:
        urls = f"--agent {sled.ready['agent_url']} --depot {sled.ready['depot_url']}"
        print(f"  depot {urls} status")
    pids = " ".join(str(each.process.pid) for each in tour.programs if each.process)
    print(f"and at the end:\n  kill {pids}; rm -r {tour.home}")


def _tell_failure(programs: Sequence[Program], error: Exception) -> None:
    sys.stdout.flush()
    for program in programs:
        if program.log.exists():
            lines = program.log.read_text(errors="replace").splitlines()[-LOG_LINES:]
            print(f"\n-- the end of {program.name}'s log", *lines, sep="\n", file=sys.stderr)
    print(f"\ndemo: {error}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
