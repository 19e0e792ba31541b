"""Connections that take next to nothing and stay: idle ones, and ones that read slowly."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlsplit

# An agent takes so many connections from one address; loopback has plenty of addresses.
PER_ADDRESS: Final = 200
PATIENCE_S: Final = 30.0
# 8 KiB/s each: slow, and still above `http.min_body_bytes_per_s`.
SIP_BYTES: Final = 2048
SIP_EVERY_S: Final = 0.25
RECEIVE_BUFFER_BYTES: Final = 65536


class Crowd:
    """Connections to the server of `url`, held for a block.

    Args:
        url: of a small artifact, which each idle connection asks for once.
        idle: how many of these.
        large_url: what the slow ones ask for and never have whole.
        slow: how many of these.
    """

    def __init__(self, url: str, idle: int, large_url: str = "", slow: int = 0) -> None:
        self._url, self._large_url = url, large_url
        self._idle, self._slow = idle, slow
        self._made = 0
        self._slow_ones: list[socket.socket] = []
        self._stack = ExitStack()
        self._ended = threading.Event()
        self._sipping = threading.Thread(target=self._sip, name="slow-readers", daemon=True)

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for _ in range(self._idle):
                self._ask_whole(self._open(stack), self._url)
            for _ in range(self._slow):
                connection = self._open(stack)
                connection.sendall(_request(self._large_url))
                connection.setblocking(False)
                self._slow_ones.append(connection)
            self._sipping.start()
            stack.callback(self._end)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def _end(self) -> None:
        self._ended.set()
        self._sipping.join()

    def _open(self, stack: ExitStack) -> socket.socket:
        parts = urlsplit(self._url)
        address = (f"127.0.0.{2 + self._made // PER_ADDRESS}", 0)
        self._made += 1
        connection = stack.enter_context(socket.socket())
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        connection.settimeout(PATIENCE_S)
        connection.bind(address)
        connection.connect((parts.hostname, parts.port))
        return connection

    def _ask_whole(self, connection: socket.socket, url: str) -> None:
        connection.sendall(_request(url))
        received = b""
        while b"\r\n\r\n" not in received:
            received += _some(connection)
        head, _, content = received.partition(b"\r\n\r\n")
        fields = (line.partition(b":") for line in head.lower().split(b"\r\n"))
        left = next(int(value) for name, _, value in fields if name == b"content-length")
        left -= len(content)
        while left:
            left -= len(_some(connection))

    def _sip(self) -> None:
        while not self._ended.wait(SIP_EVERY_S):
            for connection in self._slow_ones:
                with suppress(BlockingIOError):
                    if not connection.recv(SIP_BYTES):
                        raise RuntimeError("a slow reader was cut off")


def _some(connection: socket.socket) -> bytes:
    if not (found := connection.recv(1 << 16)):
        raise RuntimeError("an idle connection was cut off")
    return found


def _request(url: str) -> bytes:
    parts = urlsplit(url)
    return f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode()


def settled(seconds: float = 0.5) -> None:
    """Let a server take note of what was closed, and of what has come."""
    time.sleep(seconds)
