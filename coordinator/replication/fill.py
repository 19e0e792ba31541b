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
        self._missing_bytes = sum(inventory.sizes[artifact] for artifact in fleet.missing)
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
        passing = self._passing(places.missing)
        others = [sled for sled in places.missing if not self._passes_on[sled]]
        number = self._puts_wanted(artifact, places, at_hand, passing)
        fan_out = self._fan_out(len(at_hand) + number, len(passing) - number)
        if passing and fan_out == 1:
            # All chains go by the same order: a sled that receives several artifacts at once gets
            # each from the same one, which has what it passes on in the same order.
            put_to = passing[:number]
        else:
            passing, others = self._shares.by_sending(passing), self._shares.by_sending(others)
            put_to = self._shares.for_puts(passing or others, number)
        self._shares.put(put_to, self._inventory.sizes[artifact])
        self.puts += (Put(artifact, self._ids[sled]) for sled in put_to)
        # What arrives at a sled that does not pass it on is of use to nobody else for a long time.
        soon = self._passing(put_to) if at_hand else put_to
        if len(places.missing) > len(put_to) and (at_hand or soon):
            passing, others = _less(passing, put_to), _less(others, put_to)
            self._spread(artifact, at_hand, soon, passing, others, fan_out)

    def _at_hand_of(self, places: Places) -> list[int]:
        """Whom others can read from now: who has it, then who is receiving it; else slow ones.

        Of those that are receiving it only the last in order: an earlier plan, which went by the
        same order, has the others pass it on already.
        """
        quick = [sled for sled in places.holders if sled not in self._fleet.slow]
        receiving = self._passing(places.arriving)
        if not (quick or receiving):
            quick = list(places.holders)
            receiving = [sled for sled in places.arriving if self._fleet.sleds[sled].relays]
        return [*self._shares.by_sending(quick), *receiving[-1:]]

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
        fan_out: int,
    ) -> None:
        """Plan the copies to those that lack it, from those that have it or are to have it soon."""
        size_bytes, policy = self._inventory.sizes[artifact], self._policy
        targets = (*passing, *sorted(others, key=self._fleet.slow.__contains__))
        # More origins than there are targets would serve nobody.
        at_hand = at_hand[: max(len(targets), policy.max_sources)]
        spread = Spread(
            artifact=artifact,
            origins=(*map(self._at_hand.__getitem__, at_hand), *map(self._origin, soon)),
            targets=tuple(map(self._ids.__getitem__, targets)),
            relays=len(passing),
            fan_out=fan_out,
            max_sources=policy.max_sources,
        )
        self._shares.serve(spread.parents(), (*at_hand, *soon, *targets), size_bytes)
        self.spreads.append(spread)

    def _fan_out(self, origins: int, passing: int) -> int:
        """How wide to spread: by all that is missing, as links carry it one after the other."""
        return fan_out_for(
            self._missing_bytes,
            max(0, passing),
            max(1, origins),
            hop_bytes=self._policy.hop_bytes,
            max_fan_out=self._policy.max_fan_out,
        )

    def _origin(self, sled: int) -> Origin:
        start = Start.BEGUN if self._passes_on[sled] else Start.FINISHED
        return Origin(sled=self._ids[sled], start=start)

    def _passing(self, sleds: Iterable[int]) -> list[int]:
        return list(filter(self._passes_on.__getitem__, sleds))


def _less(sleds: Sequence[int], put_to: Collection[int]) -> list[int]:
    return [sled for sled in sleds if sled not in put_to]
