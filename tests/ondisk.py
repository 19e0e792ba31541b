"""What a dataset directory holds, read without the project's own code: `os`, `hashlib` and `json`.

Tests that judge what a crash or a fault left behind look here, so that a bug in the store cannot
hide itself.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

LEDGER: Final = "artifact-config.json"
WITNESS: Final = "witness.json"
METADATA: Final = ".sled-depot"
_ARTIFACT_NAME: Final = re.compile(r"[0-9a-f]{64}")


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def artifact_files(dataset: Path) -> dict[str, os.stat_result]:
    """Every regular file named by a hash, but for those that go while it looks.

    Raises:
        FileNotFoundError: the directory itself is not there.
    """
    found = {}
    with os.scandir(dataset) as entries:
        for entry in entries:
            if _ARTIFACT_NAME.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                with suppress(FileNotFoundError):  # gone since; the others are here all the same
                    found[entry.name] = entry.stat(follow_symlinks=False)
    return found


def wrong_bytes(dataset: Path) -> list[str]:
    """Artifact files whose bytes do not hash to their name (B1), leaving out those that go."""
    wrong = []
    for name in sorted(artifact_files(dataset)):
        with suppress(FileNotFoundError):  # set aside, by a store that is at work
            if sha256((dataset / name).read_bytes()) != name:
                wrong.append(name)
    return wrong


def staged_files(root: Path) -> list[Path]:
    """What lies in the staging directory of a dataset or a state directory."""
    staging = root / METADATA / "staging"
    return sorted(staging.iterdir()) if staging.is_dir() else []


def quarantined_files(dataset: Path, name: str = "") -> list[Path]:
    """What lies in the quarantine, of one artifact or of all."""
    quarantine = dataset / METADATA / "quarantine"
    return sorted(quarantine.glob(f"{name}*")) if quarantine.is_dir() else []


def stored_bytes(dataset: Path) -> int:
    """Bytes of artifacts and staged files: what the quota is about."""
    staged_bytes = 0
    for path in staged_files(dataset):
        with suppress(FileNotFoundError):  # just removed, by a write that was left behind
            staged_bytes += path.stat().st_size
    return sum(found.st_size for found in artifact_files(dataset).values()) + staged_bytes


@dataclass(frozen=True)
class LedgerFile:
    """An intact ledger; `generation` is None after a reset."""

    epoch: int
    generation: int | None
    artifacts: frozenset[str]
    delete_not_before_s: float

    @property
    def position(self) -> tuple[int, int]:
        return self.epoch, -1 if self.generation is None else self.generation

    @property
    def graced(self) -> bool:
        return self.delete_not_before_s > time.time()


def read_witness(state_dir: Path) -> tuple[int, int, str] | None:
    """Epoch, generation and the config's digest that the witness names; None without a config."""
    path = state_dir / WITNESS
    said = json.loads(path.read_bytes()) if path.exists() else {}
    if said.get("generation") is None:
        return None
    return said["epoch"], said["generation"], said["config_digest"]


def read_ledger(dataset: Path) -> LedgerFile | None:
    """Parse the ledger; None when there is none.

    Raises:
        ValueError: it is torn, or its checksum is not over its contents.
    """
    try:
        fields = json.loads((dataset / LEDGER).read_bytes())
    except FileNotFoundError:
        return None
    checksum = fields.pop("checksum")
    canonical = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    if checksum != sha256(canonical.encode()):
        raise ValueError(f"{dataset / LEDGER}: checksum")
    return LedgerFile(
        fields["epoch"],
        fields["generation"],
        frozenset(fields["artifacts"] or ()),
        fields["delete_not_before_s"],
    )
