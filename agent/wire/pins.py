"""What consumers on the sled itself hold."""

from __future__ import annotations

from agent.wire.fields import Answer, Request, Sha256Set


class PinBody(Request):
    """The artifacts that one local consumer holds. Request and answer alike."""

    artifacts: Sha256Set


class PinsBody(Answer):
    """Every pin by name."""

    pins: dict[str, PinBody]
