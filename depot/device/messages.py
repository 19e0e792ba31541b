"""Messages between the agent and a worker process, both ours: pickles over a private socketpair.

A message is one datagram of a `SOCK_SEQPACKET` socket. What is too large for one travels in a
memfd; descriptors that are arguments travel beside it. The sockets are made by the agent, inherited
by the worker and known to nobody else, so what arrives is ours.
"""

from __future__ import annotations

import errno
import os
import pickle
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Final

INLINE_CALL_BYTES: Final = 8 << 10
"""So that all calls that a worker may hold at once fit into the socket of one that is stopped, and
sending one never blocks."""
INLINE_ANSWER_BYTES: Final = 96 << 10
_MAX_FDS: Final = 4
_HEAD: Final = struct.Struct(">QBB")
_IN_MEMFD: Final = 1
_FAILED: Final = 2


class _Beside(threading.local):
    """Descriptors beside the message that this thread packs or unpacks."""

    def __init__(self) -> None:
        self.fds: list[int] = []


_beside = _Beside()


class Passed:
    """A descriptor as an argument: what is called gets one of its own, to close."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def __reduce__(self) -> tuple[Callable[[int], int], tuple[int]]:
        _beside.fds.append(self._fd)
        return _take_beside, (len(_beside.fds) - 1,)


def _take_beside(place: int) -> int:
    return _beside.fds[place]


@dataclass(frozen=True, slots=True)
class Message:
    """One call or answer; owns its descriptors until it is sent or unpacked.

    Attributes:
        failed: an answer that is an exception.
        complete: what came beside it has arrived.
    """

    number: int
    body: bytes
    fds: tuple[int, ...] = ()
    failed: bool = False
    in_memfd: bool = False
    complete: bool = True

    def drop(self) -> None:
        """Close the descriptors of a message that goes nowhere."""
        for fd in self.fds:
            os.close(fd)


def pack(number: int, value: object, inline_bytes: int, *, failed: bool = False) -> Message:
    """Make a message of a picklable value.

    Raises:
        whatever pickling raises.
    """
    _beside.fds = []
    try:
        body = pickle.dumps(value, protocol=5)
        beside = _beside.fds
    finally:
        _beside.fds = []
    in_memfd = len(body) > inline_bytes
    with ExitStack() as unless_packed:
        fds: list[int] = []
        for fd in beside:
            fds.append(os.dup(fd))
            unless_packed.callback(os.close, fds[-1])
        if in_memfd:
            fds.append(_memfd_of(body))
            body = b""
        unless_packed.pop_all()
    return Message(number, body, tuple(fds), failed, in_memfd)


def unpack(message: Message) -> object:
    """Return the value of a message, which owns the descriptors that were beside it.

    Raises:
        OSError: EMFILE, when this process had none left for them.
        whatever unpickling raises.
    """
    if not message.complete:
        message.drop()
        raise OSError(errno.EMFILE, "no descriptor is left for those beside a message")
    fds = list(message.fds)
    body = _read_memfd(fds.pop()) if message.in_memfd else message.body
    _beside.fds = fds
    try:
        return pickle.loads(body)
    except BaseException:
        for fd in fds:
            os.close(fd)
        raise
    finally:
        _beside.fds = []


def send(sock: socket.socket, message: Message) -> None:
    """Send a message and close its descriptors here.

    Raises:
        OSError: the other process is gone, or takes nothing (BlockingIOError: still to be sent).
    """
    flags = _IN_MEMFD * message.in_memfd | _FAILED * message.failed
    head = _HEAD.pack(message.number, flags, len(message.fds))
    socket.send_fds(sock, [head, message.body], message.fds)
    message.drop()


def receive(sock: socket.socket) -> Message | None:
    """Wait for a message; None at the end of the connection.

    Raises:
        OSError: the connection is lost (BlockingIOError: there is none now).
    """
    content, fds, _flags, _address = socket.recv_fds(
        sock, INLINE_ANSWER_BYTES + 64, _MAX_FDS, socket.MSG_CMSG_CLOEXEC
    )
    if not content:
        return None
    number, flags, count = _HEAD.unpack_from(content)
    return Message(
        number,
        content[_HEAD.size :],
        tuple(fds),
        failed=bool(flags & _FAILED),
        in_memfd=bool(flags & _IN_MEMFD),
        complete=len(fds) == count,
    )


def pack_failure(number: int, error: BaseException) -> Message:
    """Make the answer that is an exception; one that cannot cross becomes its description."""
    with suppress(Exception):
        packed = pickle.dumps(error, protocol=5)
        if type(pickle.loads(packed)) is type(error):
            return pack(number, error, INLINE_ANSWER_BYTES, failed=True)
    plain = RuntimeError(f"{type(error).__name__}: {error}")
    return pack(number, plain, INLINE_ANSWER_BYTES, failed=True)


def _memfd_of(body: bytes) -> int:
    fd = os.memfd_create("message", os.MFD_CLOEXEC)
    try:
        # Written, not mapped: to map a page takes longer than to copy what is in it.
        left, at = memoryview(body), 0
        while left:
            count = os.pwrite(fd, left, at)
            left, at = left[count:], at + count
    except BaseException:
        os.close(fd)
        raise
    return fd


def _read_memfd(fd: int) -> bytes:
    try:
        size_bytes = os.fstat(fd).st_size
        content = os.pread(fd, size_bytes, 0)
        while len(content) < size_bytes and (part := os.pread(fd, size_bytes, len(content))):
            content += part  # more than one call reads
        return content
    finally:
        os.close(fd)
