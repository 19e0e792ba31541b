"""The state directory: what must outlive every dataset. The witness, and a lock of its own.

The witness names the highest config this node ever acknowledged, so that a boot with only a stale
dataset present cannot move the generation backwards (G1). All calls block.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Self

from depot import document
from depot.config.ledger import WITNESS_NAME, Attestation, Rank, decode_witness, encode_witness
from depot.dataset.small_files import STAGING, read_document, write_document
from depot.document import Unreadable
from depot.errors import DatasetBusy, FormatTooNew

_DOUBTED_NAME: Final = "doubted.json"
_DOUBTED_FORMAT: Final = 1
_PID_NAME: Final = "pid"
_PROBE_NAME: Final = "witness.probe"


class StateDir:
    """An open, locked state directory."""

    def __init__(self, path: Path, root_fd: int) -> None:
        self.path = path
        self._root = root_fd

    @classmethod
    def open(cls, path: Path) -> Self:
        """Make the directory if need be, and lock it for this process.

        Raises:
            DatasetBusy: another process uses it.
            OSError: it cannot be made or opened.
        """
        staging = path / STAGING
        staging.mkdir(parents=True, exist_ok=True, mode=0o700)
        root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _lock(root, path)
        except DatasetBusy:
            os.close(root)
            raise
        with suppress(OSError):  # help for people
            (path / _PID_NAME).write_text(f"{os.getpid()}\n")
        for staged in staging.iterdir():  # the lock is held, so whoever staged these is dead (Q3)
            with suppress(OSError):
                staged.unlink()
        return cls(path, root)

    def read_witness(self, sled_id: str | None) -> tuple[Attestation | None, str | None]:
        """Read the witness: what it says, or None and (unless there is none) the reason.

        Raises:
            FormatTooNew: it was written by a newer program.
        """
        try:
            content = read_document(self._root, WITNESS_NAME)
            if content is None:
                return None, None
            said = decode_witness(content)
        except FormatTooNew:
            raise
        except (OSError, Unreadable) as error:
            return None, f"the witness cannot be read: {error}"
        if None not in (said.sled_id, sled_id) and said.sled_id != sled_id:
            return None, f"the witness is about sled {said.sled_id}, this is sled {sled_id}"
        return said, None

    def known_sled_id(self) -> str | None:
        """Return the sled that the witness is about; None when it does not say.

        Raises:
            FormatTooNew: it was written by a newer program.
        """
        try:
            return decode_witness(read_document(self._root, WITNESS_NAME) or b"").sled_id
        except (OSError, Unreadable):
            return None  # `read_witness` reports it

    def write_witness(self, attestation: Attestation) -> None:
        """Replace the witness durably."""
        write_document(self._root, WITNESS_NAME, encode_witness(attestation))

    def try_witness(self, attestation: Attestation) -> None:
        """Write what `write_witness` would under another name, and remove it; raises OSError."""
        write_document(self._root, _PROBE_NAME, encode_witness(attestation))
        os.unlink(_PROBE_NAME, dir_fd=self._root)

    def read_doubted(self) -> frozenset[str]:
        """Return the datasets whose copies were not believed when the last process ended."""
        try:
            fields = document.decode(
                (self.path / _DOUBTED_NAME).read_bytes(), name=_DOUBTED_NAME, newest=_DOUBTED_FORMAT
            )
            found = fields.get("datasets")
            return frozenset(map(str, found)) if isinstance(found, list) else frozenset()
        except (OSError, Unreadable, FormatTooNew):
            return frozenset()  # the scrub verifies everything in its own time

    def write_doubted(self, dataset_ids: frozenset[str]) -> None:
        """Keep which datasets are not believed, so that a restart does not make them good."""
        fields = {"datasets": sorted(dataset_ids)}
        content = document.encode(fields, version=_DOUBTED_FORMAT)
        write_document(self._root, _DOUBTED_NAME, content)

    def close(self) -> None:
        """Release the lock."""
        with suppress(OSError):
            os.close(self._root)


def acknowledged(path: Path, sled_id: str | None) -> Rank | None:
    """Read what the state directory at `path` knows to have been acknowledged, if anything.

    Raises:
        FormatTooNew: it was written by a newer program.
    """
    try:
        root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:  # none was made yet, or it is another user's
        return None
    try:
        said, _ = StateDir(path, root).read_witness(sled_id)
        return said.rank if said else None
    finally:
        os.close(root)


@contextmanager
def kept_from_agents(path: Path) -> Iterator[None]:
    """Have no agent run on the state directory at `path` within the block; nothing is made there.

    Raises:
        DatasetBusy: one runs on it.
    """
    try:
        root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:  # none was made yet, or it is another user's: the datasets' locks tell
        yield
        return
    try:
        _lock(root, path)
        yield
    finally:
        os.close(root)


def _lock(root_fd: int, path: Path) -> None:
    try:
        fcntl.flock(root_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = "unknown"
        with suppress(OSError):
            holder = (path / _PID_NAME).read_text(errors="replace")[:32].strip() or holder
        # An agent's or a coordinator's: who opens it knows which, and says so.
        raise DatasetBusy(
            f"{path} is the state directory of a running process (pid {holder})"
        ) from error
