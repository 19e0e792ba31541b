"""The part of the status by which a coordinator goes."""

from __future__ import annotations

from agent.wire.fields import Answer, GenerationNumber


class OfferBody(Answer):
    """The part of `RelayBody` that says what others can count on."""

    offered: bool = False


class DatasetStateBody(Answer):
    """The part of `DatasetBody` that says whether a coordinator can count on it."""

    path: str
    state: str
    last_error: str | None = None


class IdentityBody(Answer):
    """The part of the status by which a coordinator goes; what an agent does not say is absent."""

    sled_id: str | None = None
    generation: GenerationNumber | None = None
    relay: OfferBody = OfferBody()
    datasets: tuple[DatasetStateBody, ...] = ()
