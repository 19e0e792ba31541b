"""Calls that go to no worker: what they would have passed is closed all the same."""

from __future__ import annotations

import errno
import os
import resource
import socket
from collections.abc import Iterator
from concurrent.futures import Future

import pytest

from depot.device.connection import Call, Queue
from depot.device.messages import Passed, pack, receive, send, unpack


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
