"""A server that does nothing but send one file: what the machine gives to whoever sends a file.

`python -m tests.benchmarks.bare FILE mapped|spliced`: whatever is asked for is answered with the
whole file, from a thread for each connection. "mapped": out of a mapping of the whole file, 1 MiB
at a time; of all ways to send one this takes the least processor time, but `send` waits for pages
that are not there, and with it whoever touches the connection. "spliced": references to the page
cache, through a pipe of 1 MiB, with as little waiting in the kernel as the agent lets wait. It
checks nothing, and would die with its disk.
"""

from __future__ import annotations

import argparse
import fcntl
import mmap
import os
import socket
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from depot.http.outlet import limit_waiting

BLOCK_BYTES: Final = 1 << 20
_HEAD_END: Final = b"\r\n\r\n"


def main() -> None:
    """Serve until it is killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("file", type=Path)
    parser.add_argument("how", choices=("mapped", "spliced"))
    options = parser.parse_args()
    with options.file.open("rb") as file:
        size_bytes = os.fstat(file.fileno()).st_size
        whole = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        send: Callable[[socket.socket], None] = partial(_send_mapped, memoryview(whole))
        if options.how == "spliced":
            send = partial(_splice, file.fileno(), size_bytes)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            while True:
                connection, _ = listener.accept()
                serving = (connection, size_bytes, send)
                threading.Thread(target=_serve, args=serving, daemon=True).start()


def _serve(
    connection: socket.socket, size_bytes: int, send: Callable[[socket.socket], None]
) -> None:
    with connection:
        request = b""
        while _HEAD_END not in request:
            if not (more := connection.recv(BLOCK_BYTES)):
                return
            request += more
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {size_bytes}\r\nConnection: close\r\n\r\n"
        connection.sendall(head.encode())
        send(connection)


def _send_mapped(whole: memoryview, connection: socket.socket) -> None:
    for begin in range(0, len(whole), BLOCK_BYTES):
        with whole[begin : begin + BLOCK_BYTES] as block:
            connection.sendall(block)


def _splice(fd: int, size_bytes: int, connection: socket.socket) -> None:
    limit_waiting(connection)
    outlet, inlet = os.pipe()
    try:
        fcntl.fcntl(inlet, fcntl.F_SETPIPE_SZ, BLOCK_BYTES)
        offset = 0
        while offset < size_bytes:
            loaded_bytes = os.splice(fd, inlet, BLOCK_BYTES, offset_src=offset)
            offset += loaded_bytes
            while loaded_bytes:
                loaded_bytes -= os.splice(outlet, connection.fileno(), loaded_bytes)
    finally:
        os.close(outlet)
        os.close(inlet)


if __name__ == "__main__":
    main()
