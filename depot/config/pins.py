"""Pins: artifacts that local consumers hold, so that no config may drop them. Pure.

On disk they are `.sled-depot/pins.json` on each dataset; each change raises the book's version and
the newest valid one wins.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from depot import document
from depot.artifact import ArtifactHash
from depot.document import Unreadable
from depot.errors import InvalidRequest, TooLarge

PINS_NAME: Final = "pins.json"
FORMAT: Final = 1
MAX_PINNED: Final = 500_000
"""An artifact counts once for each pin. More would not fit the size a document may have."""
_PIN_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", re.ASCII)


@dataclass(frozen=True)
class PinBook:
    """Every pin of a sled, by name."""

    version: int = 0
    pins: Mapping[str, frozenset[ArtifactHash]] = field(default_factory=dict)

    @cached_property
    def artifacts(self) -> frozenset[ArtifactHash]:
        """Everything that is pinned."""
        return frozenset().union(*self.pins.values())

    def with_pin(self, name: str, artifacts: Collection[ArtifactHash]) -> PinBook:
        """Add or replace a pin.

        Raises:
            TooLarge: all pins together would name more than `MAX_PINNED` artifacts.
            InvalidRequest: the name is not 1 to 128 letters, digits, dots, dashes, underscores.
        """
        if not _PIN_NAME.fullmatch(name):
            raise InvalidRequest(
                "a pin's name is 1 to 128 letters, digits, '.', '_' or '-' and starts with a "
                f"letter or digit, found {name[:140]!r}"
            )
        pins = {**self.pins, name: frozenset(artifacts)}
        count = sum(map(len, pins.values()))
        if count > MAX_PINNED:
            raise TooLarge(f"all pins together would name {count} artifacts; at most {MAX_PINNED}")
        return PinBook(self.version + 1, dict(sorted(pins.items())))

    def without_pin(self, name: str) -> PinBook:
        """Remove a pin that is there."""
        return PinBook(self.version + 1, {k: v for k, v in self.pins.items() if k != name})


@dataclass(frozen=True, slots=True)
class Pins:
    """The pins, and whether they are all there are; see `LedgerKeeper.pins_known`."""

    book: PinBook
    known: bool = True


def encode_pins(book: PinBook) -> bytes:
    """Serialise for `pins.json`."""
    pins = {name: [str(x) for x in sorted(held)] for name, held in book.pins.items()}
    return document.encode({"version": book.version, "pins": pins}, version=FORMAT)


def decode_pins(content: bytes) -> PinBook:
    """Parse `pins.json`.

    Raises:
        Unreadable: torn, empty or altered.
        FormatTooNew: see `document.decode`.
    """
    fields = document.decode(content, name=PINS_NAME, newest=FORMAT)
    version, pins = fields.get("version"), fields.get("pins")
    if not isinstance(version, int) or not isinstance(pins, dict):
        raise Unreadable(f"{PINS_NAME} lacks version or pins")
    try:
        held = {name: frozenset(map(ArtifactHash.parse, hashes)) for name, hashes in pins.items()}
    except (TypeError, InvalidRequest) as error:
        raise Unreadable(f"{PINS_NAME}: {error}") from error
    return PinBook(version, held)
