"""The worker process of one dataset: carries out calls on it until its agent is gone.

`python -m depot.device` with a JSON object of what was inherited; started by
`depot.device.process` alone. Rules kept here:

- A thread takes a call, carries it out, and sends the answer; as many calls run at once as the
  lane has threads, which are started when needed.
- It ends when its agent closes the sockets or dies, however that happened; what hangs in the kernel
  keeps the process, and nothing of anybody else's.
- It leaves signals to the agent: a SIGTERM to the whole group must not end it before the drain did.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import sys
import threading
from contextlib import suppress
from typing import Any, Final

from depot.device import resident
from depot.device.messages import (
    INLINE_ANSWER_BYTES,
    Message,
    pack,
    pack_failure,
    receive,
    send,
    unpack,
)
from depot.freed_memory import give_back_large
from depot.streams import arena

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NAME: Final = 15


class Lane:
    """Threads that serve the calls from one socket."""

    def __init__(self, name: str, sock: socket.socket, limit: int, answers: socket.socket) -> None:
        self._name = name
        self._socket = sock
        self._limit = limit
        self._answers = answers
        self._lock = threading.Lock()
        self._started = 0
        self._idle = 0

    def start_thread(self) -> None:
        """Start one more thread, which waits for a call."""
        with self._lock:
            self._started += 1
            self._idle += 1
            name = f"{self._name}-{self._started}"
        threading.Thread(target=self._serve, name=name, daemon=True).start()

    def _serve(self) -> None:
        while (call := self._next()) is not None:
            with self._lock:
                self._idle -= 1
                alone = not self._idle and self._started < self._limit
            if alone:
                self.start_thread()
            self.carry_out(call)
            del call
            with self._lock:
                self._idle += 1
        os._exit(0)  # the agent is gone: what was acknowledged is durable, and locks end here

    def _next(self) -> Message | None:
        try:
            return receive(self._socket)
        except OSError:
            return None

    def carry_out(self, call: Message) -> None:
        """Make a call and send its answer; at least why that cannot be sent."""
        answer = _answer_to(call)
        try:
            send(self._answers, answer)
        except OSError as error:
            answer.drop()
            with suppress(OSError):  # the agent is gone; `_next` finds out
                send(self._answers, pack_failure(call.number, error))


def _answer_to(call: Message) -> Message:
    try:
        function, args = unpack(call)  # type: ignore[misc]
        return pack(call.number, function(*args), INLINE_ANSWER_BYTES)  # type: ignore[has-type]
    except BaseException as error:  # a task root: whatever happened belongs to the caller
        return pack_failure(call.number, error)


def main(arguments: dict[str, Any]) -> None:
    """Serve until the agent is gone."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    _die_with(arguments["parent"])
    give_back_large()
    resident.begin_epoch(arguments["epoch"], arguments["parent"])
    if arguments["arena"] is not None:
        arena.share(arguments["arena"])
    answers = socket.socket(fileno=arguments["answers"])
    for name, (fd, limit) in arguments["lanes"].items():
        Lane(name, socket.socket(fileno=fd), limit, answers).start_thread()
    threading.Event().wait()


def _die_with(parent: int) -> None:
    # The end of the sockets says the same; not to a process that was stopped.
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.prctl(_PR_SET_NAME, b"depot-device", 0, 0, 0)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
