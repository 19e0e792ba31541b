"""What is safe on sleds, and what is only in whose staging. Pure.

Rule kept here (F2, F5): only sleds count. What another coordinator has staged as well may be gone
with its disk, or be let go of by one that counts on this one in the same moment.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Set

from agent.wire.fields import timestamp
from coordinator.api.standing import Known
from coordinator.replication_wire import CoordinatorBody
from coordinator.values import KnownCoordinator, SledPolicy
from depot.artifact import ArtifactHash

Staged = Mapping[str, frozenset[ArtifactHash]]


def not_on_sleds(known: Known, artifacts: Collection[ArtifactHash]) -> Set[ArtifactHash]:
    """Those of `artifacts` that are wanted, and on no sled that answered in the last pass.

    Takes a while in a large fleet that lacks much.
    """
    left = known.wanted.keys() & set(artifacts)
    in_service = {sled.id for sled in known.sleds if sled.policy is SledPolicy.IN_SERVICE}
    for sled_id in in_service:
        left.difference_update(known.came.get(sled_id, ()))
    for seen in () if known.inventory is None else known.inventory.sleds:
        # What one that is set aside once had, it may have lost since.
        if left and seen.set_aside is None and seen.id in in_service:
            left = _without(left, seen.held)
    return left


def _without(left: set[ArtifactHash], held: Mapping[ArtifactHash, int]) -> set[ArtifactHash]:
    """Walks through the smaller of the two: a sled holds much of which nothing is staged."""
    if len(left) < len(held):
        return {artifact for artifact in left if artifact not in held}
    return left.difference(held)


def render(
    coordinators: Collection[KnownCoordinator], staged: Staged, known: Known
) -> tuple[CoordinatorBody, ...]:
    """Each coordinator, with what would be lost with it."""
    left = {id_: not_on_sleds(known, its) for id_, its in staged.items()}
    return tuple(_body(each, staged, left) for each in coordinators)


def _body(
    one: KnownCoordinator, staged: Staged, left: Mapping[str, Set[ArtifactHash]]
) -> CoordinatorBody:
    others = (its for id_, its in staged.items() if id_ != one.id)
    only_there = left.get(one.id, frozenset()) - frozenset().union(*others)
    return CoordinatorBody(
        id=one.id,
        host=one.host,
        first_seen=timestamp(one.first_seen_s),
        last_seen=timestamp(one.last_seen_s),
        staged=len(staged.get(one.id, ())),
        only_there=len(only_there),
    )
