"""An HTTP server that serves a repository's files from memory, and misbehaves where it is told."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

Answer = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class FileServer:
    """What is served, what was asked for, and where."""

    files: Mapping[str, bytes]
    prefix: str = "/"
    answers: dict[str, Answer] = field(default_factory=dict)
    """What answers a path in another way than with its file."""
    asked: list[str] = field(default_factory=list)
    port: int = 0
    scheme: str = "http"

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}{self.prefix}"


def status(number: int, **headers: str) -> Answer:
    """Answer with a status and no body."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(number)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


def breaking_off(content: bytes) -> Answer:
    """Announce more than is sent."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content) + 1))
        handler.end_headers()
        handler.wfile.write(content)

    return answer


def falling_silent(until: threading.Event) -> Answer:
    """Send a head and then nothing."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        handler.wfile.flush()
        until.wait()

    return answer


@contextmanager
def serving(
    files: Mapping[str, bytes], prefix: str = "/", tls: ssl.SSLContext | None = None
) -> Iterator[FileServer]:
    """Serve files below a prefix until the block ends; over TLS where that is given."""
    served = FileServer(files, prefix, scheme="https" if tls else "http")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = unquote(self.path).removeprefix(served.prefix)
            served.asked.append(path)
            if path in served.answers:
                served.answers[path](self)
                self.close_connection = True
                return
            content = served.files.get(path)
            self.send_response(404 if content is None else 200)
            self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.port = server.server_address[1]
    if tls is not None:
        # The handshake is left to the thread of each connection.
        server.socket = tls.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
