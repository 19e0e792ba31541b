"""Calls that go to no worker: what they would have passed is closed all the same."""

from __future__ import annotations

import errno
import os
import resource
import socket
from array import array
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import suppress
from typing import cast

import pytest

from depot.device.__main__ import Lane
from depot.device.connection import Call, Connection, Queue
from depot.device.messages import (
    INLINE_ANSWER_BYTES,
    INLINE_CALL_BYTES,
    Passed,
    pack,
    receive,
    send,
    unpack,
)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    outlet, inlet = os.pipe()
    os.set_blocking(outlet, False)
    yield outlet, inlet
    os.close(outlet)


def test_what_was_passed_to_a_worker_that_has_just_ended_is_closed(pipe: tuple[int, int]) -> None:
    outlet, inlet = pipe
    queue = Queue(limit=1)
    queue.theirs.close()
    queue.add(Call(Future(), pack(1, Passed(inlet), 1 << 10)))
    os.close(inlet)
    assert os.read(outlet, 1) == b"", "somebody still has the other end"
    queue.close()


def test_a_call_for_which_the_socket_has_no_room_is_sent_later_and_in_its_turn() -> None:
    queue = Queue(limit=1000)
    futures: list[Future[object]] = [Future() for _ in range(100)]
    for number, future in enumerate(futures):
        queue.add(Call(future, pack(number, "x" * 8000, INLINE_CALL_BYTES)))
    sent = numbers_sent(queue)
    assert 0 < len(sent) < 99, "or there is room for all of them"
    futures[99].cancel()
    # Nobody answers, and yet nothing is lost.
    for _ in futures:
        queue.tick()
        sent += numbers_sent(queue)
    assert sent == list(range(99))
    assert not any(future.done() for future in futures[:99])
    queue.theirs.close()
    assert [call.future for call in queue.close()] == futures[:99]


def test_what_the_socket_had_no_room_for_fails_with_the_worker() -> None:
    queue = Queue(limit=1000)
    futures: list[Future[object]] = [Future() for _ in range(100)]
    for number, future in enumerate(futures):
        queue.add(Call(future, pack(number, "x" * 8000, INLINE_CALL_BYTES)))
    queue.theirs.close()
    assert [call.future for call in queue.close()] == futures


def numbers_sent(queue: Queue) -> list[int]:
    """Take what has been sent out of the worker's end."""
    queue.theirs.setblocking(False)
    numbers: list[int] = []
    with suppress(BlockingIOError):
        while message := receive(queue.theirs):
            numbers.append(message.number)
    return numbers


def test_a_call_for_which_no_descriptor_is_left_leaves_none_open(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    outlet, inlet = pipe
    made: list[int] = []

    def dup(fd: int) -> int:
        if made:
            raise OSError(errno.EMFILE, "injected")
        made.append(real_dup(fd))
        return made[0]

    real_dup = os.dup
    monkeypatch.setattr(os, "dup", dup)
    with pytest.raises(OSError, match="injected"):
        pack(1, (Passed(inlet), Passed(inlet)), 1 << 10)
    os.close(inlet)
    assert os.read(outlet, 1) == b"", "somebody still has the other end"


def test_a_call_beside_which_not_all_descriptors_arrive_fails_for_the_want_of_them() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ours, theirs:
        # Too long for one datagram, so that one of the descriptors would be the value itself.
        send(ours, pack(1, (Passed(0), Passed(1), "x" * 100), 10))
        free = os.dup(0)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free + 1, hard))
        try:
            message = receive(theirs)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert message is not None
    assert len(message.fds) == 1, "or this shows nothing"
    with pytest.raises(OSError, match="no descriptor is left") as raised:
        unpack(message)
    assert raised.value.errno == errno.EMFILE
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(free)


def test_a_connection_for_which_not_all_sockets_are_to_be_had_leaves_none_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[socket.socket] = []

    def pair(*kind: int) -> tuple[socket.socket, socket.socket]:
        if len(made) == 6:
            raise OSError(errno.EMFILE, "injected")
        made.extend(real_pair(*kind))
        return made[-2], made[-1]

    real_pair = socket.socketpair
    monkeypatch.setattr(socket, "socketpair", pair)
    with pytest.raises(OSError, match="injected"):
        Connection({"one": 1, "two": 1, "three": 1})
    assert [sock.fileno() for sock in made] == [-1] * 6


class FullSocket:
    """Takes no message beside which descriptors go.

    Attributes:
        sent: what it did take.
    """

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def sendmsg(self, buffers: list[bytes], beside: list[tuple[int, int, array[int]]]) -> int:
        if any(fds for _level, _kind, fds in beside):
            raise OSError(errno.ETOOMANYREFS, "injected")
        self.sent.append(b"".join(buffers))
        return len(self.sent[-1])


def test_whose_answer_cannot_be_sent_is_told_so() -> None:
    answers = FullSocket()
    lane = Lane("calls", cast("socket.socket", None), 1, cast("socket.socket", answers))
    lane.carry_out(pack(7, (bytes, (INLINE_ANSWER_BYTES + 1,)), INLINE_CALL_BYTES))
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        for content in answers.sent:
            ours.send(content)
        told = receive(theirs)
    assert told is not None
    assert (told.number, told.failed) == (7, True)
    error = unpack(told)
    assert isinstance(error, OSError)
    assert error.errno == errno.ETOOMANYREFS
