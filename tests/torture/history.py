"""What a store was asked and what it acknowledged, as told by a process that is going to die.

The process tells the begin of each operation before it makes the call and the end after it came
back, one JSON object each; whoever outlives it takes them in, in order. Then the history knows what
has to be there (acknowledged), and what may be there (begun, and not refused for good).
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final

from tests import ondisk
from tests.ondisk import LedgerFile

Event = dict[str, Any]
Pins = dict[str, frozenset[str]]

_NOISE: Final = random.Random(0).randbytes(5 << 20)
_SIZES: Final = (
    (0.55, 40, 20_000),
    (0.20, 4096, 4096 * 12),
    (0.20, 1 << 20, 1_300_000),  # more than one block: digests are kept
    (0.05, 4 << 20, 4_400_000),  # direct I/O
)


def content_of(key: str) -> bytes:
    """The artifact that `key` stands for: of a size, and with bytes, drawn from it."""
    rng = random.Random(key)
    (_, least, most) = rng.choices(_SIZES, [weight for weight, _, _ in _SIZES])[0]
    header = hashlib.sha256(key.encode()).digest()
    size_bytes = rng.randint(least, most)
    return header + _NOISE[: size_bytes - len(header)]


@cache
def name_of(key: str) -> str:
    return ondisk.sha256(content_of(key))


@dataclass(frozen=True)
class Accepted:
    """A config at its place in the order; `keys` is None after a reset."""

    epoch: int
    generation: int | None
    keys: frozenset[str] | None

    @property
    def position(self) -> tuple[int, int]:
        return self.epoch, -1 if self.generation is None else self.generation

    def is_in(self, ledger: LedgerFile) -> bool:
        names = frozenset(map(name_of, self.keys or ()))
        return (ledger.position, ledger.artifacts) == (self.position, names)


@dataclass
class History:
    """What has to be there, and what may be.

    Attributes:
        copies: by artifact, on how many datasets it was acknowledged to be.
        rotten: by artifact, the dataset on which its copy was hurt by hand and may be bad; also of
            those that a config dropped, whose files may still be there.
        attempted: configs that were sent and whose fate is not known.
        attempted_pins: books of pins that may be there instead of the acknowledged one.
        generation: the highest that was ever sent; a client never uses one for two configs.
    """

    accepted: Accepted = Accepted(0, None, None)
    attempted: list[Accepted] = field(default_factory=list)
    copies: dict[str, int] = field(default_factory=dict)
    rotten: dict[str, int] = field(default_factory=dict)
    pins: Pins = field(default_factory=dict)
    attempted_pins: list[Pins] = field(default_factory=list)
    generation: int = 0
    serial: int = 0
    _begun: dict[int, Event] = field(default_factory=dict)

    def note(self, event: Event) -> None:
        """Take in what the process said next."""
        match event["what"]:
            case "begun":
                self._begin(event)
            case "done":
                self._done(self._begun.pop(event["id"]), event)
            case "refused":
                self._refused(self._begun.pop(event["id"]))
            case "failed":
                self._begun.pop(event["id"])  # what it did may be there or not
            case "copied":
                self._copied(event["key"], event["copies"])
            case "rotten":
                self.rotten[event["key"]] = event["dataset"]
                self.copies[event["key"]] -= 1
            case "found":
                self._found(event)
            case _:
                pass  # about something else than the store

    def possible(self) -> list[Accepted]:
        """The configs that may be in force after a crash."""
        return [self.accepted, *self.attempted]

    def possible_pins(self) -> list[Pins]:
        return [self.pins, *self.attempted_pins]

    def wanted(self) -> frozenset[str]:
        return self.accepted.keys or frozenset()

    def promised(self, in_force: Accepted) -> dict[str, int]:
        """Artifacts that have to be there while `in_force` is, and on how many datasets."""
        if in_force.keys is None:
            return dict(self.copies)
        return {key: count for key, count in self.copies.items() if key in in_force.keys}

    def take_away(self, dataset: Path, key: str) -> None:
        """Remove one copy by hand, so that there is something to heal."""
        (dataset / name_of(key)).unlink()
        self.copies[key] -= 1

    def _begin(self, event: Event) -> None:
        self._begun[event["id"]] = event
        self.serial = max(self.serial, event.get("serial", 0))
        match event["op"]:
            case "config" | "reset":
                config = _config_of(event)
                self.generation = max(self.generation, config.generation or 0)
                self.attempted.append(config)
            case "pin":
                self.attempted_pins.append(_pins_of(event["pins"]))
            case _:
                pass

    def _done(self, begun: Event, ended: Event) -> None:
        match begun["op"]:
            case "config" | "reset":
                self._accept(_config_of(begun))
            case "put" | "copy":
                self._copied(begun["key"], ended["copies"])
            case "pin":
                self.pins, self.attempted_pins = _pins_of(begun["pins"]), []
            case _:
                pass

    def _refused(self, begun: Event) -> None:
        match begun["op"]:
            case "config" | "reset":
                self.attempted.remove(_config_of(begun))
            case "pin":
                self.attempted_pins.remove(_pins_of(begun["pins"]))
            case _:
                pass

    def _found(self, event: Event) -> None:
        """A store was opened; it said this is in force."""
        if event["position"] != list(self.accepted.position):
            position = tuple(event["position"])
            self._accept(next(c for c in self.attempted if c.position == position))
        self.pins, self.attempted_pins = _pins_of(event["pins"]), []
        self._begun.clear()
        self.attempted.clear()

    def _accept(self, config: Accepted) -> None:
        self.accepted = config
        self.attempted = [c for c in self.attempted if c.position > config.position]
        self.copies = self.promised(config)

    def _copied(self, key: str, copies: int) -> None:
        # A look that found fewer says nothing about a copy on a dataset that is away.
        if copies > self.copies.get(key, 0):
            self.copies[key] = copies
            self.rotten.pop(key, None)  # all of them were looked at, or written anew


def _config_of(event: Event) -> Accepted:
    keys = event["keys"]
    return Accepted(event["epoch"], event["generation"], None if keys is None else frozenset(keys))


def _pins_of(pins: Mapping[str, Iterable[str]]) -> Pins:
    return {name: frozenset(keys) for name, keys in pins.items()}
