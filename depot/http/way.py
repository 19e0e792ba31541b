"""How large bodies leave."""

from __future__ import annotations

import ipaddress
import socket
from enum import StrEnum


class Way(StrEnum):
    """How large bodies leave, where nothing has to look at the bytes.

    A block that is read into memory and sent from there stays in the processor's cache, which on
    this machine's own network is faster than references to pages. A network card takes those as
    they are, at a fraction of the processor time.
    """

    AUTO = "auto"
    """`COPY` to a client on this machine, `SPLICE` to any other."""
    COPY = "copy"
    """By whoever has the file open: read into memory, and sent from there."""
    SPLICE = "splice"
    """By whoever has the file open: references to the page cache, through a pipe of its own."""
    PIPE = "pipe"
    """By this process, from a pipe that whoever has the file open fills: no socket is lent."""

    def copies(self, sock: socket.socket) -> bool:
        """Tell whether bytes are to be copied on their way to a connection."""
        return self is Way.COPY or (self is Way.AUTO and is_local(sock))


def is_local(sock: socket.socket) -> bool:
    """Tell whether the other side of a connection is on this machine."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return True
    try:
        peer: str = sock.getpeername()[0]
        own: str = sock.getsockname()[0]
    except OSError:
        return False
    # Without the scope of an IPv6 address, or what a mapped IPv4 address begins with.
    bare = peer.partition("%")[0].removeprefix("::ffff:")
    return peer == own or ipaddress.ip_address(bare).is_loopback
