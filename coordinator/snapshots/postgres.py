"""PostgreSQL's own programs: a dump of a database, whether one is whole, and back. Blocking.

Rules kept here:
- A password is in the environment of the program, never among its arguments, which everybody on
  the machine can read.
- An exit status of 0 is not believed: a dump is read to its end before it counts.
- Nothing waits for ever: neither for a server that does not answer, nor for a lock that somebody
  keeps, nor for a dump that does not grow.
"""

from __future__ import annotations

import math
import os
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from sqlalchemy import URL

from agent.snapshots.errors import LibraryMissing, Unfit

DUMP_MAGIC: Final = b"PGDMP"
CONNECT_S: Final = 10
LOCK_WAIT_S: Final = 30.0
SILENT_S: Final = 600.0
"""How long a dump may not grow: a table with nothing but deleted rows is long to read."""
ANSWER_S: Final = 120.0
_MAX_TOLD: Final = 500
_LOOK_S: Final = 0.5
_VARIABLES: Final = {
    "host": "PGHOST",
    "port": "PGPORT",
    "user": "PGUSER",
    "password": "PGPASSWORD",
    "database": "PGDATABASE",
    "ssl": "PGSSLMODE",
    "sslmode": "PGSSLMODE",
}


def dump(
    url: URL,
    target: Path,
    *,
    compressed: bool,
    check: Callable[[], None] = lambda: None,
    without: Iterable[str] = (),
    lock_wait_s: float = LOCK_WAIT_S,
    silent_s: float = SILENT_S,
) -> None:
    """Dump a database, as it is at one moment, in the custom format; the file is not synced.

    There are no large objects in it.

    Args:
        url: of the database.
        target: where there is no file yet.
        compressed: whether `pg_dump` is to compress it.
        check: called now and then; what it raises ends it.
        without: patterns of tables, and what is like tables, that are left out.
        lock_wait_s: how long somebody else may keep a table locked, when it begins.
        silent_s: how long it may not grow.

    Raises:
        LibraryMissing: the programs are not installed.
        Unfit: it could not be dumped, or the dump is not whole.
    """
    left_out = [f"--exclude-table={each}" for each in without]
    options = ["--format=custom", "--no-password", "--no-blobs", lock_wait(lock_wait_s), *left_out]
    if not compressed:
        options.append("--compress=0")
    growth = _Growth(target, silent_s)

    def look() -> None:
        check()
        growth.check()

    _run(["pg_dump", *options, f"--file={target}"], url, look)
    require_whole(target, check)


def require_whole(path: Path, check: Callable[[], None] = lambda: None) -> None:
    """Read a dump to its end.

    Raises:
        LibraryMissing: the program is not installed.
        Unfit: it is none, or damaged or cut.
    """
    if not is_dump(path):
        raise Unfit(f"{path}: expected a dump of PostgreSQL in its custom format")
    _run(["pg_restore", f"--file={os.devnull}", str(path)], None, check)


def is_dump(path: Path) -> bool:
    """Whether a file begins as a dump does.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return file.read(len(DUMP_MAGIC)) == DUMP_MAGIC


def environment_of(url: URL) -> Mapping[str, str]:
    """What tells PostgreSQL's programs where a database is."""
    return {"PGCONNECT_TIMEOUT": str(CONNECT_S), **os.environ, **dict(_told(url))}


def _told(url: URL) -> Iterator[tuple[str, str]]:
    parts: dict[str, object] = {
        **url.query,
        **{
            name: value
            for name in ("host", "port", "database")
            if (value := getattr(url, name)) is not None
        },
    }
    if url.username is not None:
        parts["user"] = url.username
    if url.password is not None:
        parts["password"] = url.password
    for name, variable in _VARIABLES.items():
        value = parts.get(name)
        if value is not None and value != "":
            # Several hosts come as several values of one name.
            yield variable, ",".join(value) if isinstance(value, tuple) else str(value)


def lock_wait(wait_s: float = LOCK_WAIT_S) -> str:
    """Have `pg_dump` give up when somebody keeps a table locked for longer."""
    return f"--lock-wait-timeout={round(1000 * wait_s)}"


def answer(url: URL, query: str) -> list[str]:
    """Ask a database for one column of a few rows.

    Raises:
        LibraryMissing: the program is not installed.
        Unfit: there is no answer.
    """
    command = ["psql", "-XAtq0", "--no-password", f"--command={query}"]
    said = output(command, url, limit_s=ANSWER_S)
    return [each for each in said.split("\0") if each]


def output(command: list[str], url: URL | None = None, *, limit_s: float = math.inf) -> str:
    """Run a program that has little to say, and return what it said.

    Raises:
        LibraryMissing: it is not installed.
        Unfit: it ended badly, or not in time.
    """
    end_s = time.monotonic() + limit_s

    def check() -> None:
        if time.monotonic() > end_s:
            raise Unfit(f"{command[0]} did not end within {limit_s:.0f} s")

    return _run(command, url, check, subprocess.PIPE).decode(errors="replace")


class _Growth:
    """Watches a file that is being written."""

    def __init__(self, path: Path, silent_s: float) -> None:
        self._path = path
        self._silent_s = silent_s
        self._size_bytes = 0
        self._grown_s = time.monotonic()

    def check(self) -> None:
        """Raise Unfit when it has not grown for too long."""
        size_bytes = self._path.stat().st_size if self._path.exists() else 0
        now_s = time.monotonic()
        if size_bytes != self._size_bytes:
            self._size_bytes, self._grown_s = size_bytes, now_s
        elif now_s - self._grown_s > self._silent_s:
            raise Unfit(
                f"pg_dump was given up: after {size_bytes} bytes nothing came for "
                f"{self._silent_s:.0f} s"
            )


def _run(
    command: list[str],
    url: URL | None,
    check: Callable[[], None],
    stdout: int = subprocess.DEVNULL,
) -> bytes:
    program = command[0]
    try:
        running = subprocess.Popen(
            command,
            env=os.environ if url is None else environment_of(url),
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
        )
    except FileNotFoundError as error:
        raise LibraryMissing(
            f"{program} is not installed here: it comes with PostgreSQL's client programs "
            "(Debian: postgresql-client), of at least the server's version"
        ) from error
    with running:
        try:
            said, complained = _said(running, check)
        except BaseException:
            running.kill()
            raise
    if running.returncode != 0:
        told = _complaint(complained.decode(errors="replace"))
        raise Unfit(f"{program} ended with status {running.returncode}: {told}")
    return said or b""


def _complaint(text: str) -> str:
    """In one line; a server's hints are for who types SQL: drop it all, with what depends on it."""
    lines = [line.strip() for line in text.splitlines()]
    return "; ".join(each for each in lines if each and not each.startswith("HINT:"))[:_MAX_TOLD]


def _said(running: subprocess.Popen[bytes], check: Callable[[], None]) -> tuple[bytes, bytes]:
    """Wait until a program ended; what it said on stdout and stderr."""
    while True:
        try:
            return running.communicate(timeout=_LOOK_S)
        except subprocess.TimeoutExpired:
            check()
