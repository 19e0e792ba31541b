"""Every body of the sled agent API, as it stands on the wire.

Rules kept here:
- Request bodies refuse unknown fields and every lax conversion (`true`, `1.0` and `"1"` are not
  integers). Answers are as strict about types, but a reader ignores fields it does not know: later
  versions only add, and an older client must not break on what was added.
- Hashes are accepted in any case and are lower-case, sorted and unique from here on.
- Times are RFC 3339 in UTC; sizes are bytes and end in `_bytes`.
- Lists are bounded by the body limit; the first wrong item ends the check, so that a bad body of
  100,000 hashes costs one error and not 100,000.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import pairwise
from typing import Annotated, Final, Literal, Self, overload

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    FailFast,
    Field,
    StringConstraints,
    WithJsonSchema,
)

from depot.artifact import MAX_GENERATION, ArtifactConfig, ArtifactHash, Generation
from depot.scrub.report import DEFAULT_PAUSE_S, MAX_PAUSE_S

MAX_SOURCES: Final = 16
MAX_URL_LENGTH: Final = 2048


def _unique_and_sorted(hashes: tuple[str, ...]) -> tuple[str, ...]:
    """Sort `hashes`, which are lower-case already; a repeated one is a mistake of the sender."""
    ordered = sorted(hashes)
    for one, another in pairwise(ordered):
        if one == another:
            raise ValueError(f"expected each hash once, found {one} twice")
    return tuple(ordered)


Sha256 = Annotated[
    str,
    StringConstraints(pattern=r"^[0-9a-fA-F]{64}$", to_lower=True),
    WithJsonSchema(
        {"type": "string", "format": "hex string (32 bytes)", "pattern": "^[0-9a-fA-F]{64}$"}
    ),
]
Sha256Set = Annotated[
    tuple[Sha256, ...],
    FailFast(),
    AfterValidator(_unique_and_sorted),
    Field(json_schema_extra={"uniqueItems": True}),
]
GenerationNumber = Annotated[
    int, Field(ge=0, le=MAX_GENERATION, json_schema_extra={"format": "uint64"})
]
Count = Annotated[int, Field(ge=0)]
DatasetPath = Annotated[str, StringConstraints(min_length=1, max_length=4096, pattern="^/")]
DepotUrl = Annotated[str, StringConstraints(max_length=MAX_URL_LENGTH)]


class Request(BaseModel):
    """A body that a client sends."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Answer(BaseModel):
    """A body that a server sends."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


def texts(artifacts: Iterable[ArtifactHash]) -> tuple[str, ...]:
    """Render hashes for the wire: lower-case, sorted, each once."""
    return tuple(sorted({artifact.digest.hex() for artifact in artifacts}))


def hashes(checked: Iterable[str]) -> frozenset[ArtifactHash]:
    """Turn strings that a model has checked into hashes."""
    return frozenset(ArtifactHash(bytes.fromhex(text)) for text in checked)


@overload
def timestamp(unix_s: float) -> datetime: ...
@overload
def timestamp(unix_s: float | None) -> datetime | None: ...
def timestamp(unix_s: float | None) -> datetime | None:
    """Render Unix seconds for the wire."""
    return None if unix_s is None else datetime.fromtimestamp(unix_s, UTC)


# ---- artifact config


class ArtifactConfigBody(Request):
    """What the sled is to hold. Request and answer alike."""

    generation: GenerationNumber
    artifacts: Sha256Set

    @classmethod
    def of(cls, config: ArtifactConfig) -> Self:
        """Render a config."""
        return cls(generation=int(config.generation), artifacts=texts(config.artifacts))

    def config(self) -> ArtifactConfig:
        """The value behind the body."""
        return ArtifactConfig(Generation(self.generation), hashes(self.artifacts))


class ConfigResetBody(Request):
    """Forget the config, if it is at the generation that the sender believes it is at."""

    expected_generation: GenerationNumber


# ---- artifacts


class ArtifactListBody(Answer):
    """The artifacts of the current config with at least one good copy, and how many copies."""

    generation: GenerationNumber
    list: dict[Sha256, Count]


class ArtifactPutBody(Answer):
    """How a put ended."""

    datasets: Count = Field(description="Healthy datasets on this sled.")
    successful_writes: Count = Field(description="Datasets that hold the artifact durably.")


class ArtifactCopyDetail(Answer):
    """One dataset's copy of an artifact."""

    dataset: str = Field(description="The dataset's path on the sled.")
    present: bool
    verified_at: AwareDatetime | None = Field(
        description="When the copy's bytes were last found to match its hash."
    )
    size_bytes: Count | None
    path: str | None = Field(description="The file, for consumers on the sled itself.")
    damaged: bool = Field(
        default=False,
        description="There is no good copy, but a damaged one, in its place or in quarantine.",
    )
    quarantined: tuple[str, ...] = Field(
        default=(), description="Ids of the copies in quarantine; see GET /quarantine."
    )


class ArtifactDetailBody(Answer):
    """Where an artifact is on this sled."""

    sha256: Sha256
    copies: tuple[ArtifactCopyDetail, ...]


# ---- copies


class CopyFromDepotBody(Request):
    """Where to fetch an artifact from: one depot, and others to fall over to."""

    depot_base_url: DepotUrl
    depot_base_urls: Annotated[tuple[DepotUrl, ...], Field(max_length=MAX_SOURCES)] = ()

    def sources(self) -> tuple[str, ...]:
        """Every source once, in the order in which they are to be tried."""
        return tuple(dict.fromkeys((self.depot_base_url, *self.depot_base_urls)))


class CopyStartedBody(Answer):
    """The copy that now runs, or ran already, for the artifact."""

    copy_id: str


CopyState = Literal["running", "succeeded", "failed", "superseded"]


class CopyBody(Answer):
    """One running or recent copy."""

    copy_id: str
    sha256: Sha256
    generation: GenerationNumber
    sources: tuple[str, ...]
    state: CopyState
    bytes_done: Count
    bytes_total: Count | None
    started_at: AwareDatetime
    finished_at: AwareDatetime | None = None
    error: str | None = None
    datasets: Count | None = None
    successful_writes: Count | None = None


class CopiesBody(Answer):
    """Running and recent copies, oldest first."""

    copies: tuple[CopyBody, ...]


# ---- pins


class PinBody(Request):
    """The artifacts that one local consumer holds. Request and answer alike."""

    artifacts: Sha256Set


class PinsBody(Answer):
    """Every pin by name."""

    pins: dict[str, PinBody]


# ---- quarantine


class QuarantinedBody(Answer):
    """A damaged copy that was set aside."""

    id: str
    sha256: Sha256
    dataset: str = Field(description="The dataset's path on the sled.")
    reason: str = Field(description="mismatch, short, unreadable or replaced; others may come.")
    time: AwareDatetime = Field(description="When it was set aside.")
    size_bytes: Count
    path: str = Field(description="The file, for an operator on the sled itself.")
    last_copy: bool = Field(
        description="Nothing deletes it: it is wanted, and no verified copy exists."
    )


class QuarantineBody(Answer):
    """Every damaged copy that was set aside, oldest first."""

    quarantined: tuple[QuarantinedBody, ...]


# ---- events


class EventBody(Answer):
    """Something that happened. What else it carries depends on its kind."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)

    sequence: Count
    time: AwareDatetime
    kind: str


class EventsBody(Answer):
    """A page of events, oldest first.

    A sequence number is never used twice in an epoch. A reader that sees another epoch than the
    one before starts again at `after=0`; one whose `after` is below `oldest - 1` has missed some.
    """

    epoch: str
    oldest: Count = Field(description="Number of the oldest event kept; 0 when there is none.")
    latest: Count = Field(description="Number of the newest event; 0 when there is none.")
    events: tuple[EventBody, ...]


# ---- scrub


class ScrubPauseBody(Request):
    """For how long nothing is to be verified in the background."""

    seconds: Annotated[int, Field(ge=1, le=MAX_PAUSE_S)] = DEFAULT_PAUSE_S


class ScrubPassBody(Answer):
    """One pass over the copies of one dataset."""

    requested: bool = Field(description="False: it was time for one.")
    started_at: AwareDatetime
    finished_at: AwareDatetime | None
    copies: Count = Field(description="Copies read so far.")
    copies_total: Count
    bytes_done: Count
    bytes_total: Count
    bad: Count = Field(description="Copies that turned out damaged or gone.")


class DatasetScrubBody(Answer):
    """How one dataset is verified. Counts without another word are since the agent started."""

    dataset: str
    state: Literal["idle", "running", "paused", "skipped"] = Field(
        description="`skipped` while the dataset is not healthy."
    )
    rate_bytes_per_s: float = Field(description="At most so fast is read now.")
    current: ScrubPassBody | None = Field(description="The pass that is to be gone on with.")
    last: ScrubPassBody | None = Field(description="The last pass that ended.")
    oldest_unverified_s: float | None = Field(
        description="Age of the oldest verification; of a copy never verified, since it was seen."
    )
    never_verified: Count
    copies: Count
    bytes: Count
    verified_bytes: Count
    bad_found: Count = Field(description="Copies found damaged or gone, by whatever read them.")
    healed: Count = Field(description="Of these: were made good.")
    heal_s: float = Field(description="Seconds from found to healed, summed.")
    last_heal_s: float | None
    waiting: Count = Field(description="Of these: still to be healed.")


class ScrubBody(Answer):
    """How the background verification is."""

    interval_s: float
    max_bytes_per_s: Count
    paused_until: AwareDatetime | None
    datasets: tuple[DatasetScrubBody, ...]


# ---- health and status


class HealthBody(Answer):
    """Whether the server can do its work, and if not, why."""

    status: Literal["ok", "unavailable"]
    reasons: tuple[str, ...] = ()


class DatasetBody(Answer):
    """One dataset: what it is, how it is, how full it is."""

    path: str
    dataset_id: str | None
    device: str | None
    mounted: bool
    state: Literal["healthy", "suspect", "missing", "released"]
    full: bool
    last_error: str | None
    quota_bytes: Count
    used_bytes: Count
    reserved_bytes: Count
    available_bytes: Count
    artifacts: Count
    quarantined: Count = Field(default=0, description="Damaged copies that were set aside.")
    quarantined_bytes: Count = Field(
        default=0, description="Their bytes, which are outside the quota."
    )
    in_doubt: Count = Field(
        default=0,
        description="Artifacts that do not count before they were verified again: the dataset "
        "failed in a way after which nothing on it is believed.",
    )
    worker_pid: int | None = Field(
        default=None, description="The process that works on it; null when there is none."
    )
    worker_hangs: bool = Field(
        default=False, description="A call to the device has had its time and has not ended."
    )
    left_behind: tuple[int, ...] = Field(
        default=(), description="Processes that were given up, and hang in the kernel."
    )


class DatasetsBody(Answer):
    """Every dataset, in the order of the configuration."""

    datasets: tuple[DatasetBody, ...]


class DatasetPathBody(Request):
    """Which dataset is meant."""

    path: DatasetPath


class DatasetReleaseBody(DatasetPathBody):
    """Which dataset is let go of."""

    last: bool = Field(
        default=False, description="Also when no other dataset can be read: nothing is served then."
    )


class DatasetReplaceBody(DatasetPathBody):
    """At which path an empty disk takes the place of what was there."""

    plain_directory: bool = Field(
        default=False, description="The path is meant to be no mount although others are."
    )


class ArtifactsBody(Answer):
    """Some artifacts: how many, and the first of them by name."""

    count: Count
    artifacts: tuple[Sha256, ...] = Field(description="The first of them, sorted.")


class HealingBody(Answer):
    """How far the background healing is."""

    todo: Count = Field(description="Artifacts that wait for copies, or are being healed.")
    todo_bytes: Count = Field(description="What is to be written for them, as far as known.")
    healed: Count = Field(description="Artifacts healed since the agent started.")
    heal_seconds: float = Field(description="What these took since they were found, in all.")
    failed: Count = Field(description="Of those in `todo`: could not be healed at the last try.")
    current: Sha256 | None
    lost: ArtifactsBody = Field(
        description="Wanted artifacts of which nobody has a good copy; what is left is kept."
    )


NO_HEALING: Final = HealingBody(
    todo=0,
    todo_bytes=0,
    healed=0,
    heal_seconds=0.0,
    failed=0,
    current=None,
    lost=ArtifactsBody(count=0, artifacts=()),
)


class RelayBody(Answer):
    """How much is served of what is still being received."""

    offered: bool = Field(
        default=False, description="Peers can fetch what is still being received (depot.relay)."
    )
    arriving: Count = Field(description="Artifacts that can be fetched while they arrive.")
    readers: Count = Field(description="Answers that are being sent from them.")
    sent_bytes: Count = Field(description="Sent from such since the agent started.")


NO_RELAY: Final = RelayBody(arriving=0, readers=0, sent_bytes=0)


class CopyCountsBody(Answer):
    """How many of the copies that GET /copies lists are in which state."""

    running: Count
    succeeded: Count
    failed: Count
    superseded: Count


class EventLogBody(Answer):
    """How the event log itself is."""

    epoch: str
    oldest: Count
    latest: Count
    persistent: bool = Field(description="False: events are in memory only and end with the agent.")
    dropped: Count = Field(description="Events lost since start, because too many came at once.")
    last_error: str | None


class DutyBody(Answer):
    """A background duty: whether its last run failed, and how often one has."""

    name: str
    failing: bool
    failures: Count
    last_error: str | None
    last_failed_at: AwareDatetime | None


class DiskBody(Answer):
    """The filesystem under a dataset, as the kernel sees it."""

    dataset: str
    device: str | None
    total_bytes: Count | None
    free_bytes: Count | None
    error: str | None


class ProcessBody(Answer):
    """The agent's own process."""

    rss_bytes: Count
    open_files: Count
    threads: Count
    cpu_percent: float


class NodeBody(Answer):
    """The machine the agent runs on, at `sampled_at`."""

    sampled_at: AwareDatetime
    cpu_count: Count
    cpu_percent: float
    load_1m: float
    load_5m: float
    load_15m: float
    memory_total_bytes: Count
    memory_available_bytes: Count
    process: ProcessBody
    disks: tuple[DiskBody, ...]


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


class StatusBody(Answer):
    """Everything about a sled in one document, for people and dashboards."""

    sled_id: str | None
    version: str
    uptime_s: float
    ledger: Literal["clear", "empty", "conflicted", "behind", "unknown"]
    ledger_epoch: Count
    generation: GenerationNumber | None
    generation_certain: bool
    config_digest: Sha256 | None
    datasets: tuple[DatasetBody, ...]
    under_replicated: ArtifactsBody = Field(
        description="Artifacts of the config with fewer good copies than there are datasets."
    )
    missing: ArtifactsBody = Field(
        default=ArtifactsBody(count=0, artifacts=()),
        description="Artifacts of the config without any good copy.",
    )
    deletions_held_until: AwareDatetime | None = Field(
        default=None,
        description="Until then nothing that the config dropped is deleted (storage.delete_grace).",
    )
    healing: HealingBody = NO_HEALING
    relay: RelayBody = NO_RELAY
    puts_running: Count
    copies: CopyCountsBody
    scrub: ScrubBody | None = None
    events: EventLogBody
    duties: tuple[DutyBody, ...]
    node: NodeBody | None = Field(description="None until the first sample is taken.")
    warnings: tuple[str, ...]


# ---- checkpoints of the fleet's journal


class CheckpointNoteBody(Request):
    """A checkpoint to be kept."""

    note: Annotated[str, StringConstraints(max_length=4096)] = Field(
        description="c2sp.org/tlog-checkpoint, signed; its signature is not looked at here."
    )


class CheckpointNotesBody(Answer):
    """The checkpoints that are kept: of each tree the first one, and the last ones."""

    notes: tuple[str, ...]
