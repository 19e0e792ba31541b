"""Plan what is missing of one artifact after the other, in view of what is planned already."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Sequence

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
        # While they receive it, that is.
        self._passes_on = [
            sled.relays and index not in fleet.slow for index, sled in enumerate(fleet.sleds)
        ]
        # Made once for each sled: every holder can be an origin of every artifact.
        self._at_hand = [Origin(sled=sled) for sled in self._ids]

    def fill(self, artifact: ArtifactHash) -> None:
        """Plan every missing replica of an artifact, if anybody can give it."""
        places = self._fleet.places(artifact)
        at_hand = self._at_hand_of(places)
        missing = self._in_turn(places.missing)
        passing = self._passing(missing)
        number = self._puts_wanted(artifact, places, at_hand, passing)
        put_to = self._shares.for_puts(passing or missing, number)
        self._shares.put(put_to, self._inventory.sizes[artifact])
        self.puts += (Put(artifact, self._ids[sled]) for sled in put_to)
        # What arrives at a sled that does not pass it on is of use to nobody else for a long time.
        soon = self._passing(put_to) if at_hand else put_to
        if len(missing) > len(put_to) and (at_hand or soon):
            others = [sled for sled in missing if not self._passes_on[sled]]
            self._spread(artifact, at_hand, soon, _less(passing, put_to), _less(others, put_to))

    def _at_hand_of(self, places: Places) -> list[int]:
        """Whom others can read from now: who has it, then who is receiving it; else slow ones."""
        quick = [sled for sled in places.holders if sled not in self._fleet.slow]
        receiving = self._passing(places.arriving)
        if not (quick or receiving):
            quick = list(places.holders)
            receiving = [sled for sled in places.arriving if self._fleet.sleds[sled].relays]
        return [*self._shares.by_sending(quick), *self._shares.by_sending(receiving)]

    def _in_turn(self, missing: Sequence[int]) -> list[int]:
        """Those first who have the least to send, as they are to pass it on; slow ones last."""
        first = self._rng.randrange(len(missing))
        order = self._shares.by_sending([*missing[first:], *missing[:first]])
        slow = [sled for sled in order if sled in self._fleet.slow] if self._fleet.slow else []
        return [*_less(order, slow), *slow] if slow else order

    def _puts_wanted(
        self,
        artifact: ArtifactHash,
        places: Places,
        at_hand: Sequence[int],
        passing: Sequence[int],
    ) -> int:
        """How many sleds to send an artifact from staging, so that enough have it.

        Sleds that pass it on get it from each other instead, in the time that a single put takes.
        """
        if artifact not in self._inventory.staged_here:
            return 0
        short = self._enough - len(places.holders) - len(places.arriving)
        wanted = max(short, 0 if at_hand else 1)
        return min(wanted, self._policy.puts_to_relays) if passing else wanted

    def _spread(
        self,
        artifact: ArtifactHash,
        at_hand: Sequence[int],
        soon: Sequence[int],
        passing: Sequence[int],
        others: Sequence[int],
    ) -> None:
        """Plan the copies to those that lack it, from those that have it or are to have it soon."""
        size_bytes, policy = self._inventory.sizes[artifact], self._policy
        targets = (*passing, *others)
        # More origins than there are targets would serve nobody.
        at_hand = at_hand[: max(len(targets), policy.max_sources)]
        spread = Spread(
            artifact=artifact,
            origins=(*map(self._at_hand.__getitem__, at_hand), *map(self._origin, soon)),
            targets=tuple(map(self._ids.__getitem__, targets)),
            relays=len(passing),
            fan_out=fan_out_for(
                size_bytes,
                len(passing),
                len(at_hand) + len(soon),
                hop_bytes=policy.hop_bytes,
                max_fan_out=policy.max_fan_out,
            ),
            max_sources=policy.max_sources,
        )
        self._shares.serve(spread.parents(), (*at_hand, *soon, *targets), size_bytes)
        self.spreads.append(spread)

    def _origin(self, sled: int) -> Origin:
        start = Start.BEGUN if self._passes_on[sled] else Start.FINISHED
        return Origin(sled=self._ids[sled], start=start)

    def _passing(self, sleds: Iterable[int]) -> list[int]:
        return list(filter(self._passes_on.__getitem__, sleds))


def _less(sleds: Sequence[int], put_to: Collection[int]) -> list[int]:
    return [sled for sled in sleds if sled not in put_to]
