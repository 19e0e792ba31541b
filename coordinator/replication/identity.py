"""Which machine answers at a sled's address, and what it offers to others. Pure.

Rules kept here:
- A sled whose id is one that agents give themselves is told nothing at an address where another one
  answers: what that one is to hold is somebody else's to say.
- A machine that is in the fleet under two ids counts once: what it holds is in one place (F2).
- How many datasets a sled has, and which of them are unwell, is for itself to say.
- An agent that does not say that others can read what is still arriving there does not offer it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final
from uuid import UUID

from agent.wire.identity import DatasetStateBody, IdentityBody
from coordinator.replication.report import SledReport
from coordinator.replication.verdict import Kind, Verdict, legible
from coordinator.values import Sled

BELIEVED_S: Final = 300.0
"""What a sled said of itself; sooner, when it was silent or is elsewhere now: it may have begun
anew, with another configuration."""
MAX_UNWELL: Final = 4
"""Datasets of one sled that are named."""
SAYS_NOTHING: Final = IdentityBody()


@dataclass(frozen=True, slots=True)
class _Known:
    identity: IdentityBody
    agent_url: str
    at_s: float


class Identities:
    """What sleds have said of themselves."""

    def __init__(self) -> None:
        self._known: dict[str, _Known] = {}

    def of(self, sled: Sled, now_s: float) -> IdentityBody | None:
        """What a sled said not long ago; None when it is to be asked."""
        known = self._known.get(sled.id)
        if known is None or known.agent_url != sled.agent_url or now_s - known.at_s > BELIEVED_S:
            return None
        return known.identity

    def learn(self, sled: Sled, identity: IdentityBody, now_s: float) -> None:
        """It has said so now."""
        self._known[sled.id] = _Known(identity, sled.agent_url, now_s)

    def forget(self, sled_id: str) -> None:
        """It is to be asked again."""
        self._known.pop(sled_id, None)


def other_sled(sled: Sled, identity: IdentityBody) -> Verdict | None:
    """Say whether it is certainly another sled that answers.

    An operator may call a sled as they like; nobody makes up the id that an agent gave itself.
    """
    if identity.sled_id in (None, sled.id) or not _is_uuid(sled.id):
        return None
    return Verdict(
        Kind.OTHER_SLED,
        f"at its address, {sled.agent_url}, sled {identity.sled_id} answers: correct the address, "
        "or expunge the sled if it is gone",
    )


def unwell(identity: IdentityBody) -> tuple[str, ...]:
    """Which datasets of a sled cannot be counted on, and why; the first of them."""
    found = (each for each in identity.datasets if each.state != "healthy")
    return tuple(_unwell(each) for each in islice(found, MAX_UNWELL))


def _unwell(dataset: DatasetStateBody) -> str:
    why = f" ({dataset.last_error})" if dataset.last_error else ""
    return legible(f"dataset {dataset.path} is {dataset.state}{why}")


def each_machine_once(reports: Mapping[str, SledReport]) -> Mapping[str, SledReport]:
    """Set aside whoever is another sled of the fleet, or the same machine as an earlier one."""
    first: dict[str, str] = {}
    for id_ in sorted(reports):
        if (said := reports[id_].said_id) is not None:
            first.setdefault(said, said if said in reports else id_)
    return {id_: _unless_other(report, first) for id_, report in reports.items()}


def _unless_other(report: SledReport, first: Mapping[str, str]) -> SledReport:
    same = report.sled_id if report.said_id is None else first[report.said_id]
    if same == report.sled_id or report.verdict is not None:
        return report
    reason = (
        f"the machine at its address is sled {same} of this fleet: correct the address, or expunge "
        "one of the two"
    )
    return replace(report, verdict=Verdict(Kind.OTHER_SLED, reason), held={})


def _is_uuid(text: str) -> bool:
    try:
        return str(UUID(text)) == text.lower()
    except ValueError:
        return False
