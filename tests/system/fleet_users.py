"""Those who upload releases to a fleet and delete them, and know what they were answered (F5)."""

from __future__ import annotations

import http.client
import random
import threading
from typing import Final

from tests.system.asking import Answer, connect, read_answer
from tests.system.coordinators import RunningCoordinator
from tests.system.fleet import Library, Release
from tests.system.journal import Journal
from tests.system.tally import Kind

LOST: Final = (OSError, http.client.HTTPException)
BUSY: Final = (429, 503)
"""What a coordinator may answer when it, or its database, cannot do it now."""
STARTING_S: Final = 0.1
UPLOADS: Final = 0.6
"""The share of uploads; the others are deletions."""
PAUSE_S: Final = 0.5


class Known:
    """What the answers say of one release; one caller at a time has it."""

    def __init__(self, release: Release) -> None:
        self.release = release
        self.recorded: bool | None = False
        """None: nobody can know, the last request was cut off."""
        self.was_deleted = False
        self.busy = threading.Lock()

    @property
    def version(self) -> str:
        return self.release.version


class Users:
    """One thread for each coordinator; all of them know what the others were answered."""

    def __init__(self, library: Library, journal: Journal) -> None:
        self.known = [Known(release) for release in library.releases]
        self._journal = journal

    def use(self, coordinator: RunningCoordinator, rng: random.Random) -> None:
        """Upload and delete at random until it is over."""
        while not self._journal.stop.is_set():
            known = rng.choice(self.known)
            if not known.busy.acquire(blocking=False):
                continue
            try:
                if rng.random() < UPLOADS:
                    self.upload(coordinator, known)
                else:
                    self._delete(coordinator, known)
            finally:
                known.busy.release()
            self._journal.stop.wait(rng.uniform(0, PAUSE_S))

    def upload(self, coordinator: RunningCoordinator, known: Known) -> None:
        path = f"/v1/releases?file_name={known.version}.zip"
        answer = self._attempt(coordinator, "PUT", path, known.release.content)
        match answer and answer.status:
            case None:
                known.recorded = None
            case 200:
                assert answer is not None
                self._uploaded(coordinator, known, answer.body["status"])
            case status if status in BUSY:
                known.recorded = known.recorded or None
            case _:
                self._journal.violate(f"upload of {known.version}: {answer}")

    def _uploaded(self, coordinator: RunningCoordinator, known: Known, said: str) -> None:
        was_there = {"inserted": False, "already_exists": True}[said]
        if known.recorded not in (None, was_there):
            expected = f"was recorded: {known.recorded}, now {said}"
            self._journal.violate(f"F5: {known.version} {expected}")
        self._count(Kind.UPLOADED_AGAIN if was_there else Kind.UPLOADED, coordinator)
        if known.was_deleted and not was_there:
            self._count(Kind.UPLOADED_ANEW, coordinator)
        known.recorded = True

    def _delete(self, coordinator: RunningCoordinator, known: Known) -> None:
        answer = self._attempt(coordinator, "DELETE", f"/v1/releases/{known.version}", b"")
        match answer and answer.status:
            case None:
                known.recorded = None
            case 200 | 204:
                if known.recorded is False:
                    self._journal.violate(f"{known.version} was deleted twice")
                self._count(Kind.DELETED, coordinator)
                known.recorded, known.was_deleted = False, True
            case 404:
                if known.recorded:
                    self._journal.violate(f"F5: {known.version} was acknowledged and is not there")
                known.recorded = False
            case status if status in BUSY:
                known.recorded = None if known.recorded else known.recorded
            case _:
                self._journal.violate(f"deletion of {known.version}: {answer}")

    def _count(self, kind: Kind, coordinator: RunningCoordinator) -> None:
        self._journal.tally.add(kind, coordinator.home.name)

    def _attempt(
        self, coordinator: RunningCoordinator, method: str, path: str, body: bytes
    ) -> Answer | None:
        """Send a request; None when the connection was lost."""
        answer: Answer | None = None
        try:
            answer = ask_raw(coordinator.url, method, path, body)
        except LOST:
            self._journal.stop.wait(STARTING_S)
        result = "lost" if answer is None else str(answer.status)
        self._journal.note(f"{method}-{result} {coordinator.home.name} {path}")
        return answer


def ask_raw(url: str, method: str, path: str, body: bytes) -> Answer:
    """Send bytes as they are."""
    connection = connect(url)
    try:
        connection.request(method, path, body=body)
        return read_answer(connection)
    finally:
        connection.close()
