"""A snapshot into a file: asks, looks, fetches and places as `Course` says."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from agent.snapshots.archive import Archive
from agent.snapshots.course import AskHead, Course, End, Fetch, Look, Place, Step
from agent.snapshots.errors import SnapshotError
from agent.snapshots.fetching import Fetching, OnProgress
from agent.snapshots.hashing import checksum_of
from agent.snapshots.landing import Landing
from agent.snapshots.patience import OnFailure, Patience, Retrying
from agent.snapshots.values import Head


@dataclass(frozen=True, slots=True, kw_only=True)
class Telling:
    """Whom to tell what.

    Attributes:
        line: each step, in the words of the log.
        warning: what goes well although it should be seen to.
        failure: what failed and is tried again.
        progress: how many of the stored bytes are there.
    """

    line: Callable[[str], None]
    warning: Callable[[str], None]
    failure: OnFailure
    progress: OnProgress


class Download:
    """One download.

    Attributes:
        head: what the archive said; None until it did.
    """

    def __init__(
        self,
        archive: Archive,
        name: str,
        target: Path,
        telling: Telling,
        *,
        require_checksum: bool = False,
        patience: Patience | None = None,
    ) -> None:
        self.head: Head | None = None
        self._archive = archive
        self._name = name
        self._target = target
        self._telling = telling
        self._patience = patience or Patience()
        self._landing: Landing | None = None
        self._course = Course(require_checksum=require_checksum)

    def run(self) -> End:
        """Do all of it.

        Raises:
            OSError: a file of this machine cannot be read or written; the target is as it was.
        """
        with ExitStack() as stack:
            step = self._course.begin()
            while not isinstance(step.then, End):
                self._tell(step)
                step = self._next(step, stack)
            self._tell(step)
            return step.then

    def _tell(self, step: Step) -> None:
        for line in step.lines:
            self._telling.line(line)
        if step.warning:
            self._telling.warning(step.warning)

    def _next(self, step: Step, stack: ExitStack) -> Step:
        try:
            return self._do(step, stack)
        except SnapshotError as error:
            # Where it was raised keeps the buffers, and the next one has its own.
            return self._course.failed(error.with_traceback(None))

    def _do(self, step: Step, stack: ExitStack) -> Step:
        # One for each: what a failed one stopped stays stopped.
        retrying = Retrying(self._patience, self._telling.failure)
        match step.then:
            case AskHead():
                self.head = retrying.call(lambda: self._archive.head(self._name))
                return self._course.head(self.head)
            case Look(size_bytes):
                began_s = time.perf_counter()
                found = checksum_of(self._target, size_bytes)
                return self._course.looked(found, time.perf_counter() - began_s)
            case Fetch(head, checked):
                fetching = Fetching(self._archive, retrying, self._telling.progress)
                landing = self._landing = self._landing or stack.enter_context(
                    Landing(self._target)
                )
                return self._course.fetched(fetching.fetch(head, landing, checked=checked))
            case Place():
                assert self._landing is not None
                self._landing.place()
                return self._course.placed()
            case End():
                raise AssertionError("an end is followed by nothing")
