"""What the sled is to hold."""

from __future__ import annotations

from typing import Self

from agent.wire.fields import GenerationNumber, Request, Sha256Set, hashes, texts
from depot.artifact import ArtifactConfig, Generation


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
