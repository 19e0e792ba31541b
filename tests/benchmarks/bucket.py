"""As much of S3 as a download needs, over an archive in a directory, as fast as files can be sent.

`python -m tests.benchmarks.bucket DIRECTORY [BYTES_PER_S]`: prints its port. All that it sends goes
over one link of that rate, if there is one. moto's server, with which the tests are run, reads the
whole object for each range.
"""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar, Final

from agent.snapshots.files import FileArchive

_PIECE_BYTES: Final = 256 << 10


class Link:
    """What is sent over it waits for what came before."""

    def __init__(self, bytes_per_s: float) -> None:
        self._bytes_per_s = bytes_per_s
        self._turn = threading.Lock()
        self._free_at_s = 0.0

    def take(self, size_bytes: int) -> None:
        """Wait until so many bytes may go."""
        with self._turn:
            begin_s = max(self._free_at_s, time.monotonic())
            self._free_at_s = begin_s + size_bytes / self._bytes_per_s
        time.sleep(max(0.0, begin_s - time.monotonic()))


class Bucket(BaseHTTPRequestHandler):
    """HEAD and GET with a range. `/<bucket>/<name>` is the name in the archive of that bucket."""

    protocol_version = "HTTP/1.1"
    directory: ClassVar[Path]
    link: ClassVar[Link | None] = None

    def do_HEAD(self) -> None:
        self._answer(None)

    def do_GET(self) -> None:
        start, stop = re.findall(r"\d+", self.headers["Range"])
        self._answer((int(start), int(stop) + 1))

    def _answer(self, bounds: tuple[int, int] | None) -> None:
        _, bucket, name = self.path.partition("?")[0].split("/", 2)
        head = FileArchive(self.directory / bucket).head(name)
        size = head.stored_bytes
        start, stop = bounds or (0, size)
        self.send_response(HTTPStatus.PARTIAL_CONTENT if bounds else HTTPStatus.OK)
        self.send_header("ETag", f'"{head.version}"')
        self.send_header("Content-Length", str(stop - start))
        for key, value in head.metadata.items().items():
            self.send_header(f"x-amz-meta-{key}", value)
        if bounds:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{size}")
        self.end_headers()
        if bounds:
            self._send(self.directory / bucket / name, start, stop)

    def _send(self, path: Path, start: int, stop: int) -> None:
        self.wfile.flush()
        with path.open("rb") as file:
            while start < stop:
                size_bytes = stop - start
                if self.link is not None:
                    size_bytes = min(size_bytes, _PIECE_BYTES)
                    self.link.take(size_bytes)
                start += os.sendfile(self.wfile.fileno(), file.fileno(), start, size_bytes)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


def main() -> None:
    """Serve until it is told to end."""
    directory, *rate = sys.argv[1:]
    Bucket.directory = Path(directory)
    Bucket.link = Link(float(rate[0])) if rate else None
    server = ThreadingHTTPServer(("127.0.0.1", 0), Bucket)
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
