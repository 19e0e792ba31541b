"""What a sled's answer says about it, where it is not the one that was hoped for. Pure.

A generation in an answer is compared with the one the request was made for. A sled that is ahead
may be right: whether it is the database that moved on is for the caller to find out, by asking the
database after the answer came.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from typing import Final

from coordinator.values import SledState
from depot.artifact import MAX_GENERATION, Generation
from depot.errors import BadSource, InvalidRequest, Refused, Unreachable

MAX_REASON_LENGTH: Final = 1000
MAX_WAIT_S: Final = 900
"""A sled that wants to be left alone for longer is asked all the same."""
_CONFLICTS: Final = ("CONFIG_GENERATION", "ARTIFACT_GENERATION")


class Kind(StrEnum):
    """What stood in the way."""

    AHEAD = "ahead"
    """The sled's generation is higher."""
    BEHIND = "behind"
    """The sled's generation is lower, or it has no config."""
    OTHER_CONTENTS = "other contents"
    """Its config has the same generation and other artifacts."""
    PINNED = "pinned"
    """The config would drop what a consumer on the sled has pinned."""
    BUSY = "busy"
    """It does as much as it may; soon it can do more."""
    FULL = "full"
    """It has no room now."""
    SOURCE = "source"
    """It could not get the artifact where it was to fetch it."""
    MISMATCH = "mismatch"
    """What it was sent was not what the name says."""
    REFUSED = "refused"
    """Anything else that it said itself."""
    UNREACHABLE = "unreachable"
    """It did not say anything, not in time, or is about to stop."""
    OTHER_SLED = "other sled"
    """Another sled answers at its address."""
    LOCAL = "local"
    """It never got as far as the sled."""
    NONSENSE = "nonsense"
    """Its answer is one that nobody here thought of."""


_STATES: Final = {
    Kind.AHEAD: SledState.AHEAD,
    Kind.BEHIND: SledState.BEHIND,
    Kind.UNREACHABLE: SledState.UNREACHABLE,
}
_BY_CODE: Final = {
    "ArtifactInUse": Kind.PINNED,
    "NoConfig": Kind.BEHIND,
    "HashMismatch": Kind.MISMATCH,
    "ShuttingDown": Kind.UNREACHABLE,
}
_BY_STATUS: Final = {
    HTTPStatus.TOO_MANY_REQUESTS.value: Kind.BUSY,
    HTTPStatus.INSUFFICIENT_STORAGE.value: Kind.FULL,
    HTTPStatus.BAD_GATEWAY.value: Kind.SOURCE,
}


def legible(text: str) -> str:
    """What a sled says, as every database and terminal takes it: one line, bounded."""
    text = text[:MAX_REASON_LENGTH]
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else "?" for character in text)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why a request did not do what it was for.

    Attributes:
        reason: for people: one line, bounded, that every database and terminal takes.
        current: the sled's own generation, where it named one.
        wait_s: after how long it wants to be asked again, where it said so; bounded.
    """

    kind: Kind
    reason: str
    current: Generation | None = None
    wait_s: float = 0.0

    def __post_init__(self) -> None:
        """Whatever a sled says of itself ends up in reasons."""
        object.__setattr__(self, "reason", legible(self.reason))

    @property
    def state(self) -> SledState:
        """How a sled is that is set aside for this."""
        return _STATES.get(self.kind, SledState.REFUSED)


OUT_OF_DATE: Final = Verdict(Kind.LOCAL, "the pass is out of date")


class OutOfDate(Exception):
    """What was to be said to a sled is not true any more; it was not said."""


def judge(error: Exception, generation: Generation) -> Verdict:
    """Say what an error of a request made for `generation` means.

    Raises:
        Exception: `error` itself, when it is none that a request can end in.
    """
    match error:
        case Refused():
            return _refused(error, generation)
        case Unreachable():
            return Verdict(Kind.UNREACHABLE, str(error))
        case TimeoutError():
            return Verdict(Kind.UNREACHABLE, "no answer in time")
        case InvalidRequest() | BadSource():
            return Verdict(Kind.REFUSED, str(error))
        case OSError():
            return Verdict(Kind.LOCAL, f"the staged file cannot be read: {error.strerror or error}")
        case OutOfDate():
            return OUT_OF_DATE
        case _:
            raise error


def nonsense(error: Exception) -> Verdict:
    """Set a sled aside because of what it answered, whatever came of that here (F4)."""
    return Verdict(
        Kind.NONSENSE, f"what it answered cannot be used: {type(error).__name__}: {error}"
    )


def _refused(error: Refused, generation: Generation) -> Verdict:
    if error.status == HTTPStatus.CONFLICT and error.remote_code in _CONFLICTS:
        return _conflict(error, generation)
    kind = _BY_CODE.get(error.remote_code or "") or _BY_STATUS.get(error.status)
    if kind not in (Kind.BUSY, Kind.FULL) or not error.retry_after_s:
        return Verdict(kind or Kind.REFUSED, str(error))
    wait_s = min(error.retry_after_s, MAX_WAIT_S)
    return Verdict(kind, f"{error}; it wants to be asked again in {wait_s} s", wait_s=wait_s)


def _conflict(error: Refused, generation: Generation) -> Verdict:
    current = error.remote_details.get("current_generation")
    if isinstance(current, bool) or not isinstance(current, int):
        return Verdict(Kind.REFUSED, str(error))
    if not 0 <= current <= MAX_GENERATION:
        return Verdict(Kind.REFUSED, str(error))
    return compare(Generation(current), generation) or Verdict(
        Kind.OTHER_CONTENTS,
        f"holds another config under the same generation {int(generation)}; a higher generation "
        "settles that: advance the generation",
        Generation(current),
    )


def compare(current: Generation, generation: Generation) -> Verdict | None:
    """Judge a sled that says it is at `current`; None when that is the generation asked for."""
    if current > generation:
        return Verdict(
            Kind.AHEAD,
            f"is at generation {int(current)}, ahead of {int(generation)}; if it stays so, reset "
            f"the sled, or advance the generation beyond {int(current)}",
            current,
        )
    if current < generation:
        return Verdict(
            Kind.BEHIND, f"is at generation {int(current)}, behind {int(generation)}", current
        )
    return None
