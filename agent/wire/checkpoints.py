"""Checkpoints of the fleet's journal, kept for the coordinators."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from agent.wire.fields import Answer, Request


class CheckpointNoteBody(Request):
    """A checkpoint to be kept."""

    note: Annotated[str, StringConstraints(max_length=4096)] = Field(
        description="c2sp.org/tlog-checkpoint, signed; its signature is not looked at here."
    )


class CheckpointNotesBody(Answer):
    """The checkpoints that are kept: of each tree the first one, and the last ones."""

    notes: tuple[str, ...]
