"""What every long-lived process of this project does: signals, readiness, leaving.

Rules kept here (S3):
- The first SIGTERM or SIGINT asks to stop, the second ends the process at once, unless it is the
  first once more, from somebody who sends it to the process and to its group.
- Nothing can keep the process from ending, not even a thread that waits for a dead device.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import resource
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import structlog

from depot.freed_memory import give_back_large

EXIT_OK: Final = 0
EXIT_FAILED: Final = 1
# What the interpreter may take to end once everything is closed.
_EXIT_TIMEOUT_S: Final = 5.0
# How long a thread that computes keeps the interpreter when another wants it. The event loop gives
# it up with every system call: at the usual 5 ms, an answer in twenty pieces took 100 ms more.
_SWITCH_INTERVAL_S: Final = 0.0005
REPEAT_S: Final = 0.1
"""A signal so soon after the first is the same one, sent to the process and to its group."""

_log = structlog.get_logger("agent")


class CannotStart(Exception):
    """A server cannot start; the message is for the operator who tried."""


class StopSignals:
    """SIGTERM and SIGINT: the first asks to stop, the second does not ask."""

    def __init__(self) -> None:
        self.requested = asyncio.Event()
        self._on_first: Callable[[], None] = lambda: None
        self._second_from_s = 0.0

    def install(self, on_first: Callable[[], None]) -> None:
        """Listen from now on; `on_first` is called with the first signal."""
        self._on_first = on_first
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._received, number)

    def ask(self) -> None:
        """Stop as the first signal would have it."""
        if not self.requested.is_set():
            self.requested.set()
            self._on_first()

    def _received(self, number: signal.Signals) -> None:
        if self.requested.is_set():
            if time.monotonic() < self._second_from_s:
                return
            _log.warning("second signal: leaving at once", signal=number.name)
            leave_now(128 + number)
        self._second_from_s = time.monotonic() + REPEAT_S
        _log.info("stopping", signal=number.name)
        self.ask()


def run(live: Coroutine[Any, Any, None]) -> int:
    """Run the life of a process until it is over; the exit status.

    Raises:
        CannotStart: with the reason.
    """
    raise_descriptor_limit()
    give_back_large()
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    status = EXIT_FAILED
    with asyncio.Runner() as runner:
        try:
            runner.run(live)
            status = EXIT_OK
        except CannotStart:
            raise
        except Exception:  # The root of all tasks: logged here, or nowhere.
            _log.exception("the process failed")
        finally:
            # Closing the runner waits for threads of the default executor, without an end.
            leave_within(_EXIT_TIMEOUT_S, status)
    return status


def write_ready_file(path: Path, ready: Mapping[str, object]) -> None:
    """Write what others need in order to talk to this process: whole, or not there."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w") as file:
            json.dump(ready, file)
            os.fchmod(file.fileno(), 0o644)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def raise_descriptor_limit() -> None:
    """Allow as many open files as the system lets us: soft limits date from select()."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError) as error:  # a sandbox, or a limit beyond the kernel's own
        _log.warning("the descriptor limit stays", limit=soft, error=str(error))


def leave_within(timeout_s: float, status: int) -> None:
    """Make sure that the process ends within `timeout_s`.

    A thread that waits for a dead device can neither be interrupted nor joined; the interpreter
    would wait for it for ever. So a daemon thread ends the process when the orderly way has not.
    Every write that was acknowledged is durable by then (B3), and locks end with the process.
    """
    timer = threading.Timer(timeout_s, _give_up, (timeout_s, status))
    timer.daemon = True
    timer.start()


def _give_up(timeout_s: float, status: int) -> None:
    _log.warning("leaving work behind that does not end", waited_s=timeout_s)
    leave_now(status)


def leave_now(status: int) -> None:
    """End the process without waiting for anything but its own output."""
    with suppress(OSError, ValueError):  # a reader that went away
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)
