"""A proxy in front of a server that does things to what passes: cuts, corrupts, holds back."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import urlsplit

# The connection's own, which are not the next one's.
HOP_BY_HOP: Final = frozenset({"connection", "keep-alive", "transfer-encoding"})


class Mangler:
    """What a proxy does. Every hook is called in the thread of its request.

    Attributes:
        before_get: called with the number of each GET of an object, from 1 on.
        body: what becomes of the body of one.
        cut_after: how many bytes of its body are sent, of GETs by their number; None for all.
        header: what becomes of the name of a header; upper and lower case mean the same.
    """

    def __init__(self) -> None:
        self.gets = 0
        self.before_get: Callable[[int], None] = lambda _: None
        self.body: Callable[[int, bytes], bytes] = lambda _, body: body
        self.cut_after: Callable[[int], int | None] = lambda _: None
        self.header: Callable[[str], str] = lambda name: name
        self._lock = threading.Lock()

    def numbered(self) -> int:
        with self._lock:
            self.gets += 1
            return self.gets


@contextmanager
def mangling(upstream: str, mangler: Mangler) -> Iterator[str]:
    """Run a proxy for the block; its URL."""
    host = urlsplit(upstream).netloc

    class Handler(BaseHTTPRequestHandler):
        def _pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            number = mangler.numbered() if self.command == "GET" else 0
            if number:
                mangler.before_get(number)
            connection = http.client.HTTPConnection(host)
            connection.request(self.command, self.path, body, dict(self.headers))
            answer = connection.getresponse()
            content = answer.read()
            connection.close()
            if number:
                content = mangler.body(number, content)
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in {*HOP_BY_HOP, "content-length", "date", "server"}:
                    self.send_header(mangler.header(name), value)
            length = answer.headers["Content-Length"] if self.command == "HEAD" else len(content)
            self.send_header("Content-Length", str(length))
            self.send_header("Connection", "close")
            self.end_headers()
            kept = mangler.cut_after(number) if number else None
            self.wfile.write(content if kept is None else content[:kept])
            self.close_connection = True

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _pass_on  # noqa: N815

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
