"""A PostgreSQL of the tests' own: on a socket in a directory that goes with it.

It refuses to run as root, so then it runs as another user. It syncs nothing: what survives a crash
of PostgreSQL is not what is tested here.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

_BINARIES: Final = Path("/usr/lib/postgresql")
_USERS: Final = ("postgres", "nobody")
_OPTIONS: Final = (
    "listen_addresses=",
    "fsync=off",
    "synchronous_commit=off",
    "full_page_writes=off",
    "autovacuum=off",
    "max_connections=60",
    # So that tests may pause a whole coordinator in the middle of a transaction.
    "idle_in_transaction_session_timeout=0",
)


class NoPostgres(Exception):
    """PostgreSQL is not installed here; the message says what was looked for."""


@dataclass(frozen=True, slots=True)
class PostgresServer:
    """A running server."""

    directory: Path
    _numbers: Iterator[int] = field(default_factory=count)

    def url(self, name: str = "postgres") -> str:
        """Of one of its databases.

        Any password will do; without one the driver looks for ~/.pgpass, on the event loop.
        """
        return f"postgresql+asyncpg://depot:any@/{name}?host={self.directory}"

    async def create(self, template: str = "template0") -> str:
        """Make a database, empty or as the template is, and return its URL."""
        name = f"depot_{next(self._numbers)}"
        await self.administer(f"CREATE DATABASE {name} TEMPLATE {template}")
        return self.url(name)

    async def administer(self, statement: str) -> None:
        """Execute one statement outside any transaction."""
        engine = create_async_engine(self.url(), isolation_level="AUTOCOMMIT", poolclass=NullPool)
        try:
            async with engine.connect() as connection:
                await connection.execute(text(statement))
        finally:
            await engine.dispose()


@contextmanager
def running() -> Iterator[PostgresServer]:
    """Start a server, and stop it afterwards.

    Raises:
        NoPostgres: it is not installed.
    """
    initdb, pg_ctl = _program("initdb"), _program("pg_ctl")
    user = _user()
    # Not below pytest's own directories: those are closed to other users.
    directory = Path(tempfile.mkdtemp(prefix="depot-pg-"))
    try:
        if user is not None:
            shutil.chown(directory, user)
        data = directory / "data"
        _as(user, [initdb, "-D", data, "-U", "depot", "-A", "trust", "--no-sync", "-E", "UTF8"])
        options = " ".join(
            f"-c {option}" for option in (*_OPTIONS, f"unix_socket_directories={directory}")
        )
        _as(user, [pg_ctl, "-D", data, "-l", directory / "log", "-w", "-o", options, "start"])
        try:
            yield PostgresServer(directory)
        finally:
            _as(user, [pg_ctl, "-D", data, "-w", "-m", "immediate", "stop"])
    finally:
        shutil.rmtree(directory)


def _program(name: str) -> str:
    versions = sorted(_BINARIES.glob(f"*/bin/{name}"), key=lambda path: int(path.parts[-3]))
    if versions:
        return str(versions[-1])
    if (found := shutil.which(name)) is None:
        raise NoPostgres(f"{name} is neither in {_BINARIES}/*/bin nor in PATH")
    return found


def _user() -> str | None:
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in _USERS if name in known)


def _as(user: str | None, command: Sequence[str | Path]) -> None:
    group = None if user is None else pwd.getpwnam(user).pw_gid
    done = subprocess.run(
        command,
        user=user,
        group=group,
        extra_groups=None if user is None else (),
        env={**os.environ, "LC_ALL": "C"},
        cwd="/",
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed: {done.stdout}{done.stderr}")
