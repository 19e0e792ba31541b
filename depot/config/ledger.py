"""The ledger: what config a dataset says was accepted last, and which of several is believed.

Pure. On disk it is `artifact-config.json` on each dataset, one JSON document with `generation` at
its start; the witness in the state directory remembers the highest one this node ever acknowledged.
Order is by (epoch, generation): a reset raises the epoch, so a disk that was away at the time does
not bring the old generation back. Keeps G1, G2 and G4.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Final

from depot import document
from depot.artifact import ArtifactConfig, ArtifactHash, Generation
from depot.document import Unreadable
from depot.errors import InvalidRequest

LEDGER_NAME: Final = "artifact-config.json"
FORMAT: Final = 1


@dataclass(frozen=True)
class Ledger:
    """One accepted state: a config (None: none since the last reset) and its place in history.

    Attributes:
        epoch: raised by each reset.
        delete_not_before_s: Unix time before which nothing is deleted (D4).
    """

    epoch: int
    config: ArtifactConfig | None
    delete_not_before_s: float = 0.0

    @cached_property
    def rank(self) -> Rank:
        """What is compared."""
        if self.config is None:
            return Rank(self.epoch, -1, None)
        return Rank(self.epoch, int(self.config.generation), self.config.digest)


@dataclass(frozen=True, slots=True)
class Rank:
    """(epoch, generation) with the digest of the contents; generation -1 means no config."""

    epoch: int
    generation: int
    digest: ArtifactHash | None

    @property
    def position(self) -> tuple[int, int]:
        """The part that orders."""
        return self.epoch, self.generation


class Standing(StrEnum):
    """How far the ledger can be relied on."""

    CLEAR = "clear"
    EMPTY = "empty"
    CONFLICTED = "conflicted"
    BEHIND = "behind"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Resolved:
    """What a node believes after looking at every ledger it can see.

    Attributes:
        ledger: the newest intact one; with CONFLICTED or BEHIND its config is not to be acted on.
        floor: no config below this position is accepted.
        certain: no unseen ledger can be newer.
    """

    standing: Standing
    ledger: Ledger
    floor: Rank
    certain: bool

    @property
    def config(self) -> ArtifactConfig | None:
        """The config that may be acted on, if there is one."""
        return self.ledger.config if self.standing is Standing.CLEAR else None


NO_LEDGER: Final = Ledger(epoch=0, config=None)


@dataclass(frozen=True, slots=True)
class Readings:
    """What was found where ledgers are expected.

    Attributes:
        ledgers: the intact ones.
        absent: datasets that are present and have none.
        unseen: datasets that are away, or whose ledger cannot be read.
    """

    ledgers: Sequence[Ledger]
    absent: int = 0
    unseen: int = 0


def resolve(readings: Readings, witness: Rank | None, *, witness_certain: bool = True) -> Resolved:
    """Decide what to believe: the highest valid generation, unless the evidence disagrees."""
    if not readings.ledgers and witness is None:
        standing = Standing.UNKNOWN if readings.unseen else Standing.EMPTY
        return Resolved(standing, NO_LEDGER, NO_LEDGER.rank, certain=not readings.unseen)
    newest = max(readings.ledgers, key=lambda ledger: ledger.rank.position, default=NO_LEDGER)
    certain = (witness is not None and witness_certain) or not readings.unseen
    if witness is not None and witness.position > newest.rank.position:
        if witness.digest is None:  # what was acknowledged last is a reset: nothing is missing
            reset = Ledger(witness.epoch, None)
            return Resolved(Standing.EMPTY, reset, reset.rank, certain)
        return Resolved(Standing.BEHIND, newest, witness, certain)
    ranks = {ledger.rank for ledger in readings.ledgers}
    if witness is not None:
        ranks.add(witness)
    rivals = [rank for rank in ranks if rank.position == newest.rank.position]
    if len(rivals) > 1:
        return Resolved(Standing.CONFLICTED, newest, newest.rank, certain)
    standing = Standing.EMPTY if newest.config is None else Standing.CLEAR
    return Resolved(standing, _latest_grace(newest, readings.ledgers), newest.rank, certain)


def _latest_grace(newest: Ledger, ledgers: Iterable[Ledger]) -> Ledger:
    # Equal ledgers can differ in their grace only; the longer one can hurt nobody.
    grace_s = max(x.delete_not_before_s for x in (newest, *ledgers) if x.rank == newest.rank)
    return Ledger(newest.epoch, newest.config, grace_s)


def encode_ledger(ledger: Ledger, sled_id: str | None = None) -> bytes:
    """Serialise for `artifact-config.json`; `sled_id` names whose it is."""
    config = ledger.config
    fields = {
        "generation": None if config is None else int(config.generation),
        "epoch": ledger.epoch,
        "delete_not_before_s": ledger.delete_not_before_s,
        "sled_id": sled_id,
        "artifacts": None if config is None else config.ordered,
    }
    return document.encode(fields, version=FORMAT)


def decode_ledger(content: bytes, sled_id: str | None = None) -> Ledger:
    """Parse `artifact-config.json`; one that names another sled than `sled_id` is none of ours.

    A document without `format` is the reference implementation's (generation and artifacts, no
    checksum): it is read as epoch 0 and written back in today's format.

    Raises:
        Unreadable: torn, empty, altered, or another sled's.
        FormatTooNew: see `document.decode`.
    """
    fields = document.parse_object(content, name=LEDGER_NAME)
    if "format" in fields:
        fields = document.checked(fields, name=LEDGER_NAME, newest=FORMAT)
    elif "checksum" in fields or "epoch" in fields:
        raise Unreadable(f"{LEDGER_NAME}: expected a format version, found none")
    whose = fields.get("sled_id")
    if None not in (whose, sled_id) and whose != sled_id:
        raise Unreadable(f"{LEDGER_NAME} is of sled {whose}, this is sled {sled_id}")
    try:
        return _ledger_of(fields)
    except (KeyError, TypeError, OverflowError, InvalidRequest) as error:
        raise Unreadable(f"{LEDGER_NAME}: {error!r}") from error


def _ledger_of(fields: dict[str, object]) -> Ledger:
    epoch, grace_s = fields.get("epoch", 0), fields.get("delete_not_before_s", 0.0)
    if not isinstance(epoch, int) or epoch < 0 or not isinstance(grace_s, (int, float)):
        raise TypeError(f"epoch {epoch!r}, delete_not_before_s {grace_s!r}")
    generation, artifacts = fields["generation"], fields["artifacts"]
    if generation is None:
        return Ledger(epoch, None, float(grace_s))
    if not isinstance(artifacts, list | tuple) or not isinstance(generation, int):
        raise TypeError(f"generation {generation!r}, artifacts of {type(artifacts).__name__}")
    read = artifacts if isinstance(artifacts, tuple) else map(ArtifactHash.parse, artifacts)
    return Ledger(epoch, ArtifactConfig.make(generation, read), float(grace_s))


WITNESS_NAME: Final = "witness.json"


@dataclass(frozen=True, slots=True)
class Attestation:
    """What the witness says.

    Attributes:
        rank: the highest that was acknowledged.
        sled_id: the sled that it is about.
        certain: when it was written, no dataset that was away could know of a higher one.
    """

    rank: Rank
    sled_id: str | None = None
    certain: bool = True


def encode_witness(attestation: Attestation) -> bytes:
    """Serialise for `witness.json`."""
    rank = attestation.rank
    fields = {
        "generation": None if rank.generation < 0 else rank.generation,
        "epoch": rank.epoch,
        "config_digest": None if rank.digest is None else str(rank.digest),
        "sled_id": attestation.sled_id,
        "certain": attestation.certain,
    }
    return document.encode(fields, version=FORMAT)


def decode_witness(content: bytes) -> Attestation:
    """Parse `witness.json`; one that does not say whether it was certain was.

    Raises:
        Unreadable: torn, empty or altered.
        FormatTooNew: see `document.decode`.
    """
    fields = document.decode(content, name=WITNESS_NAME, newest=FORMAT)
    try:
        rank = _witnessed(fields["epoch"], fields["generation"], fields["config_digest"])
        sled_id = fields["sled_id"]
    except (KeyError, TypeError, InvalidRequest) as error:
        raise Unreadable(f"{WITNESS_NAME}: {error!r}") from error
    certain = fields.get("certain", True) is True
    return Attestation(rank, sled_id if isinstance(sled_id, str) else None, certain)


def _witnessed(epoch: object, generation: object, digest: object) -> Rank:
    if not isinstance(epoch, int) or epoch < 0:
        raise TypeError(f"epoch {epoch!r}")
    if generation is None and digest is None:
        return Rank(epoch, -1, None)
    if not isinstance(generation, int) or not isinstance(digest, str):
        raise TypeError(f"generation {generation!r}, config_digest {digest!r}")
    return Rank(epoch, int(Generation(generation)), ArtifactHash.parse(digest))
