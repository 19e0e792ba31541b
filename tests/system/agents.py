"""Real agents for system tests: one `sled-agent run` process each, in a directory of its own.

Rules kept here:

- Port 0 only: the ready file says which ports were taken, so tests run side by side.
- Nothing outside `home` is touched, and `close` leaves no process behind, however the test ended.
- Readiness is waited for on the agent's own stdout (its ready line, or its end), never slept for.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

BIN: Final = Path(sys.executable).parent
START_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 60.0
LOG_TAIL_LINES: Final = 40


class AgentFailed(AssertionError):
    """The agent did not start, or did not stop; the message ends with the tail of its log."""


class RunningAgent:
    """One agent: made with `RunningAgent(tmp_path / "a").start()` or as a context manager.

    `home` holds everything: `agent.toml`, `ready.json`, `agent.log`, `state/` and one directory
    per dataset (`m2-0`, `m2-1`). Settings beyond those are given as environment variables, such as
    `{"SLED_AGENT__STORAGE__QUOTA": "1MiB"}`, and may be changed between `stop` and `start`.
    """

    def __init__(
        self, home: Path, *, datasets: int = 2, env: Mapping[str, str] | None = None
    ) -> None:
        self.home = home
        self.datasets = tuple(home / f"m2-{index}" for index in range(datasets))
        self.config_path = home / "agent.toml"
        self.ready_path = home / "ready.json"
        self.log_path = home / "agent.log"
        self.env = dict(env or {})
        self.agent_url = ""
        self.depot_url = ""
        self.process: subprocess.Popen[bytes] | None = None

    def prepare(self) -> Self:
        """Create the directories, the configuration and the dataset markers; idempotent."""
        for path in (self.home, *self.datasets):
            path.mkdir(parents=True, exist_ok=True)
        self.config_path.write_text(_config(self.home / "state", self.datasets))
        self.run("init", "--config", str(self.config_path))
        return self

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run another `sled-agent` command to its end with this agent's environment.

        Raises:
            AgentFailed: its exit status was not 0.
        """
        done = self.attempt(*arguments)
        if done.returncode != 0:
            raise AgentFailed(f"sled-agent {' '.join(arguments)}: {done.stdout}{done.stderr}")
        return done

    def attempt(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The same, however it ends."""
        return subprocess.run(
            [BIN / "sled-agent", *arguments],
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
            AgentFailed: it ended, or was not ready in time.
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
                [str(BIN / "sled-agent"), "run", *files],
                env=self._environment(),
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                # A Ctrl-C at the terminal is the test runner's; agents are stopped by `close`.
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
        ready = json.loads(self.ready_path.read_text())
        self.agent_url, self.depot_url = ready["agent_url"], ready["depot_url"]

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """SIGTERM, wait, and return the exit status."""
        return self._end(signal.SIGTERM, timeout_s)

    def kill(self, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """SIGKILL, as a crash would, and wait. Its dataset workers go with it."""
        return self._end(signal.SIGKILL, timeout_s)

    def send(self, number: signal.Signals) -> None:
        """Send any other signal, such as SIGSTOP, to the agent's own process."""
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
        """The process id of the running agent."""
        return self._child().pid

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self.process is not None and self.process.poll() is None

    def log(self) -> str:
        """Everything the agent wrote to stderr, over all its lives."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def log_tail(self, lines: int = LOG_TAIL_LINES) -> str:
        """The last lines of the log, for a failure message."""
        return "\n".join(self.log().splitlines()[-lines:])

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _environment(self) -> dict[str, str]:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("SLED_AGENT")}
        return {**inherited, **self.env}

    def _child(self) -> subprocess.Popen[bytes]:
        if self.process is None:
            raise RuntimeError(f"the agent in {self.home} was not started")
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

    def _failed(self, what: str) -> AgentFailed:
        return AgentFailed(f"the agent in {self.home}: {what}\n{self.log_tail()}")


def _config(state_dir: Path, datasets: Sequence[Path]) -> str:
    lines = [f"state_dir = {_quoted(state_dir)}"]
    lines += ["[agent]", 'listen = "127.0.0.1:0"', "[depot]", 'listen = "127.0.0.1:0"']
    for path in datasets:
        lines += ["[[datasets]]", f"path = {_quoted(path)}"]
    return "\n".join(lines) + "\n"


def _quoted(path: Path) -> str:
    """A TOML basic string; JSON's is the same for every path a test makes."""
    return json.dumps(str(path))
