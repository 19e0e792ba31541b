"""A server that accepts connections and never answers."""

from __future__ import annotations

import socket
from types import TracebackType
from typing import Self


class SilentServer:
    """Its backlog is all that there is: connections are made, and nobody looks at them."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._listener.close()
