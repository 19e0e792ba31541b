"""Plan what is missing of one artifact after the other, in view of what is planned already."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

from coordinator.replication.layout import fan_out_for
from coordinator.replication.places import Fleet, Places
from coordinator.replication.shares import Shares
from coordinator.replication.values import Inventory, Origin, Policy, Put, Spread, Start
from depot.artifact import ArtifactHash


def enough_sleds(inventory: Inventory, policy: Policy) -> int:
    """How many sleds must hold an artifact before staging lets go of it.

    All sleds in service count, also those that cannot be asked now: otherwise what is on the one
    sled that answers would be taken for safe.
    """
    return max(1, min(policy.min_sled_replication, len(inventory.sleds)))


class Filler:
    """What is planned so far is in `puts` and `spreads`."""

    def __init__(
        self, inventory: Inventory, policy: Policy, fleet: Fleet, rng: random.Random
    ) -> None:
        self.puts: list[Put] = []
        self.spreads: list[Spread] = []
        self._inventory = inventory
        self._policy = policy
        self._fleet = fleet
        self._rng = rng
        self._enough = enough_sleds(inventory, policy)
        self._shares = Shares(len(fleet.sleds), policy.hop_bytes)
        self._ids = [sled.id for sled in fleet.sleds]
        # Made once for each sled: every holder can be an origin of every artifact.
        self._at_hand = [Origin(sled=sled) for sled in self._ids]

    def fill(self, artifact: ArtifactHash) -> None:
        """Plan every missing replica of an artifact, if anybody can give it."""
        places = self._fleet.places(artifact)
        at_hand = [
            *self._shares.by_sending(places.holders),
            *self._shares.by_sending(self._relaying(places.arriving)),
        ]
        put_to = self._put_targets(artifact, places, any_at_hand=bool(at_hand))
        self._shares.put(put_to, self._inventory.sizes[artifact])
        self.puts += (Put(artifact, self._ids[sled]) for sled in put_to)
        missing = [sled for sled in places.missing if sled not in put_to]
        # What arrives at a sled that does not relay is of use to nobody else for a long time.
        soon = self._relaying(put_to) if at_hand else put_to
        if missing and (at_hand or soon):
            self._spread(artifact, at_hand, soon, missing)

    def _put_targets(
        self, artifact: ArtifactHash, places: Places, *, any_at_hand: bool
    ) -> list[int]:
        """Whom to send an artifact from staging: as many as leave enough sleds with it.

        Sleds that relay get it from each other instead, with one put in time of one transfer.
        """
        if artifact not in self._inventory.staged_here:
            return []
        number = self._enough - len(places.holders) - len(places.arriving)
        number = max(number, 0 if any_at_hand else 1)
        if relaying := self._relaying(places.missing):
            number = min(number, self._policy.puts_to_relays)
        return self._shares.for_puts(relaying or places.missing, number)

    def _spread(
        self,
        artifact: ArtifactHash,
        at_hand: Sequence[int],
        soon: Sequence[int],
        missing: Sequence[int],
    ) -> None:
        """Plan the copies to sleds that lack an artifact and that no put goes to."""
        size_bytes = self._inventory.sizes[artifact]
        first = self._rng.randrange(len(missing))
        order = self._shares.by_sending([*missing[first:], *missing[:first]])
        relaying = self._relaying(order)
        targets = [*relaying, *(sled for sled in order if not self._fleet.sleds[sled].relays)]
        # More origins than there are targets would serve nobody.
        at_hand = at_hand[: max(len(targets), self._policy.max_sources)]
        origins = (*(self._at_hand[sled] for sled in at_hand), *map(self._origin, soon))
        spread = Spread(
            artifact=artifact,
            origins=origins,
            targets=tuple(map(self._ids.__getitem__, targets)),
            relays=len(relaying),
            fan_out=fan_out_for(
                size_bytes,
                len(relaying),
                len(origins),
                hop_bytes=self._policy.hop_bytes,
                max_fan_out=self._policy.max_fan_out,
            ),
            max_sources=self._policy.max_sources,
        )
        self._shares.serve(spread.parents(), (*at_hand, *soon, *targets), size_bytes)
        self.spreads.append(spread)

    def _origin(self, sled: int) -> Origin:
        relays = self._fleet.sleds[sled].relays
        return Origin(sled=self._ids[sled], start=Start.BEGUN if relays else Start.FINISHED)

    def _relaying(self, sleds: Iterable[int]) -> list[int]:
        return [sled for sled in sleds if self._fleet.sleds[sled].relays]
