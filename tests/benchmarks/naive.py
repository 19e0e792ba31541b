"""A durable store of small files as it is first written: a handler, a thread pool, fsync.

`python -m tests.benchmarks.naive DIRECTORY...`: PUT /<sha256> writes the body to each directory in
turn, with one fsync for each file. The names are not synced, which flatters it.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
from pathlib import Path

from aiohttp import web


def main() -> None:
    """Serve until it is told to end."""
    directories = [Path(each) for each in sys.argv[1:]]

    async def put(request: web.Request) -> web.Response:
        name, content = request.match_info["sha256"], await request.read()
        if hashlib.sha256(content).hexdigest() != name:
            raise web.HTTPBadRequest
        await asyncio.to_thread(_store, directories, name, content)
        return web.json_response({"successful_writes": len(directories)})

    app = web.Application()
    app.router.add_put("/{sha256}", put)
    web.run_app(app, host="127.0.0.1", port=0, print=None, access_log=None)


def _store(directories: list[Path], name: str, content: bytes) -> None:
    for directory in directories:
        staged = directory / f"{name}.part"
        with staged.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        staged.rename(directory / name)


if __name__ == "__main__":
    main()
