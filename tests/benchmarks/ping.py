"""How long a server stands still: it is asked whether it lives, every few milliseconds.

In a process of its own: what a benchmark does with a large answer would count as the server's.
"""

from __future__ import annotations

import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

PING_EVERY_S: Final = 0.005
PATIENCE_S: Final = 60.0


@dataclass(slots=True)
class Longest:
    """How long the slowest answer took, once the block has ended."""

    wait_s: float = 0.0


@contextmanager
def pinging(url: str) -> Iterator[Longest]:
    """Ask an agent during a block."""
    command = [sys.executable, "-m", "tests.benchmarks.ping", url]
    longest = Longest()
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()  # it has begun
        yield longest
        process.stdin.close()
        longest.wait_s = float(process.stdout.readline())


def _ping(url: str) -> float:
    """Ask until standard input ends."""
    parts = urlsplit(url)
    request = f"GET /health/live HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode()
    longest_s = 0.0
    with socket.create_connection((parts.hostname, parts.port), PATIENCE_S) as connection:
        print(flush=True)
        while True:
            began_s = time.perf_counter()
            connection.sendall(request)
            if not connection.recv(65536):
                raise ConnectionError(f"{url} ended the connection")
            longest_s = max(longest_s, time.perf_counter() - began_s)
            if select.select([sys.stdin], [], [], PING_EVERY_S)[0]:
                return longest_s


if __name__ == "__main__":
    print(_ping(sys.argv[1]))
