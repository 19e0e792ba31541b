"""Which source a copy asks next, and when there is no use in asking on. Pure: no I/O, no clock.

A copy makes attempts. In the first, the sources take turns: where one breaks, another goes on from
that byte. Only the hash at the end tells whether what they gave together is the artifact; when it
is not, or when sources disagree on its size, nobody can say which of them is wrong. Each later
attempt therefore starts from the first byte with one source alone, so that one lying source can
delay a copy but cannot spoil what an honest one gives.

A relay, which is still receiving what it gives, may break off because what it received was wrong,
and give other bytes the next time: with what came of it before the break, it alone is a mixture.
Whoever holds the artifact comes before it in a later attempt, and its not having it is no answer
for good.

A source is spent, and not asked again in this copy, when it refused for good, gave wrong bytes
alone, or broke `max_tries` times without progress worth the name.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Final

from agent.copies.source_url import SourceUrl
from depot.artifact import ArtifactHash
from depot.errors import BadSource, DepotCopy, DepotError, HashMismatch, QuotaExceeded, TooLarge

MAX_SOURCES: Final = 32
_TELLING: Final = (BadSource, TooLarge, QuotaExceeded)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How patient a copy is with one source.

    Attributes:
        max_tries: requests to one source in a row that may break off.
        first_delay_s: pause before the second try; each further one is twice as long.
        max_delay_s: longest pause.
        progress_bytes: a request that gave this much before it broke counts as a first try again.
    """

    max_tries: int = 4
    first_delay_s: float = 0.5
    max_delay_s: float = 10.0
    progress_bytes: int = 1 << 20

    def delay_s(self, tries: int) -> float:
        """Pause before the next request to a source that was tried `tries` times."""
        if tries == 0:
            return 0.0
        return min(self.max_delay_s, self.first_delay_s * 2.0 ** (tries - 1))


@dataclass(frozen=True, slots=True)
class Choice:
    """The source to ask now, after a pause."""

    source: SourceUrl
    delay_s: float


@dataclass(slots=True)
class _Standing:
    """What is known of one source."""

    tries: int = 0
    spent: bool = False
    set_aside: bool = False
    was_alone: bool = False
    outrun: int = 0
    arriving: bool = False
    gives_parts: bool = True
    distrusted: bool = False
    last_error: DepotError | None = None


@dataclass(slots=True)
class Lineup:
    """The sources of one copy."""

    sha256: ArtifactHash
    policy: RetryPolicy
    _standings: dict[SourceUrl, _Standing] = field(default_factory=dict)
    _started: bool = False
    _alone: SourceUrl | None = None
    _last: SourceUrl | None = None
    _contributors: set[SourceUrl] = field(default_factory=set)
    _broken_relays: set[SourceUrl] = field(default_factory=set)
    _mixture: str | None = None
    _liars: dict[SourceUrl, None] = field(default_factory=dict)

    @property
    def sources(self) -> tuple[SourceUrl, ...]:
        """Every source, in the order in which they were named."""
        return tuple(self._standings)

    def add(self, sources: Iterable[SourceUrl]) -> None:
        """Append further sources; known ones, and those past MAX_SOURCES, change nothing."""
        for source in sources:
            if len(self._standings) < MAX_SOURCES:
                self._standings.setdefault(source, _Standing())

    @property
    def liars(self) -> tuple[SourceUrl, ...]:
        """Those of which it is known that they gave wrong bytes."""
        return tuple(self._liars)

    def distrust(self, sources: Iterable[SourceUrl]) -> None:
        """Ask these after all others, and never for parts; unknown ones change nothing."""
        for source in sources:
            if source in self._standings:
                self._standings[source].distrusted = True

    def convict(self, sources: Iterable[SourceUrl]) -> None:
        """Note that these gave wrong bytes to an attempt of several; a relay only passes on."""
        for source in sources:
            if not self._standings[source].arriving:
                self._liars[source] = None

    def begin_attempt(self) -> bool:
        """Start over from the first byte; False when no source is worth another attempt."""
        self._contributors.clear()
        self._broken_relays.clear()
        if not self._started:
            self._started = True
            return True
        for standing in self._standings.values():
            standing.set_aside = False
        held_first = sorted(self._standings.items(), key=lambda item: item[1].arriving)
        for source, standing in held_first:
            if not standing.spent and not standing.was_alone:
                standing.was_alone = True
                self._alone = source
                return True
        return False

    def choose(
        self,
        *,
        untried_only: bool = False,
        but: Collection[SourceUrl] = (),
        prefer: SourceUrl | None = None,
    ) -> Choice | None:
        """Pick whom to ask: the least tried, the quickest, another than the last, the first named.

        Args:
            untried_only: only one that was never asked.
            but: none of these.
            prefer: this one, if it may be asked at all.
        """
        eligible = [
            (
                source != prefer,
                standing.distrusted,
                standing.tries,
                standing.outrun,
                source == self._last,
                index,
                source,
            )
            for index, (source, standing) in enumerate(self._standings.items())
            if self._is_eligible(source, standing) and source not in but
            if standing.tries == 0 or not untried_only
        ]
        if not eligible:
            return None
        source = min(eligible)[-1]
        tries = self._standings[source].tries
        self._last = source
        return Choice(source, self.policy.delay_s(tries))

    def another(self, but: Collection[SourceUrl]) -> SourceUrl | None:
        """Pick one more to read parts from: of another host, in no trouble, and no relay."""
        hosts = {source.host for source in but}
        eligible = [
            (standing.outrun, index, source)
            for index, (source, standing) in enumerate(self._standings.items())
            if self._is_eligible(source, standing)
            if standing.gives_parts and not standing.distrusted
            if standing.tries == 0 and not standing.arriving and source.host not in hosts
        ]
        return min(eligible)[-1] if eligible else None

    def has_better_than(self, source: SourceUrl) -> bool:
        """Tell whether there is one to turn to that is in no more trouble than `source` is."""
        tries = self._standings[source].tries
        return any(
            self._is_eligible(other, standing) and other != source and standing.tries <= tries
            for other, standing in self._standings.items()
        )

    def gives_no_parts(self, source: SourceUrl) -> None:
        """Note that `source` answers the whole to whoever asks for a part."""
        self._standings[source].gives_parts = False

    def contributed(self, source: SourceUrl) -> None:
        """Note that what is hashed at the end of this attempt has bytes of `source`."""
        self._contributors.add(source)

    def answered(
        self, source: SourceUrl, outrun: Iterable[SourceUrl] = (), *, arriving: bool = False
    ) -> None:
        """Note that `source` answered, before those that it has `outrun`; perhaps as a relay."""
        self._last = source
        self._standings[source].arriving = arriving
        for slower in outrun:
            self._standings[slower].outrun += 1

    def _is_eligible(self, source: SourceUrl, standing: _Standing) -> bool:
        return not standing.spent and not standing.set_aside and self._alone in (None, source)

    def refused(self, source: SourceUrl, error: DepotError, at_byte: int) -> None:
        """Note that `source` did not give the artifact from `at_byte` on."""
        standing = self._standings[source]
        standing.last_error = error
        if isinstance(error, DepotCopy) and (error.transient or standing.arriving):
            self._count_try(standing)
        elif at_byte == 0:
            standing.spent = True
        else:
            # It was asked for the rest of what others announced, and they may be the wrong ones.
            standing.set_aside = True

    def disagrees(self, source: SourceUrl, why: str) -> None:
        """Note that `source` does not fit what this attempt has from others, rightly or not."""
        standing = self._standings[source]
        standing.last_error = DepotCopy(why)
        standing.set_aside = True

    def broke(
        self,
        source: SourceUrl,
        why: str,
        *,
        at_byte: int,
        gave_bytes: int,
        arriving: bool = False,
    ) -> None:
        """Note that the body of `source`, after `gave_bytes` of its own, ended badly."""
        standing = self._standings[source]
        standing.last_error = DepotCopy(f"it broke off at byte {at_byte}: {why}")
        if gave_bytes > 0:
            self._contributors.add(source)
            if arriving:
                self._broken_relays.add(source)
        if gave_bytes >= self.policy.progress_bytes:
            standing.tries = 0
        self._count_try(standing)

    def wrong_bytes(self, source: SourceUrl, error: HashMismatch) -> None:
        """Note that the attempt that ended with `source` was whole, and not the artifact."""
        self._contributors.add(source)
        if len(self._contributors) == 1 and not self._broken_relays:
            standing = self._standings[source]
            standing.last_error = DepotCopy(f"it sent other bytes, which hash to {error.actual}")
            standing.spent = True
            self._liars[source] = None
        else:
            names = " and ".join(str(url) for url in self.sources if url in self._contributors)
            self._mixture = f"what {names} gave together hashes to {error.actual}"

    def failure(self) -> DepotError:
        """Say why the copy cannot go on: each source, and why it was given up."""
        errors = {
            source: standing.last_error
            for source, standing in self._standings.items()
            if standing.last_error is not None
        }
        reasons = [f"{source}: {error}" for source, error in errors.items()]
        reasons += [self._mixture] if self._mixture else []
        message = f"no source gave {self.sha256}: {'; '.join(reasons) or 'none was named'}"
        for telling in _TELLING:
            if errors and all(isinstance(error, telling) for error in errors.values()):
                return telling(message)
        return DepotCopy(message)

    def _count_try(self, standing: _Standing) -> None:
        standing.tries += 1
        standing.spent = standing.tries >= self.policy.max_tries
