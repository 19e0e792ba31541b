"""A sled whose answers have anything in them that JSON can say."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from agent.client import PutAnswer
from agent.wire.artifacts import ArtifactListBody, ArtifactPutBody
from agent.wire.copies import CopiesBody, CopyBody, CopyStartedBody
from agent.wire.fields import hashes
from agent.wire.identity import IdentityBody
from agent.wire.pins import PinsBody
from depot.artifact import ArtifactConfig, ArtifactHash, Generation
from depot.errors import Refused, Unreachable
from tests.coordinator.replication.sim_sleds import Network, SimSled

Body = TypeVar("Body", bound=BaseModel)


@dataclass(frozen=True)
class Lie:
    """What takes the place of an answer, or of one field of it.

    Attributes:
        said: any JSON.
        field: instead of which it is said; None: instead of the whole answer.
        status: when it is an error that is answered, with `said` for its code, message or details.
    """

    said: Any
    field: str | None = None
    status: int | None = None

    def about(self, truth: Any) -> Any:
        if self.field is None:
            return self.said
        if isinstance(truth, dict) and self.field in truth:
            return {**truth, self.field: self.said}
        if isinstance(truth, dict):
            return {name: self.about(inner) for name, inner in truth.items()}
        return [self.about(inner) for inner in truth] if isinstance(truth, list) else truth

    def refusal(self) -> Refused:
        assert self.status is not None
        return Refused(
            "http://absurd",
            self.status,
            remote_code=self.said if isinstance(self.said, str) else self.field,
            remote_message=self.said if isinstance(self.said, str) else "",
            remote_details={"current_generation": self.said, "artifacts": self.said},
        )


class AbsurdSled(SimSled):
    """Answers like any other, but for the operations that `lies` has."""

    def __init__(self, id_: str, network: Network, lies: Mapping[str, Lie]) -> None:
        super().__init__(id_, network)
        self.lies = lies

    def _said(self, operation: str, truth: Body) -> Body:
        """What a client makes of the answer; see `agent.calls.Calls`."""
        lie = self.lies.get(operation)
        if lie is None:
            return truth
        if lie.status is not None:
            raise lie.refusal()
        document = json.dumps(lie.about(truth.model_dump(mode="json")))
        try:
            return type(truth).model_validate_json(document)
        except ValidationError as error:
            raise Unreachable(f"no sled agent: {error.errors()[0]['msg']}") from None

    async def identity(self) -> IdentityBody:
        return self._said("identity", await super().identity())

    async def put_config(self, config: ArtifactConfig) -> None:
        await super().put_config(config)
        lie = self.lies.get("put_config")
        if lie is not None and lie.status is not None:
            raise lie.refusal()

    async def list_artifacts(self) -> ArtifactListBody:
        return self._said("list_artifacts", await super().list_artifacts())

    async def pins(self) -> Mapping[str, frozenset[ArtifactHash]]:
        truth = {
            name: {"artifacts": sorted(map(str, each))}
            for name, each in (await super().pins()).items()
        }
        body = self._said("pins", PinsBody.model_validate_json(json.dumps({"pins": truth})))
        return {name: hashes(pin.artifacts) for name, pin in body.pins.items()}

    async def put(
        self,
        artifact: ArtifactHash,
        generation: Generation,
        content: Path | bytes,
        *,
        on_sent: Callable[[int], None] | None = None,
    ) -> PutAnswer:
        answer = await super().put(artifact, generation, content, on_sent=on_sent)
        body = self._said("put", ArtifactPutBody(datasets=2, successful_writes=2))
        return PutAnswer(body.datasets, body.successful_writes, answer.sent)

    async def copy(
        self, artifact: ArtifactHash, generation: Generation, sources: Sequence[str]
    ) -> str:
        copy_id = await super().copy(artifact, generation, sources)
        return self._said("copy", CopyStartedBody(copy_id=copy_id)).copy_id

    async def copies(self) -> tuple[CopyBody, ...]:
        return self._said("copies", CopiesBody(copies=await super().copies())).copies

    async def copy_state(self, copy_id: str) -> CopyBody:
        return self._said("copy_state", await super().copy_state(copy_id))
