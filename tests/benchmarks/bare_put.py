"""A server that does with short PUTs what none can do without: what is left for a store.

`python -m tests.benchmarks.bare_put DIRECTORY...`: PUT /.../<sha256> compares the body's hash,
has it written to each directory and answers once it is durable there, under its name. Two processes
for each directory: while one waits for the disk the other writes, and each takes half of what there
is, with one sync for the contents and one for the names of all of them.

It takes requests only in one piece, reads no header but the length, and has no generation to
compare, no quota, no lock, no record, no deadline and no answer for anything that goes wrong: it
would end.
"""

from __future__ import annotations

import asyncio
import hashlib
import multiprocessing
import os
import pickle
import re
import signal
import socket
import sys
from collections import deque
from pathlib import Path
from typing import Final

from tests.benchmarks.raw import write_durably

PROCESSES: Final = 2
MOST_MESSAGE_BYTES: Final = 1 << 20
_REQUEST: Final = re.compile(rb"PUT [^ ?]*/([0-9a-f]{64})[ ?].*\r\nContent-Length: (\d+)\r\n", re.S)
_ANSWER: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


class Put:
    """One body, and the connection that is answered once every directory has it."""

    __slots__ = ("content", "left", "name", "transport")

    def __init__(self, name: str, content: bytes, left: int, transport: asyncio.Transport) -> None:
        self.name = name
        self.content = content
        self.left = left
        self.transport = transport

    def written(self) -> None:
        """One more directory has it."""
        self.left -= 1
        if not self.left:
            self.transport.write(_ANSWER)


class Directory:
    """Has puts written by processes of its own; made before there is an event loop."""

    def __init__(self, path: Path) -> None:
        self.waiting: deque[Put] = deque()
        self._writing: dict[socket.socket, list[Put]] = {}
        self._free = [_writer(path) for _ in range(PROCESSES)]

    def listen(self) -> None:
        """Hear what the processes say, on the running loop."""
        for writer in self._free:
            asyncio.get_running_loop().add_reader(writer, self._ended, writer)

    def begin(self) -> None:
        """Give what waits to processes that are free."""
        while self.waiting and self._free:
            there = len(self.waiting) + sum(map(len, self._writing.values()))
            most = min(len(self.waiting), -(-there // PROCESSES))
            puts = [self.waiting.popleft() for _ in range(most)]
            writer = self._free.pop()
            self._writing[writer] = puts
            writer.send(pickle.dumps([(put.name, put.content) for put in puts]))

    def _ended(self, writer: socket.socket) -> None:
        if not writer.recv(1):
            raise RuntimeError("a process that writes has ended")
        puts = self._writing.pop(writer)
        self._free.append(writer)
        self.begin()
        for put in puts:
            put.written()


class Connection(asyncio.Protocol):
    """Takes one put after the other, each in one piece."""

    def __init__(self, directories: list[Directory]) -> None:
        self._directories = directories
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        request = _REQUEST.match(data)
        head, _, content = data.partition(b"\r\n\r\n")
        if request is None or len(content) != int(request[2]):
            raise ValueError(f"no whole PUT: {head!r}")
        name = request[1].decode()
        if hashlib.sha256(content).hexdigest() != name:
            raise ValueError(f"not {name}")
        put = Put(name, content, len(self._directories), self._transport)
        for directory in self._directories:
            if not directory.waiting:  # begun with what else comes in this turn
                asyncio.get_running_loop().call_soon(directory.begin)
            directory.waiting.append(put)


def main() -> None:
    """Serve until it is told to end."""
    directories = [Directory(Path(each)) for each in sys.argv[1:]]
    asyncio.run(_serve(directories))


async def _serve(directories: list[Directory]) -> None:
    for directory in directories:
        directory.listen()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, sys.exit)  # which ends the processes
    server = await loop.create_server(lambda: Connection(directories), "127.0.0.1", 0)
    await server.serve_forever()


def _writer(path: Path) -> socket.socket:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MOST_MESSAGE_BYTES)
    fork = multiprocessing.get_context("fork")
    fork.Process(target=_write, args=(ours, theirs, path), daemon=True).start()
    theirs.close()
    return ours


def _write(ours: socket.socket, theirs: socket.socket, path: Path) -> None:
    ours.close()
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    while message := theirs.recv(MOST_MESSAGE_BYTES):
        write_durably(fd, pickle.loads(message))
        theirs.send(b"1")


if __name__ == "__main__":
    main()
