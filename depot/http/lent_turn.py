"""A turn that a worker process takes, with a client's socket that was lent to it.

It has the file open, so nothing passes through the agent and nothing is copied between the two.
No read of the device happens while it holds the permit to send.
"""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack
from dataclasses import dataclass

from depot.http.carrier import ReadInto
from depot.http.paired_turn import PairedTurn
from depot.http.permit import PassedPermit
from depot.http.turn import Outcome, Turn
from depot.streams.file_state import FileState
from depot.streams.verified_read import VerifiedRead


@dataclass(frozen=True, slots=True)
class Manner:
    """How to take a turn: what `Turn` says of the attributes of these names."""

    patient: bool = False
    mapped: bool = False
    state: FileState | None = None


@dataclass(frozen=True, slots=True)
class Done:
    """How a turn ended; `offset` is the first byte that it did not send."""

    offset: int
    outcome: Outcome


def take_lent_turn(
    fd: int, start: int, end: int, read: ReadInto | None, manner: Manner, lent: tuple[int, int, int]
) -> Done:
    """Send as much of bytes `start` to `end` of a file as one turn may.

    What is `lent` is the socket and both ends of the permit's pipe; all three are closed.

    Raises:
        OSError: there is no descriptor left.
    """
    with ExitStack() as held:
        number, outlet, inlet = lent
        held.callback(os.close, outlet)
        held.callback(os.close, inlet)
        sock = held.enter_context(socket.socket(fileno=number))
        # The file's number may be somebody else's before this has ended.
        own_fd = os.dup(fd)
        held.callback(os.close, own_fd)
        turn = Turn(own_fd, sock, start, end, read, permit=PassedPermit(outlet, inlet))
        turn.patient = manner.patient
        turn.mapped = manner.mapped
        turn.state = manner.state
        if manner.patient and isinstance(read, VerifiedRead):
            outcome = PairedTurn(turn, own_fd, read, end).run()
        else:
            outcome = turn.run()
        return Done(turn.offset, outcome)
