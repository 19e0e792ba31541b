"""Calls that go to no worker: what they would have passed is closed all the same."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from concurrent.futures import Future

import pytest

from depot.device.connection import Call, Queue
from depot.device.messages import Passed, pack


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
