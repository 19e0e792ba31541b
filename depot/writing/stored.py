"""The outcome of a write: how many copies there are, and why there are no more.

Only a copy that is certain counts: what was verified when the write began, or has landed since, may
have left or be in doubt when its outcome is told.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from depot.artifact import ArtifactHash
from depot.errors import DatasetUnusable, Io, QuotaExceeded, TooFewCopies
from depot.mirrors.mirror import Mirror
from depot.os_errors import describe_error, full_disk


@dataclass(frozen=True, slots=True)
class Stored:
    """The outcome of a write.

    Attributes:
        datasets: how many datasets could be written when it began.
        copies: how many hold the artifact durably now.
        failures: why the others do not, for people.
    """

    datasets: int
    copies: int
    failures: tuple[str, ...] = ()


class Tally:
    """Counts the copies of one write, and what failed.

    Args:
        healthy: the datasets that could be written when it began.

    Attributes:
        failures: what `Stored.failures` is to say.
    """

    def __init__(
        self, artifact: ArtifactHash, healthy: Collection[Mirror], min_copies: int
    ) -> None:
        self.failures: list[str] = []
        self._artifact = artifact
        self._healthy = healthy
        self._min_copies = min_copies
        self._errors: list[OSError | DatasetUnusable] = []

    def note(self, index: int, error: OSError | DatasetUnusable) -> None:
        """Take note of what a mirror could not be written for."""
        self._errors.append(error)
        self.failures.append(f"dataset {index + 1}: {_reason(error)}")

    def stored(self, holders: Sequence[Mirror]) -> Stored:
        """How many of these mirrors hold a copy now."""
        copies = 0
        for mirror in holders:
            if self._artifact in mirror.doubts:
                self.failures.append(f"dataset {mirror.index + 1}: in doubt")
            elif mirror.good_copy(self._artifact) is not None:
                copies += 1
        return Stored(len(self._healthy), copies, tuple(self.failures))

    def check(self, stored: Stored) -> Stored:
        """Refuse an outcome of too few copies.

        Raises:
            TooFewCopies.
        """
        if stored.copies < self._min_copies:
            raise TooFewCopies(
                f"{stored.copies} durable copies, at least {self._min_copies} are "
                "expected; what was written stays"
            )
        return stored

    def no_copy(self) -> QuotaExceeded | Io:
        """What to raise when there is no copy at all."""
        if self._errors and all(isinstance(e, OSError) and full_disk(e) for e in self._errors):
            return QuotaExceeded("every dataset ran full during the write")
        return Io(f"no dataset could store it: {'; '.join(self.failures)}")


def _reason(error: OSError | DatasetUnusable) -> str:
    # Not the message of a DatasetUnusable: it names a local path, and this goes on the wire (S4).
    return describe_error(error) if isinstance(error, OSError) else "not there any more"
