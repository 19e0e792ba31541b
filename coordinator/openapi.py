"""The OpenAPI document of the coordinator's API, as it is checked in.

`python -m coordinator.openapi` writes it to docs/openapi; a test says when it is stale.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from agent.openapi import document_of, text_of, write
from coordinator.api import COORDINATOR_API, coordinator_endpoints
from depot.http.openapi import Endpoint

# A description calls no handler, so the handlers of this table have nothing behind them.
_NOTHING: Final[Any] = None


def coordinator_table() -> tuple[Endpoint, ...]:
    """The endpoints of the coordinator's API, for describing them."""
    return coordinator_endpoints(
        database=_NOTHING,
        desk=_NOTHING,
        snapshot_desk=_NOTHING,
        sled_desk=_NOTHING,
        cycle=_NOTHING,
        view=_NOTHING,
        quiesce=_NOTHING,
        pruning=_NOTHING,
        retention=_NOTHING,
        coordinator_id=_NOTHING,
        clock=_NOTHING,
        wake=_NOTHING,
        reasons_not_ready=_NOTHING,
        metrics=_NOTHING,
        journal=_NOTHING,
    )


def files() -> Mapping[str, str]:
    """The text of the checked-in document, by file name."""
    return {"coordinator.json": text_of(document_of(coordinator_table(), COORDINATOR_API))}


if __name__ == "__main__":
    write(files())
