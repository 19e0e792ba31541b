"""What is told of a change, as the rows that are written with it.

It has no place in the journal yet: `coordinator.journal` gives it one, in a transaction of its own.
"""

from __future__ import annotations

import itertools
import json
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from coordinator.values import Told
from depot.artifact import ArtifactHash

_numbers: Final = itertools.count()
# Begins anew so rarely that it does so in the middle of no transaction, which has one time.
_NUMBERS: Final = 1 << 32


@dataclass(frozen=True, slots=True)
class Written:
    """The rows of what was told: of `journal_told`, and of `journal_artifacts`."""

    told: tuple[Mapping[str, Any], ...]
    artifacts: tuple[Mapping[str, Any], ...]


def written(told: Iterable[Told], now_s: float) -> Written:
    """Make rows of what is told at Unix time `now_s`."""
    entries = [(new_id(now_s), each) for each in told]
    return Written(
        tuple(entry_row(entry_id, each, now_s) for entry_id, each in entries),
        tuple(
            {"sha256": sha256, "entry_id": entry_id}
            for entry_id, each in entries
            for sha256 in dict.fromkeys(each.artifacts)
        ),
    )


def entry_row(entry_id: str, told: Told, now_s: float) -> dict[str, Any]:
    """What is kept of one entry, but for its place."""
    time_s = now_s if told.time_s is None else told.time_s
    epoch, sequence = told.source or (None, None)
    return {
        "id": entry_id,
        "time": time_s,
        "kind": told.kind,
        "sled_id": told.sled_id,
        "release": told.release,
        "epoch": epoch,
        "sequence": sequence,
        "content": _content(entry_id, told, time_s),
    }


def new_id(now_s: float) -> str:
    """An id that no other entry has, in whichever process; later ones are greater."""
    return f"{round(now_s * 1e6):016x}{next(_numbers) % _NUMBERS:08x}{secrets.token_hex(6)}"


def _content(entry_id: str, told: Told, time_s: float) -> str:
    """The entry itself, of which the leaf is the hash: always the same text for the same entry."""
    content: dict[str, object] = {
        "id": entry_id,
        "time": time_s,
        "kind": told.kind,
        "sled": told.sled_id,
        "release": told.release,
        "artifacts": [_hex(sha256) for sha256 in dict.fromkeys(told.artifacts)],
        "data": dict(told.data),
    }
    if told.source is not None:
        content["source"] = {"epoch": told.source[0], "sequence": told.source[1]}
    said = {name: value for name, value in content.items() if value not in (None, [], {})}
    return json.dumps(said, sort_keys=True, separators=(",", ":"), default=str)


def _hex(sha256: ArtifactHash) -> str:
    return sha256.digest.hex()
