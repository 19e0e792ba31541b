"""PostgreSQL's own programs: a dump of a database, whether one is whole, and back. Blocking.

Rules kept here:
- A password is in the environment of the program, never among its arguments, which everybody on
  the machine can read.
- An exit status of 0 is not believed: a dump is read to its end before it counts.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from sqlalchemy import URL

from agent.snapshots.errors import LibraryMissing, Unfit

DUMP_MAGIC: Final = b"PGDMP"
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
) -> None:
    """Dump a database, as it is at one moment, in the custom format; the file is not synced.

    There are no large objects in it.

    Args:
        url: of the database.
        target: where there is no file yet.
        compressed: whether `pg_dump` is to compress it.
        check: called now and then; what it raises ends it.
        without: patterns of tables, and what is like tables, that are left out.

    Raises:
        LibraryMissing: the programs are not installed.
        Unfit: it could not be dumped, or the dump is not whole.
    """
    left_out = [f"--exclude-table={each}" for each in without]
    options = ["--format=custom", "--no-password", "--no-blobs", *left_out]
    if not compressed:
        options.append("--compress=0")
    _run(["pg_dump", *options, f"--file={target}"], url, check)
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
    return {**os.environ, **dict(_told(url))}


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


def output(command: list[str], url: URL | None = None) -> str:
    """Run a program that has little to say, and return what it said.

    Raises:
        LibraryMissing: it is not installed.
        Unfit: it ended badly.
    """
    return _run(command, url, lambda: None, subprocess.PIPE).decode(errors="replace")


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
        told = complained.decode(errors="replace").strip()[:_MAX_TOLD]
        raise Unfit(f"{program} ended with status {running.returncode}: {told}")
    return said or b""


def _said(running: subprocess.Popen[bytes], check: Callable[[], None]) -> tuple[bytes, bytes]:
    """Wait until a program ended; what it said on stdout and stderr."""
    while True:
        try:
            return running.communicate(timeout=_LOOK_S)
        except subprocess.TimeoutExpired:
            check()
