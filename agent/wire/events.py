"""What happened, page by page."""

from __future__ import annotations

from pydantic import AwareDatetime, ConfigDict, Field

from agent.wire.fields import Answer, Count


class EventBody(Answer):
    """Something that happened. What else it carries depends on its kind."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)

    sequence: Count
    time: AwareDatetime
    kind: str


class EventsBody(Answer):
    """A page of events, oldest first.

    A sequence number is never used twice in an epoch. A reader that sees another epoch than the
    one before starts again at `after=0`; one whose `after` is below `oldest - 1` has missed some.
    """

    epoch: str
    oldest: Count = Field(description="Number of the oldest event kept; 0 when there is none.")
    latest: Count = Field(description="Number of the newest event; 0 when there is none.")
    events: tuple[EventBody, ...]
