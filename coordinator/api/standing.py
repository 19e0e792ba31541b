"""How far the fleet is: what the database wants against what the last pass found. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Set
from dataclasses import dataclass, field
from itertools import chain
from typing import Final

from coordinator.replication.values import Inventory, SledInventory
from coordinator.replication_wire import (
    ArtifactCountsBody,
    LostArtifactBody,
    NoRoomBody,
    ReleaseStandingBody,
    SledStandingBody,
)
from coordinator.values import Release, Sled, SledPolicy
from coordinator.wire import SledBody
from depot.artifact import ArtifactHash

MAX_NAMED: Final = 20
"""Lost artifacts that are named for each release."""
Artifacts = frozenset[ArtifactHash]
_NOTHING: Final[Artifacts] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What is known of the fleet.

    Attributes:
        wanted: what every sled is to hold, with sizes in bytes; not what only one is to hold
            because it is pinned there: nobody can bring that.
        sleds: all, expunged ones too.
        releases: all.
        target: the version that the fleet is to run.
        inventory: of the last pass that came that far.
        arriving: by sled, what is on its way.
        came: by sled, what has come since `inventory`.
        no_room: by sled, what it refused for want of room, and why.
        lost: what is nowhere.
    """

    wanted: Mapping[ArtifactHash, int]
    sleds: tuple[Sled, ...]
    releases: tuple[Release, ...]
    target: str | None
    inventory: Inventory | None = None
    arriving: Mapping[str, Artifacts] = field(default_factory=dict)
    came: Mapping[str, Artifacts] = field(default_factory=dict)
    no_room: Mapping[str, Mapping[ArtifactHash, str]] = field(default_factory=dict)
    lost: Artifacts = _NOTHING


@dataclass(frozen=True, slots=True)
class Standing:
    """How far everything is."""

    releases: tuple[ReleaseStandingBody, ...]
    sleds: tuple[SledStandingBody, ...]
    artifacts: ArtifactCountsBody


@dataclass(frozen=True, slots=True)
class _OfSled:
    """What one sled is to hold, how many copies it has of that, and what it lacks.

    A fleet has a million of them: they are compared as sets and counted, never looked at one by
    one.
    """

    wanted: Set[ArtifactHash]
    copies: Counter[int]
    missing: Set[ArtifactHash]
    in_flight: Set[ArtifactHash]
    unwell: tuple[str, ...] = ()


def stand(known: Known) -> Standing:
    """Work it out; takes a while in a large fleet that lacks much."""
    seen = {} if known.inventory is None else {sled.id: sled for sled in known.inventory.sleds}
    found = {
        sled.id: _of_sled(known, sled.id, seen.get(sled.id))
        for sled in known.sleds
        if sled.policy is SledPolicy.IN_SERVICE
    }
    missing = Counter(chain.from_iterable(each.missing for each in found.values()))
    total_bytes = sum(known.wanted.values())
    moving = set().union(*(each.in_flight for each in found.values()))
    lacking = missing.keys() if found else known.wanted.keys()
    return Standing(
        releases=tuple(
            _release(release, known, missing.keys(), moving, any_sled=bool(found))
            for release in known.releases
        ),
        sleds=tuple(_sled(sled, known, found.get(sled.id), total_bytes) for sled in known.sleds),
        artifacts=_counted(known, lacking, moving),
    )


def _counted(
    known: Known, lacking: Set[ArtifactHash], moving: Set[ArtifactHash]
) -> ArtifactCountsBody:
    lost = known.lost & known.wanted.keys()
    in_flight = (lacking & moving) - lost
    return ArtifactCountsBody(
        replicated=len(known.wanted.keys() - lacking - lost),
        in_flight=len(in_flight),
        missing=len(lacking - in_flight - lost),
        lost=len(lost),
    )


def _of_sled(known: Known, sled_id: str, seen: SledInventory | None) -> _OfSled:
    wanted = known.wanted.keys()
    held = {} if seen is None else seen.held
    here = held.keys() & wanted
    came = known.came.get(sled_id, _NOTHING) & wanted - here
    of_interest = (
        held if len(here) == len(held) else {artifact: held[artifact] for artifact in here}
    )
    copies = Counter(of_interest.values())
    copies[1] += len(came)
    missing = wanted - held.keys() - came
    arriving = known.arriving.get(sled_id, _NOTHING) | (_NOTHING if seen is None else seen.arriving)
    unwell = () if seen is None else seen.unwell
    return _OfSled(wanted, copies, missing, missing & arriving, unwell)


def _release(
    release: Release,
    known: Known,
    missing: Collection[ArtifactHash],
    moving: Set[ArtifactHash],
    *,
    any_sled: bool,
) -> ReleaseStandingBody:
    artifacts = {artifact.sha256 for artifact in release.artifacts}
    # Where there is no sled, nothing is anywhere.
    lacking = {artifact for artifact in artifacts if artifact in missing or not any_sled}
    in_flight = lacking & moving
    return ReleaseStandingBody(
        version=release.version,
        state=release.state.value,
        target=release.version == known.target,
        artifacts=len(artifacts),
        fully_replicated=len(artifacts) - len(lacking),
        in_flight=len(in_flight),
        missing=len(lacking) - len(in_flight),
        lost=_lost(release, known.lost),
    )


def _lost(release: Release, lost: Artifacts) -> tuple[LostArtifactBody, ...]:
    names: dict[ArtifactHash, list[str]] = {}
    for artifact in release.artifacts:
        if artifact.sha256 in lost:
            names.setdefault(artifact.sha256, []).append(artifact.name)
    return tuple(
        LostArtifactBody(sha256=str(sha256), names=tuple(names[sha256]))
        for sha256 in sorted(names)[:MAX_NAMED]
    )


def _sled(sled: Sled, known: Known, found: _OfSled | None, total_bytes: int) -> SledStandingBody:
    own = SledBody.of(sled).model_dump()
    if found is None:  # expunged: nothing is wanted of it
        return SledStandingBody(
            **own,
            artifacts=0,
            artifacts_present=0,
            in_flight=0,
            copies={},
            bytes_wanted=0,
            bytes_to_go=0,
        )
    to_go = sum(known.wanted.get(artifact, 0) for artifact in found.missing)
    counted = {0: len(found.missing), **found.copies}
    return SledStandingBody(
        **own,
        artifacts=len(found.wanted),
        artifacts_present=len(found.wanted) - len(found.missing),
        in_flight=len(found.in_flight),
        copies={str(copies): counted[copies] for copies in sorted(counted) if counted[copies]},
        bytes_wanted=total_bytes,
        bytes_to_go=to_go,
        no_room=_no_room(known, sled.id, found.missing),
        unwell=found.unwell,
    )


def _no_room(known: Known, sled_id: str, missing: Set[ArtifactHash]) -> NoRoomBody | None:
    refused = known.no_room.get(sled_id, {})
    still = sorted(refused.keys() & missing)
    if not still:
        return None
    return NoRoomBody(
        artifacts=len(still),
        size_bytes=sum(known.wanted.get(artifact, 0) for artifact in still),
        reason=refused[still[0]],
    )
