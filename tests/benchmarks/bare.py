"""A server that does nothing but send one file: what the machine gives to whoever sends a file.

`python -m tests.benchmarks.bare FILE`: whatever is asked for is answered with the whole file, which
stays mapped, from a thread for each connection, 1 MiB at a time. Of the ways to send a file this
took the least processor time. It checks nothing, and would die with its disk.
"""

from __future__ import annotations

import mmap
import socket
import sys
import threading
from pathlib import Path
from typing import Final

BLOCK_BYTES: Final = 1 << 20
_HEAD_END: Final = b"\r\n\r\n"


def main() -> None:
    """Serve until it is killed."""
    with Path(sys.argv[1]).open("rb") as file:
        content = memoryview(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=_serve, args=(connection, content), daemon=True).start()


def _serve(connection: socket.socket, content: memoryview) -> None:
    with connection:
        request = b""
        while _HEAD_END not in request:
            if not (more := connection.recv(BLOCK_BYTES)):
                return
            request += more
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(content)}\r\nConnection: close\r\n\r\n"
        connection.sendall(head.encode())
        for begin in range(0, len(content), BLOCK_BYTES):
            connection.sendall(content[begin : begin + BLOCK_BYTES])


if __name__ == "__main__":
    main()
