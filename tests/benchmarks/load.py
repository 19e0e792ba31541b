"""Many small requests over some connections at once, from one thread that waits for all of them.

Each connection sends its next request when the last one was answered, so as many are under way as
there are connections. Requests are made beforehand: little of the machine goes into sending.
"""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

PATIENCE_S: Final = 60.0
_HEAD_END: Final = b"\r\n\r\n"
_RECEIVE_BYTES: Final = 65536


def put_head(url: str, size_bytes: int) -> bytes:
    """The head of a PUT request."""
    parts = urlsplit(url)
    target = f"{parts.path}?{parts.query}" if parts.query else parts.path
    head = f"PUT {target} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Length: {size_bytes}\r\n\r\n"
    return head.encode()


def put_request(url: str, body: bytes) -> bytes:
    """A whole PUT request, ready to be sent."""
    return put_head(url, len(body)) + body


def run(url: str, requests: Sequence[bytes], connections: int) -> float:
    """Send all of them to the server of `url`: seconds from the first sent to the last answered.

    Raises:
        RuntimeError: an answer was not 200, or none came.
    """
    parts = urlsplit(url)
    waiting = iter(requests)
    with selectors.DefaultSelector() as selector:
        lines = [_Line(parts.hostname or "", parts.port or 80) for _ in range(connections)]
        try:
            for line in lines:
                selector.register(line.socket, selectors.EVENT_READ, line)
            began_s = time.perf_counter()
            _serve(selector, waiting, sum(line.send_next(waiting) for line in lines))
            return time.perf_counter() - began_s
        finally:
            for line in lines:
                line.socket.close()


def _serve(selector: selectors.BaseSelector, waiting: Iterator[bytes], under_way: int) -> None:
    while under_way:
        if not (ready := selector.select(PATIENCE_S)):
            raise RuntimeError(f"{under_way} requests are not answered in {PATIENCE_S:.0f} s")
        for key, _ in ready:
            line: _Line = key.data
            if line.receive() and not line.send_next(waiting):
                under_way -= 1


@dataclass(slots=True)
class _Line:
    """One connection, and what came of the answer that it waits for."""

    socket: socket.socket
    received: bytes = b""

    def __init__(self, host: str, port: int) -> None:
        self.socket = socket.create_connection((host, port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.received = b""

    def send_next(self, waiting: Iterator[bytes]) -> bool:
        """Send one more request; False when there is none."""
        request = next(waiting, None)
        if request is not None:
            self.socket.sendall(request)
        return request is not None

    def receive(self) -> bool:
        """Take what came; whether that is the whole answer."""
        self.received += (more := self.socket.recv(_RECEIVE_BYTES))
        head, found, content = self.received.partition(_HEAD_END)
        if not more or (found and not head.startswith(b"HTTP/1.1 200")):
            raise RuntimeError(f"expected 200, found {self.received!r}")
        if not found or len(content) < _content_length(head):
            return False
        self.received = b""
        return True


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    raise RuntimeError(f"expected a Content-Length, found {head!r}")
