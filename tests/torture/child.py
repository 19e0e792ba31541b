"""A forked process that is going to die, and the pipe on which it tells what it does.

The parent has one thread, has imported everything and never opens a store itself, so a fork takes
milliseconds. What the child wrote before its death stays in the pipe.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

from tests.torture.history import Event

TIMEOUT_S: Final = 300.0
"""A child that takes longer hangs, on however busy a machine: not a measurement."""

Tell = Callable[[Event], None]


class Broken(AssertionError):
    """The child found a rule broken."""


class Child:
    """A forked process. Make one with `fork`, and `reap` it."""

    def __init__(self, pid: int, pipe: int) -> None:
        self.pid = pid
        self._pipe = pipe
        self._lines: deque[bytes] = deque()
        self._unread = b""
        self._reaped = False

    @classmethod
    def fork(cls, body: Callable[[Tell], None]) -> Child:
        """Run `body` in a child with a function that tells the parent; it need not come back."""
        reading, writing = os.pipe()
        pid = os.fork()
        if pid:
            os.close(writing)
            return cls(pid, reading)
        status = 1
        try:
            os.close(reading)
            # Its log would stand in between what the parent says.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            gc.freeze()  # what is the parent's is not looked at, so its pages stay shared
            _run(body, writing)
            status = 0
        finally:
            os._exit(status)

    def told(self, within_s: float) -> Iterator[Event]:
        """What the child tells, up to its death or for `within_s` seconds.

        Raises:
            Broken: it told of a broken rule.
        """
        ends_at_s = time.monotonic() + within_s
        while True:
            while self._lines:
                event = json.loads(self._lines.popleft())
                if event["what"] == "broken":
                    raise Broken(event["said"])
                yield event
            if not self._has_more(ends_at_s - time.monotonic()):
                return
            chunk = os.read(self._pipe, 1 << 16)
            if not chunk:
                return
            *lines, self._unread = (self._unread + chunk).split(b"\n")
            self._lines.extend(lines)

    def rest(self) -> Iterator[Event]:
        """All that the child tells up to its end.

        Raises:
            Broken: it told of a broken rule, or hangs.
        """
        yield from self.told(TIMEOUT_S)
        if self._has_more(0):  # nothing but the end of the pipe is left
            return
        raise Broken(f"the process hangs: {_stacks(self.pid)}")

    def kill(self) -> None:
        if not self._reaped:
            os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> int:
        """Wait for its end; its exit status, negative for a signal."""
        _, status = os.waitpid(self.pid, 0)
        self._reaped = True
        os.close(self._pipe)
        return os.waitstatus_to_exitcode(status)

    def reap(self) -> None:
        """Kill what is left of it, if anything."""
        self.kill()
        if not self._reaped:
            self.wait()

    def _has_more(self, wait_s: float) -> bool:
        return bool(select.select([self._pipe], [], [], max(0.0, wait_s))[0])


def _run(body: Callable[[Tell], None], pipe: int) -> None:
    def tell(event: Event) -> None:
        os.write(pipe, json.dumps(event).encode() + b"\n")

    try:
        body(tell)
    except AssertionError as error:
        tell({"what": "broken", "said": f"{error}{_where(error)}"})
    except BaseException as error:
        said = "".join(traceback.format_exception(error))
        tell({"what": "broken", "said": f"unexpected: {said}"})
    sys.stderr.flush()


def _where(error: AssertionError) -> str:
    return f" ({traceback.extract_tb(error.__traceback__)[-1].name})"


def _stacks(pid: int) -> str:
    try:
        threads = os.listdir(f"/proc/{pid}/task")
        found = (open(f"/proc/{pid}/task/{thread}/wchan").read() for thread in threads)  # noqa: SIM115
        return ", ".join(found)
    except OSError as error:
        return str(error)
