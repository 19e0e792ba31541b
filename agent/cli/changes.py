"""What a new config changes against the current one. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

from rich.text import Text

from agent.cli.formats import plural
from depot.artifact import MAX_GENERATION, ArtifactConfig, ArtifactHash

SHOWN: Final = 10


@dataclass(frozen=True, slots=True)
class Change:
    """From one config to the next.

    Attributes:
        before: None on a sled without one.
        known: False when the sled cannot tell which one it has; then nothing can be compared.
    """

    before: ArtifactConfig | None
    after: ArtifactConfig
    known: bool = True

    @property
    def added(self) -> list[ArtifactHash]:
        """What the sled is to hold from now on, sorted."""
        return sorted(self.after.artifacts - self._held)

    @property
    def dropped(self) -> list[ArtifactHash]:
        """What the sled will delete, sorted."""
        return sorted(self._held - self.after.artifacts)

    @property
    def nothing(self) -> bool:
        """Whether it is the current config once more."""
        return self.before == self.after

    @property
    def drops_most(self) -> bool:
        """Whether the sled takes it for a possible mistake, and waits before it deletes (D4)."""
        return 2 * len(self.dropped) > len(self._held)

    @property
    def _held(self) -> frozenset[ArtifactHash]:
        return self.before.artifacts if self.before else frozenset()

    def document(self) -> dict[str, object]:
        """The change for --json; null is what cannot be told."""
        if not self.known:
            unknown = ("previous_generation", "changed", "added", "dropped")
            return {**self._sizes(), **dict.fromkeys(unknown)}
        return {
            **self._sizes(),
            "previous_generation": None if self.before is None else int(self.before.generation),
            "changed": not self.nothing,
            "added": [str(artifact) for artifact in self.added],
            "dropped": [str(artifact) for artifact in self.dropped],
        }

    def lines(self) -> list[str | Text]:
        """The change for people: whole hashes, and not more of them than a screen holds."""
        if not self.known:
            held = plural(len(self.after.artifacts), "artifact")
            return [f"unknown -> generation {int(self.after.generation)}: {held}"]
        return [
            self._headline(),
            *_marked("+", self.added, "green"),
            *_marked("-", self.dropped, "red"),
        ]

    def _sizes(self) -> dict[str, object]:
        return {
            "generation": int(self.after.generation),
            "artifacts": len(self.after.artifacts),
        }

    def _headline(self) -> str:
        after = f"generation {int(self.after.generation)}"
        if self.nothing:
            return f"{after}: no change, {plural(len(self.after.artifacts), 'artifact')}"
        before = "no config" if self.before is None else f"generation {int(self.before.generation)}"
        kept = len(self.after.artifacts) - len(self.added)
        moved = f"{len(self.added)} added, {len(self.dropped)} dropped, {kept} kept"
        return f"{before} -> {after}: {moved}"


def adding(current: ArtifactConfig | None, artifacts: Collection[ArtifactHash]) -> Change:
    """The change that adds `artifacts`: the next generation, or none when all are in already."""
    if current is None:
        return Change(None, ArtifactConfig.make(1, artifacts))
    if current.artifacts.issuperset(artifacts):
        return Change(current, current)
    # At the very end of the numbers the sled's own refusal explains it best.
    generation = min(current.generation + 1, MAX_GENERATION)
    return Change(current, ArtifactConfig.make(generation, current.artifacts.union(artifacts)))


def dropping(current: ArtifactConfig, artifacts: Collection[ArtifactHash]) -> Change:
    """The change that takes `artifacts` out, as the next generation."""
    generation = min(current.generation + 1, MAX_GENERATION)
    left = current.artifacts.difference(artifacts)
    return Change(current, ArtifactConfig.make(generation, left))


def _marked(mark: str, artifacts: Collection[ArtifactHash], style: str) -> Iterable[Text]:
    shown = list(artifacts)[:SHOWN]
    lines = [Text(f"{mark} {artifact}", style=style) for artifact in shown]
    if len(artifacts) > SHOWN:
        lines.append(Text(f"{mark} and {len(artifacts) - SHOWN} more; --json lists all"))
    return lines
