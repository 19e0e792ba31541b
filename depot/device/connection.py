"""One worker process and its calls: those it has, and those that wait for their turn.

Rules kept here: a call that was given up before it was sent never is; what a worker holds at once
is bounded by its threads, so that sending hardly ever finds no room, and then is done later; when
it is over, everything that has no answer fails.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from depot.device.messages import Message, send

_LATER: Final = frozenset({errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM, errno.ETOOMANYREFS})
"""No room in the socket, or for what goes through it: the worker is there."""
_PACKAGE_PARENT: Final = str(Path(__file__).parents[2])


@dataclass(slots=True)
class Call:
    """A call that has no answer yet.

    Attributes:
        ticks: since it was sent; counted, so that it does not age while this process is stopped.
        begun: it cannot be given up any more.
    """

    future: Future[Any]
    message: Message
    ticks: int = 0
    begun: bool = False

    def begin(self) -> bool:
        """Let nobody give it up any more; False when somebody has. Idempotent."""
        self.begun = self.begun or self.future.set_running_or_notify_cancel()
        return self.begun


class Queue:
    """The calls of one kind."""

    def __init__(self, limit: int) -> None:
        self._socket, self.theirs = _socket_pair()
        self.limit = limit
        self._sent: dict[int, Call] = {}
        self._waiting: deque[Call] = deque()

    def add(self, call: Call) -> None:
        """Send a call now or in its turn."""
        self._waiting.append(call)
        self._send_waiting()

    def answered(self, number: int) -> Call | None:
        """Take out the call that has its answer, and send the next."""
        call = self._sent.pop(number, None)
        if call is not None:
            self._send_waiting()
        return call

    def tick(self) -> None:
        """Let the calls that the worker has age, and try again what found no room."""
        for call in self._sent.values():
            call.ticks += 1
        self._send_waiting()

    def overdue(self, most_ticks: int) -> int:
        """How many calls have had their time."""
        return sum(call.ticks > most_ticks for call in self._sent.values())

    def close(self) -> list[Call]:
        """Send nothing more; the calls that get no answer."""
        self._socket.close()
        left = list(self._sent.values())
        for call in self._waiting:
            call.message.drop()
            if call.begin():
                left.append(call)
        self._sent.clear()
        self._waiting.clear()
        return left

    def _send_waiting(self) -> None:
        while self._waiting and len(self._sent) < self.limit:
            call = self._waiting.popleft()
            if not call.begin():
                call.message.drop()
                continue
            try:
                send(self._socket, call.message)
            except OSError as error:
                if error.errno in _LATER:
                    self._waiting.appendleft(call)
                    return
                # The worker's end is on the way, and fails it with the others.
                call.message.drop()
            self._sent[call.message.number] = call


class Connection:
    """The sockets of one worker process, and the process once `run` has started it.

    Attributes:
        answers: where its answers arrive.
        ended: the process is gone, and with it its locks.
        over: nothing is sent to it or expected of it any more.

    Raises:
        OSError: there is no descriptor left for the sockets.
    """

    def __init__(self, limits: Mapping[str, int]) -> None:
        self.queues: dict[str, Queue] = {}
        with ExitStack() as unless_made:
            self.answers, self._their_answers = _socket_pair()
            unless_made.callback(self.answers.close)
            unless_made.callback(self._their_answers.close)
            for name, limit in limits.items():
                queue = self.queues[name] = Queue(limit)
                unless_made.callback(queue.close)
                unless_made.callback(queue.theirs.close)
            unless_made.pop_all()
        self.process: subprocess.Popen[bytes] | None = None
        self.ended = threading.Event()
        self.over = False
        self._lock = threading.Lock()
        self._number = 0

    @property
    def pid(self) -> int | None:
        """The process, as long as it is there."""
        return self.process.pid if self.process and not self.ended.is_set() else None

    def next_number(self) -> int:
        """A number for one call."""
        with self._lock:
            self._number += 1
            return self._number

    def add(self, lane: str, call: Call) -> bool:
        """Queue a call; False when the worker is over."""
        with self._lock:
            if self.over:
                call.message.drop()
                return False
            self.queues[lane].add(call)
            return True

    def answered(self, number: int) -> Call | None:
        """Take out the call that has its answer."""
        with self._lock:
            calls = (queue.answered(number) for queue in self.queues.values())
            return next((call for call in calls if call is not None), None)

    def tick(self) -> None:
        """Let all calls age."""
        with self._lock:
            for queue in self.queues.values():
                queue.tick()

    def overdue(self, lane: str, most_ticks: int) -> int:
        """How many calls of a lane have had their time."""
        with self._lock:
            return self.queues[lane].overdue(most_ticks)

    def close(self) -> list[Call]:
        """Let the worker end; the calls that get no answer."""
        with self._lock:
            self.over = True
            self.answers.close()
            return [call for queue in self.queues.values() for call in queue.close()]

    def kill(self) -> None:
        """End the process, unless it has ended; what hangs in the kernel ends later."""
        if self.process is not None:
            self.process.kill()

    def run(self, arena_fd: int | None) -> None:
        """Start the process and wait for its end, in a thread of its own.

        The process is told of the end of the thread that started it, so that has to live as long.

        Raises:
            OSError: it cannot be started.
        """
        theirs = [self._their_answers, *(queue.theirs for queue in self.queues.values())]
        try:
            self.process = self._start(arena_fd)
        finally:
            for sock in theirs:
                sock.close()
            if self.process is None:
                self.ended.set()
        self.process.wait()
        self.ended.set()

    def _start(self, arena_fd: int | None) -> subprocess.Popen[bytes]:
        lanes = {name: (queue.theirs.fileno(), queue.limit) for name, queue in self.queues.items()}
        inherited = {
            "epoch": secrets.token_hex(8),
            "parent": os.getpid(),
            "answers": self._their_answers.fileno(),
            "lanes": lanes,
            "arena": arena_fd,
        }
        fds = [self._their_answers.fileno(), *(fd for fd, _ in lanes.values())]
        paths = [_PACKAGE_PARENT, os.environ.get("PYTHONPATH", "")]
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "depot.device", json.dumps(inherited)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=fds if arena_fd is None else [*fds, arena_fd],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
        )


def _socket_pair() -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    return ours, theirs
