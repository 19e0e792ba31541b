"""A PostgreSQL of the tests' own: on a socket in a directory that goes with it.

It refuses to run as root, so then it runs as another user. It syncs nothing: what survives a crash
of PostgreSQL is not what is tested here.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
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
)


# What it reads ends when this process does, however that ends.
_SCRIPT: Final = """
initdb -D "$1/data" -U depot -A trust --no-sync -E UTF8
pg_ctl -D "$1/data" -l "$1/log" -w -o "$2" start
echo ready
read -r _ || true
pg_ctl -D "$1/data" -w -m immediate stop
rm -r "$1"
"""


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
        await self._ask("postgres", statement)

    async def lose_table(self, name: str, table: str) -> None:
        """Have the file of a table be gone, as a filesystem that was repaired may have it."""
        path = await self._ask(name, f"SELECT pg_relation_filepath('{table}')")
        await self._ask(name, "CHECKPOINT")
        await asyncio.to_thread((self.directory / "data" / path).unlink)

    async def _ask(self, name: str, statement: str) -> str:
        """The first value of the answer, where there is one."""
        url = self.url(name)
        engine = create_async_engine(url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
        try:
            async with engine.connect() as connection:
                result = await connection.execute(text(statement))
                return str(result.scalar()) if result.returns_rows else ""
        finally:
            await engine.dispose()


@contextmanager
def running() -> Iterator[PostgresServer]:
    """Start a server, and stop it afterwards; also when this process is killed.

    Raises:
        NoPostgres: it is not installed.
    """
    programs, user = _programs(), _user()
    # Not below pytest's own directories: those are closed to other users.
    directory = Path(tempfile.mkdtemp(prefix="depot-pg-"))
    if user is not None:
        shutil.chown(directory, user)
    options = (*_OPTIONS, f"unix_socket_directories={directory}")
    with subprocess.Popen(
        ["sh", "-ec", _SCRIPT, "sh", directory, " ".join(f"-c {option}" for option in options)],
        user=user,
        group=None if user is None else pwd.getpwnam(user).pw_gid,
        extra_groups=None if user is None else (),
        env={"PATH": f"{programs}:{os.defpath}", "LC_ALL": "C"},
        cwd="/",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # Ctrl-C is for the tests; they stop it.
    ) as shell:
        assert shell.stdin is not None
        assert shell.stdout is not None
        said = []
        for line in shell.stdout:
            if line == "ready\n":
                break
            said.append(line)
        else:
            raise RuntimeError(f"PostgreSQL did not start: {''.join(said)}")
        yield PostgresServer(directory)
        shell.stdin.close()
        shell.stdout.read()


def _programs() -> Path:
    versions = sorted(_BINARIES.glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if versions:
        return versions[-1].parent
    if (found := shutil.which("initdb")) is None:
        raise NoPostgres(f"PostgreSQL is neither in {_BINARIES}/*/bin nor in PATH")
    return Path(found).resolve().parent


def _user() -> str | None:
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in _USERS if name in known)
