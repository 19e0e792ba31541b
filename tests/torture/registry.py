"""Every campaign there is, in the order of the report."""

from __future__ import annotations

import signal
import sys
from typing import Final

from tests.torture import (
    endurance,
    kills,
    ledgers,
    model,
    power,
    rot,
    rot_below,
    sensitivity,
    side_by_side,
    stops,
    syscalls,
    write_replay,
)
from tests.torture.campaign import Campaign, Outcome, Plan, Skip

CAMPAIGNS: Final[tuple[Campaign, ...]] = (
    power.CAMPAIGN,
    write_replay.CAMPAIGN,
    syscalls.CAMPAIGN,
    kills.CAMPAIGN,
    kills.AT_CALL,
    stops.CAMPAIGN,
    rot.CAMPAIGN,
    rot_below.CAMPAIGN,
    side_by_side.CAMPAIGN,
    ledgers.CAMPAIGN,
    model.CAMPAIGN,
    endurance.CAMPAIGN,
    sensitivity.CAMPAIGN,
)


def by_name(name: str) -> Campaign:
    """Return the campaign of that name.

    Raises:
        KeyError: there is none.
    """
    return {campaign.name: campaign for campaign in CAMPAIGNS}[name]


def run_plan(plan: Plan) -> Outcome:
    """Do the runs of a plan, or say why they are skipped.

    What was mounted is unmounted also when the process is told to end.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    try:
        return by_name(plan.campaign).run(plan)
    except Skip as reason:
        return Outcome(plan.campaign, plan.seed, skipped=str(reason))
