"""The processes of the demo's fleet: a coordinator and its agents, each in a directory."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

BIN: Final = Path(sys.executable).parent
TIMEOUT_S: Final = 60
# A process that lives gets ready even on a machine that is busy with other things.
START_TIMEOUT_S: Final = 300
TELL_EVERY_S: Final = 30


class DemoFailed(Exception):
    """Something did not go as it should; the message says what."""


@dataclass(slots=True)
class Program:
    """One process and its directory."""

    name: str
    home: Path
    command: str
    process: subprocess.Popen[bytes] | None = None
    ready: dict[str, Any] = field(default_factory=dict)

    @property
    def log(self) -> Path:
        """Where its stderr goes."""
        return self.home / "log"

    @property
    def config(self) -> Path:
        """Its configuration."""
        return self.home / "config.toml"

    @property
    def ready_file(self) -> Path:
        """What it writes when it is ready."""
        return self.home / "ready.json"

    def spawn(self) -> None:
        """Start it, and do not wait."""
        files = ["--config", self.config, "--ready-file", self.ready_file]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [BIN / self.command, "run", *files],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                # Ctrl-C is for the tour, which then ends its processes.
                start_new_session=True,
            )

    def await_ready(self) -> None:
        """Wait until it is ready.

        Raises:
            DemoFailed: it ended, or took too long.
        """
        assert self.process is not None
        assert self.process.stdout is not None
        waited_s = 0
        # One that ends closes its stdout, so only one that runs is waited for.
        while not select.select([self.process.stdout], [], [], TELL_EVERY_S)[0]:
            waited_s += TELL_EVERY_S
            why = self._why_not(waited_s)
            if waited_s >= START_TIMEOUT_S:
                raise DemoFailed(why)
            print(f"{why}; waiting", flush=True)
        self.process.stdout.readline()
        if not self.ready_file.exists():
            raise DemoFailed(f"{self.name} did not become ready")
        self.ready = json.loads(self.ready_file.read_text())

    def _why_not(self, waited_s: int) -> str:
        logged = "" if self.log.stat().st_size else "has logged nothing yet, "
        load = f"the load is {os.getloadavg()[0]:.0f} on {os.cpu_count()} CPUs"
        return f"{self.name} runs, {logged}and is not ready after {waited_s} s; {load}"


class Coordinator(Program):
    """The coordinator, with a SQLite database."""

    def __init__(self, home: Path) -> None:
        super().__init__("coordinator", home, "depot-coordinator")

    @property
    def url(self) -> str:
        """Where it listens."""
        return str(self.ready["url"])

    def begin(self) -> None:
        """Start it."""
        self.home.mkdir(parents=True)
        self.config.write_text(
            'listen = "127.0.0.1:0"\n'
            f"[staging]\npath = {_quoted(self.home / 'staging')}\n"
            "[replication]\nperiod_s = 2\n"
        )
        self.spawn()


class Sled(Program):
    """One agent on two directories that stand for its disks."""

    def __init__(self, home: Path) -> None:
        super().__init__(home.name, home, "sled-agent")

    @property
    def datasets(self) -> tuple[Path, Path]:
        """The two dataset directories."""
        return self.home / "m2-a", self.home / "m2-b"

    def begin(self, coordinator: str) -> None:
        """Make its datasets, and start it."""
        for dataset in self.datasets:
            dataset.mkdir(parents=True)
        datasets = "".join(f"[[datasets]]\npath = {_quoted(path)}\n" for path in self.datasets)
        self.config.write_text(
            f'sled_id = "{self.name}"\nstate_dir = {_quoted(self.home / "state")}\n'
            '[agent]\nlisten = "127.0.0.1:0"\n[depot]\nlisten = "127.0.0.1:0"\n'
            f'[coordinator]\nurls = ["{coordinator}"]\n'
            f'{datasets}[storage]\nquota = "1GiB"\n'
        )
        run(["sled-agent", "init", "--config", str(self.config)], stdout=subprocess.DEVNULL)
        self.spawn()

    def lose(self, dataset: Path) -> None:
        """Take a disk out, in the middle of everything, and put an empty one in."""
        shutil.rmtree(dataset)
        dataset.mkdir()

    def held(self, dataset: Path, hashes: Sequence[str]) -> int:
        """How many of the artifacts are there, by their files."""
        return sum((dataset / sha256).exists() for sha256 in hashes)


def stop_all(programs: Sequence[Program]) -> None:
    """Stop them as an operator would; each has to end well.

    Raises:
        DemoFailed: one did not.
    """
    for program in programs:
        if program.process is not None:
            program.process.terminate()
    for program in programs:
        if program.process is not None and (status := program.process.wait(TIMEOUT_S)) != 0:
            raise DemoFailed(f"{program.name} ended with {status} after SIGTERM")


def kill_all(programs: Sequence[Program]) -> None:
    """End whatever still runs."""
    for program in programs:
        if program.process is not None and program.process.poll() is None:
            program.process.kill()
            program.process.wait()


def run(command: Sequence[str], stdout: int | None = None) -> None:
    """Run a command of this project to its end.

    Raises:
        DemoFailed: its exit status was not 0.
    """
    program, *arguments = command
    done = subprocess.run([BIN / program, *arguments], stdout=stdout, check=False)
    if done.returncode != 0:
        raise DemoFailed(f"`{program} {arguments[0]} …` ended with {done.returncode}")


def _quoted(path: Path) -> str:
    return json.dumps(str(path))
