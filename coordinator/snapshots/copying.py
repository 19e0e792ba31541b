"""A closed copy of the fleet's database, made while coordinators are at work. Blocking.

Rules kept here:
- The copy is the database at one moment: one transaction reads it, whoever writes meanwhile.
- It is made in a directory of this machine's coordinator, which only that may read: it is all that
  the fleet's database holds. What a killed process left there goes with the next one.
"""

from __future__ import annotations

import errno
import fcntl
import os
import pwd
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sqlalchemy import URL

from agent.snapshots.databases import copy_in_use, require_sound
from agent.snapshots.errors import Unfit
from agent.snapshots.publish import Publication
from coordinator.errors import SnapshotRunning
from coordinator.snapshots import ours

_LOCK: Final = "lock"


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be published, and how.

    Attributes:
        url: of the database.
        name: of the snapshot.
        compressed: whether it is stored compressed.
    """

    url: URL
    name: str
    compressed: bool


@contextmanager
def workshop(directory: Path) -> Iterator[Path]:
    """Give an empty directory that nobody else is at; what is left in it goes.

    Args:
        directory: with room for a whole copy; it is made.

    Raises:
        SnapshotRunning: somebody else is at it.
        PermissionError: it would be root's, and what is around it is not.
        OSError: it cannot be used.
    """
    if os.geteuid() == 0 and directory.parent.exists():
        require_owner(directory.parent)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SnapshotRunning(f"another snapshot is being made in {directory}") from None
        _clear(directory)
        try:
            yield directory
        finally:
            _clear(directory)
    finally:
        os.close(fd)


def require_owner(path: Path) -> None:
    """Refuse to work beside another user's files: the coordinator could not open what comes of it.

    Raises:
        PermissionError: saying which user is the right one.
        OSError: nobody can say.
    """
    if (uid := path.stat().st_uid) != os.geteuid():
        why = f"run this as the user that owns it, {_name_of(uid)}"
        raise PermissionError(errno.EPERM, why, str(path))


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _clear(directory: Path) -> None:
    for each in directory.iterdir():
        if each.name == _LOCK:
            continue
        if each.is_dir() and not each.is_symlink():
            shutil.rmtree(each)
        else:
            each.unlink()


def copied(order: Order, directory: Path, check: Callable[[], None] = lambda: None) -> Publication:
    """Copy a database into an empty directory, judge the copy, and say how to publish it.

    Args:
        order: what, and how.
        directory: where to.
        check: called now and then; what it raises ends it.

    Raises:
        LibraryMissing: a program of PostgreSQL's is not installed.
        Unfit: it cannot be copied, or the copy is damaged.
        OSError: it cannot be written.
    """
    match order.url.get_backend_name():
        case "sqlite":
            copy = directory / "copy.sqlite3"
            copy_in_use(_file_of(order.url), copy)
            require_sound(copy)
        case "postgresql":
            copy = directory / "copy.dump"
            ours.dump(order.url, copy, compressed=not order.compressed, check=check)
        case other:
            raise Unfit(f"no snapshots are made of {other}: use what it has for backups itself")
    # Judged above: of a dump there is nothing to judge for who publishes it.
    return Publication(path=copy, name=order.name, raw=True, compressed=order.compressed)


def _file_of(url: URL) -> Path:
    assert url.database is not None, "parse_url has seen to it"
    return Path(url.database)
