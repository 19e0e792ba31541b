from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from depot.http.permit import Gate, Lent, PassedPermit
from depot.http.written import written_bytes


@pytest.fixture
def lent() -> Iterator[Lent]:
    lent = Lent()
    yield lent
    lent.close()


def pass_on(lent: Lent) -> tuple[PassedPermit, tuple[int, int]]:
    """What another process would get: both ends, as descriptors of its own."""
    ends = os.dup(lent.outlet), os.dup(lent.inlet)
    lent.passed()
    return PassedPermit(*ends), ends


def close(ends: tuple[int, int]) -> None:
    for end in ends:
        os.close(end)


def test_a_gate_that_was_shut_lets_nobody_through() -> None:
    gate = Gate()
    assert gate.hold()
    gate.let_go()
    gate.take_back()
    assert not gate.hold()
    assert not gate.hold()


def test_a_gate_is_shut_after_whoever_is_in_it_has_left() -> None:
    gate = Gate()
    assert gate.hold()
    shutting = threading.Thread(target=gate.take_back)
    shutting.start()
    assert not gate.shut
    gate.let_go()
    shutting.join()
    assert gate.shut


def test_a_passed_permit_is_held_and_let_go_as_often_as_wanted(lent: Lent) -> None:
    permit, ends = pass_on(lent)
    for _ in range(3):
        assert permit.hold()
        permit.let_go()
    close(ends)


def test_a_permit_that_was_taken_back_is_never_held_again(lent: Lent) -> None:
    permit, ends = pass_on(lent)
    assert lent.take_back()
    assert not permit.hold()
    assert not permit.hold()
    close(ends)


def test_a_permit_is_not_taken_from_whoever_holds_it(lent: Lent) -> None:
    permit, ends = pass_on(lent)
    assert permit.hold()
    assert not lent.take_back()
    permit.let_go()
    assert lent.take_back()
    close(ends)


def test_a_permit_ends_with_whoever_held_it(lent: Lent) -> None:
    permit, ends = pass_on(lent)
    assert permit.hold()
    assert not lent.take_back()
    close(ends)
    assert lent.take_back()


def test_a_permit_that_was_never_used_can_be_taken_back_at_once(lent: Lent) -> None:
    assert lent.take_back()


@pytest.fixture
def connection() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
    with ours, client:
        ours.setblocking(False)
        yield ours, client


def test_the_kernel_tells_to_the_byte_how_much_was_written(
    connection: tuple[socket.socket, socket.socket],
) -> None:
    ours, client = connection
    base_bytes = written_bytes(ours)
    assert base_bytes is not None
    sent_bytes = 0
    # More than the buffers take, in parts of odd sizes, of which the client reads some.
    for part in (1, 77_777, 8 << 20, 8 << 20):
        with suppress(BlockingIOError):
            sent_bytes += ours.send(bytes(part))
        assert written_bytes(ours) == base_bytes + sent_bytes
        client.recv(50_001)


def test_nothing_is_said_of_what_is_not_a_tcp_connection() -> None:
    ours, client = socket.socketpair()
    with ours, client:
        assert written_bytes(ours) is None
