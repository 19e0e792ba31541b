"""How far a dataset can be used, and what moves that; only decided here, nothing is done.

    healthy --write fails, call hangs--> suspect (still readable) --probe succeeds--> joining
    any --path no longer leads to the dataset--> missing --attach succeeds--> joining
    joining (suspect until then) --what it says was read--> healthy

Want of room is no failure of the dataset, nor is a file that is not there. After a failed sync, or
an error of the device itself, it is doubtful until its copies were verified, also while it is away.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from depot.os_errors import SyncFailed, describe_error, full_disk, is_shortage

_IN_DOUBT: Final = "it failed before; its copies are verified again before they count"
_DEVICE_ERRORS: Final = (errno.EIO, errno.EUCLEAN, errno.EBADMSG, errno.ENXIO, errno.ENODEV)


class MirrorState(StrEnum):
    """How far a dataset can be used."""

    HEALTHY = "healthy"
    SUSPECT = "suspect"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Condition:
    """How a dataset is, as far as its mirror knows.

    Attributes:
        joining: it can be written again, but what it says was not read yet.
        full: the last write found no room.
        over_quota: a write was refused by a quota, of which the filesystem's figures may know
            nothing; until something was purged for its sake.
        last_error: for people; None when nothing is wrong.
        released: an operator had it let go of; it is left alone.
        doubtful: it failed in a way after which nothing on it is believed before it was verified.
        failures: how often an operation failed, other than for want of room.
    """

    state: MirrorState = MirrorState.MISSING
    joining: bool = False
    full: bool = False
    over_quota: bool = False
    last_error: str | None = None
    released: bool = False
    doubtful: bool = False
    failures: int = 0

    @classmethod
    def on_arrival(cls, problem: OSError | None, *, doubtful: bool) -> Condition:
        """The condition of a dataset that was opened, and `problem` is why it is not written.

        One that was `doubtful` before is not joined before its copies were verified.
        """
        condition = cls(MirrorState.SUSPECT, joining=True)
        if problem is not None:
            condition = condition.after(problem)
            # What could not even be written was never believed.
            condition = replace(condition, doubtful=isinstance(problem, SyncFailed))
        if doubtful:
            condition = replace(condition, joining=False, doubtful=True, last_error=_IN_DOUBT)
        return condition

    def after(self, error: OSError) -> Condition:
        """The condition once an operation has failed like this."""
        if isinstance(error, FileNotFoundError):
            return self
        if full_disk(error) and not isinstance(error, SyncFailed):
            over_quota = self.over_quota or error.errno == errno.EDQUOT
            said = describe_error(error)
            return replace(self, full=True, over_quota=over_quota, last_error=said)
        lost = self.state is MirrorState.HEALTHY
        return replace(
            self,
            state=MirrorState.SUSPECT if lost else self.state,
            joining=False,
            last_error=describe_error(error),
            doubtful=self.doubtful or casts_doubt(error),
            failures=self.failures + 1,
        )

    def recovered(self) -> Condition:
        """The condition once it has proved that it can be written; what it says comes next."""
        return replace(self, last_error=None, full=False, joining=True, doubtful=False)

    def joined(self) -> Condition:
        """The condition once what it says was read."""
        return replace(self, joining=False, state=MirrorState.HEALTHY)

    def gone(self, reason: str, *, released: bool) -> Condition:
        """The condition once the dataset was let go of, because an operator said so or not."""
        return Condition(
            MirrorState.MISSING,
            full=self.full,
            last_error=reason,
            released=released or self.released,
            doubtful=self.doubtful,
        )


def casts_doubt(error: OSError) -> bool:
    """Tell whether, after such a failure, memory may give back what the device does not have."""
    return isinstance(error, SyncFailed) or error.errno in _DEVICE_ERRORS


def is_own_want(error: OSError) -> bool:
    """Tell whether this process, not the device, had too little: descriptors, memory."""
    wants = is_shortage(error) or error.errno in (errno.EINTR, errno.EAGAIN)
    return wants and not isinstance(error, SyncFailed)
