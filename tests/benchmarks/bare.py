"""A server that does nothing but send one file: what the machine gives to whoever sends a file.

`python -m tests.benchmarks.bare FILE [WINDOW_MIB]`: whatever is asked for is answered with the
whole file, from a thread for each connection, 1 MiB at a time. Without a window the file stays
mapped as a whole: of all ways to send one this took the least processor time, but `send` waits for
pages that are not there, and with it whoever touches the connection. With one, a window after the
other is mapped, and its pages are there before any is sent. It checks nothing, and would die with
its disk.
"""

from __future__ import annotations

import argparse
import ctypes
import mmap
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

BLOCK_BYTES: Final = 1 << 20
_HEAD_END: Final = b"\r\n\r\n"
# Of Linux 5.14 and newer; Python 3.11 has no name for it.
_MADV_POPULATE_READ: Final = 22
_libc: Final = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    """Serve until it is killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("file", type=Path)
    parser.add_argument("window_mib", type=int, nargs="?")
    options = parser.parse_args()
    with options.file.open("rb") as file:
        size_bytes = os.fstat(file.fileno()).st_size
        window_bytes = (options.window_mib or 0) << 20
        whole = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            while True:
                connection, _ = listener.accept()
                parts = (
                    _windows(file.fileno(), size_bytes, window_bytes)
                    if window_bytes
                    else iter([memoryview(whole)])
                )
                sending = (connection, size_bytes, parts)
                threading.Thread(target=_serve, args=sending, daemon=True).start()


def _windows(fd: int, size_bytes: int, window_bytes: int) -> Iterator[memoryview]:
    for begin in range(0, size_bytes, window_bytes):
        length = min(window_bytes, size_bytes - begin)
        with mmap.mmap(fd, length, mmap.MAP_PRIVATE, offset=begin) as window:
            _populate(window)
            with memoryview(window) as content:
                yield content


def _populate(window: mmap.mmap) -> None:
    # The method of `window` would have the threads of all other connections wait.
    first = ctypes.c_char.from_buffer(window)
    if _libc.madvise(ctypes.byref(first), ctypes.c_size_t(len(window)), _MADV_POPULATE_READ):
        raise OSError(ctypes.get_errno(), "madvise")


def _serve(connection: socket.socket, size_bytes: int, parts: Iterator[memoryview]) -> None:
    with connection:
        request = b""
        while _HEAD_END not in request:
            if not (more := connection.recv(BLOCK_BYTES)):
                return
            request += more
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {size_bytes}\r\nConnection: close\r\n\r\n"
        connection.sendall(head.encode())
        for part in parts:
            for begin in range(0, len(part), BLOCK_BYTES):
                with part[begin : begin + BLOCK_BYTES] as block:
                    connection.sendall(block)


if __name__ == "__main__":
    main()
