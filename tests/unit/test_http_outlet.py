from __future__ import annotations

import socket
from contextlib import suppress

import pytest

from depot.http.outlet import Outlet, limit_waiting
from depot.streams.sources import Pace

MIB = 1 << 20
BLOCK = bytes(MIB)
PACE = Pace(idle_timeout_s=1, min_bytes_per_s=1)


def take_all(limited: bool) -> int:
    """How many bytes a connection takes whose client reads nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)
        client.connect(listener.getsockname())
        ours, _ = listener.accept()
    with ours, client:
        ours.setblocking(False)
        if limited:
            limit_waiting(ours)
        taken_bytes = 0
        with suppress(BlockingIOError):
            while True:
                taken_bytes += ours.send(BLOCK)
        return taken_bytes


def test_s1_little_waits_in_the_kernel_for_a_client_that_takes_nothing() -> None:
    assert take_all(limited=True) < MIB
    assert take_all(limited=False) > MIB, "or this shows nothing"


def test_a_socket_without_such_a_limit_is_left_as_it_is() -> None:
    ours, client = socket.socketpair()
    with ours, client:
        limit_waiting(ours)
        assert ours.send(b"x") == 1


@pytest.mark.parametrize(("source", "is_local"), [("127.0.0.1", True), ("127.0.0.2", False)])
def test_a_client_with_this_address_is_local(source: str, is_local: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname(), source_address=(source, 0))
        ours, _ = listener.accept()
    with ours, client:
        assert Outlet(ours, PACE).is_local() is is_local


def test_who_is_gone_or_has_no_address_is_not_local() -> None:
    ours, client = socket.socketpair()
    with ours, client:
        assert not Outlet(ours, PACE).is_local()
    assert not Outlet(ours, PACE).is_local()


def test_a_connection_that_was_cut_is_cut_for_everybody_who_has_it() -> None:
    ours, client = socket.socketpair()
    with ours, client, ours.dup() as lent:
        Outlet(ours, PACE).cut()
        assert client.recv(1) == b""
        with pytest.raises(BrokenPipeError):
            lent.send(b"x")
