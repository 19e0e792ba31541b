from __future__ import annotations

import socket

import pytest

from depot.http.way import Way, is_local


class FakeSocket(socket.socket):
    """A socket that says of itself what it is told to."""

    def __init__(self, own: str, peer: str) -> None:
        super().__init__(socket.AF_INET6 if ":" in own else socket.AF_INET)
        self._own, self._peer = own, peer

    def getsockname(self) -> tuple[str, int]:
        return self._own, 1

    def getpeername(self) -> tuple[str, int]:
        return self._peer, 2


@pytest.mark.parametrize(
    ("own", "peer", "local"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "127.0.0.2", True),
        ("192.0.2.7", "192.0.2.7", True),
        ("192.0.2.7", "192.0.2.8", False),
        ("::1", "::1", True),
        ("::ffff:127.0.0.1", "::ffff:127.0.0.2", True),
        ("fe80::1%eth0", "fe80::2%eth0", False),
        ("fe80::1%eth0", "fe80::1%eth0", True),
    ],
)
def test_a_client_on_this_machine_is_known(own: str, peer: str, local: bool) -> None:
    with FakeSocket(own, peer) as sock:
        assert is_local(sock) is local
        assert Way.AUTO.copies(sock) is local
        assert Way.COPY.copies(sock)
        assert not Way.SPLICE.copies(sock)
        assert not Way.PIPE.copies(sock)


def test_a_connection_that_has_ended_is_nobodys() -> None:
    with socket.socket() as sock:
        assert not is_local(sock)


def test_what_has_no_address_is_on_this_machine() -> None:
    ours, client = socket.socketpair()
    with ours, client:
        assert is_local(ours)
