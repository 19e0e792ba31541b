"""Real programs of this project for system tests: one process each, in a directory of its own.

Rules kept here:

- Port 0 only: the ready file says which ports were taken, so tests run side by side.
- Nothing outside `home` is touched, and `close` leaves no process behind, however the test ended.
- Readiness is waited for on the program's own stdout (its ready line, or its end), never slept for.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Final, Self

BIN: Final = Path(sys.executable).parent
# An upper bound only: beside other work, an interpreter alone has taken more than a minute.
START_TIMEOUT_S: Final = 180.0
STOP_TIMEOUT_S: Final = 60.0
LOG_TAIL_LINES: Final = 40


class ProgramFailed(AssertionError):
    """The program did not start, or did not stop; the message ends with the tail of its log."""


class RunningProgram:
    """One process of a program that has a configuration, a ready file and an orderly end.

    `home` holds everything. Settings beyond those in the file are given as environment variables,
    and may be changed between `stop` and `start`.
    """

    program: ClassVar[str]
    kind: ClassVar[str]
    """What it is called among others of its kind."""

    def __init__(self, home: Path, env: Mapping[str, str] | None = None) -> None:
        self.home = home
        self.config_path = home / f"{self.kind}.toml"
        self.ready_path = home / "ready.json"
        self.log_path = home / f"{self.kind}.log"
        self.env = dict(env or {})
        self.process: subprocess.Popen[bytes] | None = None

    def prepare(self) -> Self:
        """Create the directories and the configuration; idempotent."""
        raise NotImplementedError

    def take_addresses(self, ready: Mapping[str, Any]) -> None:
        """Note what the ready file says."""
        raise NotImplementedError

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run another command of the program to its end with this one's environment.

        Raises:
            ProgramFailed: its exit status was not 0.
        """
        done = self.attempt(*arguments)
        if done.returncode != 0:
            raise ProgramFailed(f"{self.program} {' '.join(arguments)}: {done.stdout}{done.stderr}")
        return done

    def attempt(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The same, however it ends."""
        return subprocess.run(
            [BIN / self.program, *arguments],
            env=self._environment(),
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=START_TIMEOUT_S,
            check=False,
        )

    def start(self) -> Self:
        """Start the process and return when it is ready.

        Raises:
            ProgramFailed: it ended, or was not ready in time.
        """
        if not self.config_path.exists():
            self.prepare()
        self.spawn()
        self.wait_ready()
        return self

    def spawn(self) -> None:
        """Start the process without waiting; for tests of a start that fails or hangs."""
        self.ready_path.unlink(missing_ok=True)
        files = ["--config", str(self.config_path), "--ready-file", str(self.ready_path)]
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [str(BIN / self.program), "run", *files],
                env=self._environment(),
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                # A Ctrl-C at the terminal is the test runner's; programs are stopped by `close`.
                start_new_session=True,
            )

    def wait_ready(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Wait for the ready line, then take the addresses from the ready file."""
        deadline = time.monotonic() + timeout_s
        # The file is written before the line, so a line without a file is not the ready line.
        while self._next_line(deadline) and not self.ready_path.exists():
            pass
        if not self.ready_path.exists():
            raise self._failed(f"ended with {self._child().wait()} before it was ready")
        self.take_addresses(json.loads(self.ready_path.read_text()))

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """SIGTERM, wait, and return the exit status."""
        return self._end(signal.SIGTERM, timeout_s)

    def kill(self, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """SIGKILL, as a crash would, and wait. Processes that it started go with it."""
        return self._end(signal.SIGKILL, timeout_s)

    def send(self, number: signal.Signals) -> None:
        """Send any other signal, such as SIGSTOP, to the program's own process."""
        self._child().send_signal(number)

    def close(self) -> None:
        """End the process if it still runs; safe to call twice."""
        if self.process is None:
            return
        if self.process.poll() is None:
            self.kill()
        else:
            self._drop()

    @property
    def pid(self) -> int:
        """The process id of the running program."""
        return self._child().pid

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self.process is not None and self.process.poll() is None

    def log(self) -> str:
        """Everything it wrote to stderr, over all its lives."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def log_tail(self, lines: int = LOG_TAIL_LINES) -> str:
        """The last lines of the log, for a failure message."""
        return "\n".join(self.log().splitlines()[-lines:])

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()  # nobody calls `__exit__` of what was not entered
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _environment(self) -> dict[str, str]:
        ours = ("SLED_AGENT", "DEPOT_COORDINATOR")
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
        return {**inherited, **self.env}

    def _child(self) -> subprocess.Popen[bytes]:
        if self.process is None:
            raise RuntimeError(f"the {self.kind} in {self.home} was not started")
        return self.process

    def _next_line(self, deadline: float) -> bytes:
        """One line of stdout, b"" at its end."""
        stdout = self._child().stdout
        assert stdout is not None
        ready, _, _ = select.select([stdout], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            raise self._failed("not ready in time")
        return stdout.readline()

    def _end(self, number: signal.Signals, timeout_s: float) -> int:
        child = self._child()
        child.send_signal(number)
        try:
            status = child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
            raise self._failed(f"still running {timeout_s:.0f} s after {number.name}") from None
        self._drop()
        return status

    def _drop(self) -> None:
        child = self._child()
        if child.stdout is not None:
            child.stdout.close()
        self.process = None

    def _failed(self, what: str) -> ProgramFailed:
        return ProgramFailed(f"the {self.kind} in {self.home}: {what}\n{self.log_tail()}")


def quoted(path: Path) -> str:
    """A TOML basic string; JSON's is the same for every path a test makes."""
    return json.dumps(str(path))
