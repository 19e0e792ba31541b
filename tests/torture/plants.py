"""Bugs to be planted, one at a time, in a copy of the code: a campaign has to notice each of them.

A plant replaces a piece of text that stands in its file exactly once, so that one whose text was
rewritten is noticed and not silently skipped. `by` names the campaigns to ask, the likeliest first.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final


@dataclass(frozen=True, slots=True)
class Plant:
    """One bug.

    Attributes:
        bug: what is wrong then, for people.
        file: relative to the checkout.
        by: campaigns that have to catch it, the likeliest first.
        case: of the campaign `syscalls`, which has thousands: the one to begin with.
    """

    bug: str
    file: str
    old: str
    new: str
    by: tuple[str, ...]
    case: str | None = None

    def apply(self, root: Path) -> None:
        """Plant it in a copy of the checkout.

        Raises:
            ValueError: its text is not there exactly once.
        """
        path = root / self.file
        before = path.read_text()
        if before.count(self.old) != 1:
            found = before.count(self.old)
            raise ValueError(f"{self.bug}: expected its text once in {self.file}, found {found}")
        path.write_text(before.replace(self.old, self.new))


# How a crash is noticed depends on what is lost with it: the power, or only the process.
_POWER: Final = ("power-cut", "write-replay")
_CRASH: Final = ("kill", "kill-at-call", "power-cut")
_MODEL: Final = ("model", "kill", "kill-at-call")
_FAULTS: Final = ("syscalls", "model")

PLANTS: Final = (
    Plant(
        "an artifact's file is not synced",
        "depot/dataset/dataset.py",
        "            small_files.sync_file(fd, self.disk)\n",
        "            pass\n",
        _POWER,
    ),
    Plant(
        "the directory is not synced after an artifact got its name",
        "depot/dataset/dataset.py",
        "                small_files.sync_names(self._root, self.disk)\n",
        "",
        _POWER,
    ),
    Plant(
        "what is written together is not synced",
        "depot/dataset/publishing.py",
        "        self._dataset.sync_whole(self._root)\n",
        "        pass\n",
        _POWER,
    ),
    Plant(
        "the directory is not synced where several artifacts got their names",
        "depot/dataset/dataset.py",
        "                small_files.sync_names(self._root, self.disk)\n",
        "                if len(artifacts) == 1:\n"
        "                    small_files.sync_names(self._root, self.disk)\n",
        _POWER,
    ),
    Plant(
        "puts are answered before their batch is durable",
        "depot/writing/group_commit.py",
        "            outcomes = await self._mirror.wait(call)\n",
        "            outcomes: list[Published | OSError] = [Published(None)] * len(here)\n",
        _CRASH,
    ),
    Plant(
        "the fence is not asked after a batch",
        "depot/writing/commit.py",
        "        self._check_fence()  # for the last time\n",
        "",
        _MODEL,
    ),
    Plant(
        "a document (ledger, pins, marker) is not synced",
        "depot/dataset/small_files.py",
        "            sync_file(fd, disk)\n",
        "",
        _POWER,
    ),
    Plant(
        "the directory is not synced after a document was replaced",
        "depot/dataset/small_files.py",
        '    sync_directory(root_fd, os.path.dirname(name) or ".", disk)\n\n\ndef write_all',
        "\n\ndef write_all",
        _POWER,
    ),
    Plant(
        "documents are written in place",
        "depot/dataset/small_files.py",
        '    staged = f"{STAGING}/{secrets.token_hex(16)}"\n'
        "    fd = disk.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644,",
        "    staged = name\n"
        "    fd = disk.open(staged, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644,",
        ("kill-at-call", *_POWER),
    ),
    Plant(
        "a short write is taken for a whole one",
        "depot/dataset/small_files.py",
        "        content = content[disk.write(fd, content) :]\n",
        "        disk.write(fd, content)\n        return\n",
        _FAULTS,
        case="config: write on dataset 1: short, 1 time(s)",
    ),
    Plant(
        "a short write of an artifact is taken for a whole one",
        "depot/dataset/staging.py",
        "            content = content[self._write_some(content) :]\n",
        "            self._write_some(content)\n            return\n",
        _FAULTS,
        case="put-blocks: write on dataset 1: short, 1 time(s)",
    ),
    Plant(
        "a failed sync is tried again, and believed",
        "depot/dataset/small_files.py",
        "    try:\n        disk.fsync(fd)\n    except OSError as error:\n",
        "    try:\n        try:\n            disk.fsync(fd)\n        except OSError:\n"
        "            disk.fsync(fd)\n    except OSError as error:\n",
        _FAULTS,
        case="put-small: fsync on dataset 1: EIO, 1 time(s)",
    ),
    Plant(
        "a failed sync of an artifact is tried again, and believed",
        "depot/dataset/dataset.py",
        "            small_files.sync_file(fd, self.disk)\n",
        "            try:\n                small_files.sync_file(fd, self.disk)\n"
        "            except SyncFailed:\n                small_files.sync_file(fd, self.disk)\n",
        _FAULTS,
        case="put-blocks: fsync on dataset 1: EIO, 1 time(s)",
    ),
    Plant(
        "a failed sync of a directory is tried again, and believed",
        "depot/dataset/small_files.py",
        "    try:\n        disk.fsync_directory(fd)\n    except OSError as error:\n",
        "    try:\n        try:\n            disk.fsync_directory(fd)\n        except OSError:\n"
        "            disk.fsync_directory(fd)\n    except OSError as error:\n",
        _FAULTS,
        case="config: fsyncdir on dataset 1: EIO, 1 time(s)",
    ),
    Plant(
        "a sync of a directory is believed beside one that failed",
        "depot/dataset/durability.py",
        "        if names and self.failures != before:\n",
        "        if False:\n",
        ("syscalls",),
        case="put-beside-config: fsyncdir on dataset 1: beside, 1 time(s)",
    ),
    Plant(
        "a dataset that returns keeps the pins that it had",
        "depot/config/keeper.py",
        "            await self._writer.spread(PINS_DOCUMENT, pins, joining)\n",
        "            await self._writer.spread(PINS_DOCUMENT, pins, ())\n",
        ("syscalls", "kill-at-call"),
        case="pin: rename on dataset 1: EIO, 1 time(s)",
    ),
    Plant(
        "a name that could not be made durable is believed",
        "depot/dataset/durability.py",
        "                self._disowned |= ours & uncertain\n",
        "",
        _FAULTS,
        case="put-small: fsyncdir on dataset 1: EIO, 1 time(s)",
    ),
    Plant(
        "a document is believed because it reads well",
        "depot/dataset/dataset.py",
        "        if self.durability.has_written(name, content):\n",
        "        if True:\n",
        _FAULTS,
        case="config: fsyncdir on dataset 1: EIO, 1 time(s)",
    ),
    Plant(
        "a put that reached one dataset says that it reached both",
        "depot/writing/stored.py",
        "        return Stored(len(self._healthy), copies,",
        "        copies = len(self._healthy)\n        return Stored(len(self._healthy), copies,",
        ("syscalls", "model", "power-cut"),
    ),
    Plant(
        "what is sent again is not written where a rotten copy stands",
        "depot/writing/room.py",
        "        verified = await asyncio.gather(*map(self._verify, found))\n",
        "        verified = [True for _ in found]\n",
        ("rot", "syscalls"),
    ),
    Plant(
        "the hash of what arrived is not compared",
        "depot/writing/put.py",
        "        if ingested.digest != self._artifact:\n",
        "        if False:\n",
        _MODEL,
    ),
    Plant(
        "the length of what arrived is not compared, nor its hash",
        "depot/writing/put.py",
        "            raise LengthMismatch(self._length_bytes or 0, ingested.size_bytes)\n"
        "        if ingested.digest != self._artifact:\n",
        "            return\n        if ingested.digest != self._artifact:\n",
        _MODEL,
    ),
    Plant(
        "the fence is not asked again when a put lands",
        "depot/writing/commit.py",
        "        fencing.check_commit(self._desk",
        "        lambda: fencing.check_commit(self._desk",
        _MODEL,
    ),
    Plant(
        "a put that is refused at its commit stays under its name",
        "depot/writing/commit.py",
        "                await self.take_back(published, ingested)\n",
        "",
        _MODEL,
    ),
    Plant(
        "space is not reserved: what was promised to others is not counted",
        "depot/mirrors/quota.py",
        "        return max(0, self.limit_bytes - self._used_bytes - self._reserved_bytes)\n",
        "        return max(0, self.limit_bytes - self._used_bytes)\n",
        _MODEL,
    ),
    Plant(
        "a reservation is not given back",
        "depot/mirrors/quota.py",
        "        self._quota._move_reserved(-size_bytes)\n",
        "",
        _MODEL,
    ),
    Plant(
        "a config of a lower generation is accepted",
        "depot/config/fencing.py",
        "    if int(proposed.generation) <= floor.generation:\n",
        "    if int(proposed.generation) == floor.generation:\n",
        ("ledger", "model"),
    ),
    Plant(
        "the same generation is accepted with other contents",
        "depot/config/fencing.py",
        "    if int(proposed.generation) <= floor.generation:\n",
        "    if int(proposed.generation) < floor.generation:\n",
        ("ledger", "model"),
    ),
    Plant(
        "a config that drops a pinned artifact is accepted",
        "depot/config/fencing.py",
        "    if dropped:\n        raise ArtifactInUse(dropped)\n",
        "",
        _MODEL,
    ),
    Plant(
        "pinned artifacts are deleted",
        "depot/config/fencing.py",
        " or artifact in pinned or artifact in in_flight)\n",
        " or artifact in in_flight)\n",
        _MODEL,
    ),
    Plant(
        "the reconciler does not look again before it deletes",
        "depot/healing/reconciler.py",
        "                if self._deletable((artifact,)):\n",
        "                if True:\n",
        _MODEL,
    ),
    Plant(
        "no grace before a mass deletion",
        "depot/config/fencing.py",
        "    starts = now_s + grace_s if 2 * len(dropped) > len(held) else 0.0\n",
        "    starts = 0.0\n",
        _MODEL,
    ),
    Plant(
        "the oldest ledger wins",
        "depot/config/ledger.py",
        "    newest = max(readings.ledgers,",
        "    newest = min(readings.ledgers,",
        ("ledger", "power-cut"),
    ),
    Plant(
        "the witness is not believed",
        "depot/config/ledger.py",
        "    if witness is not None and witness.position > newest.rank.position:\n",
        "    if False:\n",
        ("ledger",),
    ),
    Plant(
        "the witness is not written",
        "depot/config/state_dir.py",
        "        write_document(self._root, WITNESS_NAME, encode_witness(attestation))\n",
        "",
        ("ledger", "model"),
    ),
    Plant(
        "ledgers that disagree are not noticed",
        "depot/config/ledger.py",
        "    if len(rivals) > 1:\n",
        "    if False:\n",
        ("ledger", "model"),
    ),
    Plant(
        "another sled's ledger is believed",
        "depot/config/ledger.py",
        "    if None not in (whose, sled_id) and whose != sled_id:\n",
        "    if False:\n",
        ("ledger",),
    ),
    Plant(
        "the checksum of a document is not compared",
        "depot/document.py",
        '    intact = fields.pop("checksum", None) == _checksum(fields)\n',
        '    intact = fields.pop("checksum", None) is not None\n',
        ("ledger", "model"),
    ),
    Plant(
        "an unreadable ledger is an absent one",
        "depot/config/ledger.py",
        "        standing = Standing.UNKNOWN if readings.unseen else Standing.EMPTY\n",
        "        standing = Standing.EMPTY\n",
        ("ledger", "model"),
    ),
    Plant(
        "a reset does not raise the epoch",
        "depot/config/keeper.py",
        "        await self._accept(Ledger(floor.epoch + 1, None))\n",
        "        await self._accept(Ledger(floor.epoch, None))\n",
        _MODEL,
    ),
    Plant(
        "a dataset that returns is not brought up to date",
        "depot/config/keeper.py",
        "            outcomes = await self._writer.spread(LEDGER_NAME, content, joining)\n",
        "            outcomes = await self._writer.spread(LEDGER_NAME, content, ())\n",
        _MODEL,
    ),
    Plant(
        "what dead writers staged is not removed",
        "depot/dataset/dataset.py",
        "                        self.disk.unlink(name, dir_fd=staging)\n",
        "                        pass\n",
        _CRASH,
    ),
    Plant(
        "what was set aside for deletion gets no name again after a crash",
        "depot/dataset/dataset.py",
        "        for name in names:\n            self.bring_back(",
        "        for name in names[:0]:\n            self.bring_back(",
        _CRASH,
    ),
    Plant(
        "the path is not looked at before a write",
        "depot/dataset/dataset.py",
        "        if not there:\n",
        "        if False:\n",
        _MODEL,
    ),
    Plant(
        "a copy is called good by its size",
        "depot/mirrors/verify.py",
        "            return Verdict.GOOD if step.digest == artifact.digest else Verdict.BAD\n",
        "            return Verdict.GOOD\n",
        ("rot", "model"),
    ),
    Plant(
        "a block that does not match leaves",
        "depot/streams/verified_read.py",
        "        if not self._digests.matches(start, block):\n",
        "        if False:\n",
        ("rot", "model"),
    ),
    Plant(
        "block digests are believed whatever their checksum",
        "depot/streams/block_digests.py",
        "hashlib.sha256(body).digest() != checksum:\n",
        "False:\n",
        ("rot",),
    ),
    Plant(
        "what is gone from every dataset is neither healed nor said to be lost",
        "depot/healing/todo.py",
        "self._had.among(lacks.all))\n",
        "[])\n",
        ("rot",),
    ),
    Plant(
        "what this sled has had is forgotten when it is restarted",
        "depot/healing/todo.py",
        "        await self._had.recall()\n",
        "",
        ("rot",),
    ),
    Plant(
        "a copy that a reader finds gone wakes nobody",
        "depot/parts.py",
        '"dataset": str(mirror.path)})\n            self.wanted.heal.set()\n',
        '"dataset": str(mirror.path)})\n',
        ("rot",),
    ),
    Plant(
        "a copy that is found gone is not told of",
        "depot/parts.py",
        '            self.emit("copy_gone", '
        '{"sha256": str(artifact), "dataset": str(mirror.path)})\n',
        "",
        ("rot",),
    ),
    Plant(
        "a copy that a reader finds damaged wakes nobody",
        "depot/parts.py",
        "self.quarantine, on_damage=self.wanted.heal.set\n",
        "self.quarantine, on_damage=lambda: None\n",
        ("rot",),
    ),
    Plant(
        "a copy is verified through the page cache",
        "depot/dataset/verification.py",
        "        self._direct = _try_direct(fd)\n",
        "        self._direct = False\n"
        "        self._drop_cached = lambda *_: None  # type: ignore[method-assign]\n",
        ("rot-below",),
    ),
    Plant(
        "a copy is verified without direct reads: what is mapped stays in memory",
        "depot/dataset/verification.py",
        "        self._direct = _try_direct(fd)\n",
        "        self._direct = False\n",
        ("rot-below",),
    ),
)
