"""The private keys of shards: files that only the coordinator's user can read, beside no database.

`<directory>/<shard id>.key`, mode 0600, in the text form that other programs write signers in:
`PRIVATE+KEY+name+key id+base64(0x01 || private key)`.

Rules kept here:
- A key is on stable storage before anything says that it is a shard's.
- A file that others can read is refused: what it signs proves nothing.

Everything here blocks: it is for a thread.
"""

from __future__ import annotations

import base64
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from coordinator.errors import JournalKeyMissing
from coordinator.journal.notes import BadNote, SignerKey, decoded

_PREFIX: Final = "PRIVATE+KEY+"
_ED25519: Final = b"\x01"
_MODE: Final = 0o600
_MAX_BYTES: Final = 4096


class KeyDirectory:
    """The keys that are on this machine."""

    def __init__(self, path: Path) -> None:
        self.path: Final = path

    def make(self, shard_id: str, name: str) -> SignerKey:
        """Make a key for a new shard.

        Raises:
            OSError: it cannot be written.
        """
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        key = SignerKey.new(name)
        file = os.open(self._file(shard_id), os.O_CREAT | os.O_EXCL | os.O_WRONLY, _MODE)
        with os.fdopen(file, "w", encoding="utf-8") as writer:
            writer.write(_written(key))
            writer.flush()
            os.fsync(writer.fileno())
        _sync(self.path)
        return key

    def load(self, shard_id: str) -> SignerKey:
        """Read the key of a shard.

        Raises:
            JournalKeyMissing: it is not here, can be read by others, or is none.
        """
        path = self._file(shard_id)
        try:
            with path.open(encoding="utf-8") as reader:
                if stat.S_IMODE(os.fstat(reader.fileno()).st_mode) & 0o077:
                    raise JournalKeyMissing(
                        f"others than the coordinator can read {path.name}, the key of shard "
                        f"{shard_id}; make its mode 0600, and rotate if somebody may have read it"
                    )
                return _read(reader.read(_MAX_BYTES))
        except (OSError, UnicodeDecodeError, BadNote) as error:
            reason = os.strerror(error.errno or 0) if isinstance(error, OSError) else str(error)
            raise JournalKeyMissing(
                f"the key of shard {shard_id} cannot be read here ({path.name}: {reason}); the "
                "coordinator that made the shard has it"
            ) from error

    def discard(self, shard_id: str) -> None:
        """Delete the key of a shard that never came to be."""
        self._file(shard_id).unlink(missing_ok=True)

    def every(self) -> Iterator[str]:
        """The ids of the shards whose keys are here."""
        yield from sorted(path.stem for path in self.path.glob("*.key"))

    def _file(self, shard_id: str) -> Path:
        return self.path / f"{shard_id}.key"


def _written(key: SignerKey) -> str:
    told = base64.b64encode(_ED25519 + key.secret).decode()
    return f"{_PREFIX}{key.verifier.name}+{key.verifier.id.hex()}+{told}\n"


def _read(text: str) -> SignerKey:
    name, _, rest = text.strip().removeprefix(_PREFIX).partition("+")
    its_id, _, told = rest.partition("+")
    content = decoded(told)
    if not text.startswith(_PREFIX) or content[:1] != _ED25519 or len(content) != 33:
        raise BadNote("it is no private key of Ed25519")
    key = SignerKey(name, content[1:])
    if key.verifier.id.hex() != its_id:
        raise BadNote("it has another id than its key")
    return key


def _sync(directory: Path) -> None:
    opened = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
