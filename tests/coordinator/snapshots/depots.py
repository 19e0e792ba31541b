"""Depots that do what a test says, for who reads ranges of artifacts from sleds."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

DRIP_S: Final = 0.01


class Depot:
    """One depot.

    Attributes:
        held: artifacts, by their hash.
        body: what becomes of the bytes of an answer.
        cut_after: how many bytes of an answer are sent; None for all.
        drips: it sends an answer byte by byte, and never gets to its end.
        asked: how often it was.
    """

    def __init__(self) -> None:
        self.held: dict[str, bytes] = {}
        self.body: Callable[[bytes], bytes] = lambda body: body
        self.cut_after: int | None = None
        self.drips = False
        self.asked = 0
        self.url = ""


@contextmanager
def serving_ranges() -> Iterator[Depot]:
    """Run a depot for the block."""
    depot, closing = Depot(), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            depot.asked += 1
            self.close_connection = True
            content = depot.held.get(self.path.rpartition("/")[2])
            if content is None:
                self.send_error(404)
                return
            bounds = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers["Range"])
            assert bounds is not None
            start, last = int(bounds[1]), int(bounds[2])
            part = depot.body(content[start : last + 1])
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{last}/{len(content)}")
            self.send_header("Content-Length", str(last + 1 - start))
            self.end_headers()
            while depot.drips and not closing.wait(DRIP_S):
                self.wfile.write(part[:1])
            self.wfile.write(part if depot.cut_after is None else part[: depot.cut_after])

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    depot.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield depot
    finally:
        closing.set()
        server.shutdown()
        thread.join()
        server.server_close()
