"""Puts the parts of replication together."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from coordinator.replication.collect import Collector, Patience
from coordinator.replication.cycle import Cycle, Planner
from coordinator.replication.execute import Executor
from coordinator.replication.pacing import PERIOD_S, Pacing
from coordinator.replication.ports import Records, Staging
from coordinator.replication.reporting import Reporting
from coordinator.replication.request_log import RequestLog
from coordinator.replication.requests import MAX_CONCURRENT_REQUESTS, AgentOf, Requests
from coordinator.replication.transfers import Pace, Transfers
from coordinator.replication.values import Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicationOptions:
    """How to replicate.

    Attributes:
        period_s: `replication.period_s`.
        manual: `replication.activation` is `manual`.
        max_concurrent_requests: to agents, by this coordinator.
    """

    policy: Policy = field(default_factory=Policy)
    period_s: float = PERIOD_S
    manual: bool = False
    max_concurrent_requests: int = MAX_CONCURRENT_REQUESTS
    patience: Patience = field(default_factory=Patience)
    pace: Pace = field(default_factory=Pace)


@asynccontextmanager
async def replication(
    *,
    records: Records,
    staging: Staging,
    agent_of: AgentOf,
    planner: Planner,
    options: ReplicationOptions,
    rng: random.Random,
    clock: Callable[[], float] = time.time,
) -> AsyncIterator[Cycle]:
    """Yield a cycle, to be `run`; what it has under way ends with the block."""
    log = RequestLog(clock)
    requests = Requests(agent_of, log, max_concurrent=options.max_concurrent_requests)

    def on_late() -> None:
        cycle.go_on()

    async with (
        Collector(
            requests,
            records.generation,
            on_late=on_late,
            patience=options.patience,
            clock=clock,
        ) as collector,
        Executor(
            Transfers(requests, staging, options.pace),
            log,
            records.generation,
            max_concurrent=options.max_concurrent_requests,
            on_late=on_late,
        ) as executor,
    ):
        cycle = Cycle(
            records=records,
            staging=staging,
            collector=collector,
            executor=executor,
            planner=planner,
            policy=options.policy,
            reporting=Reporting(log, records, clock=clock),
            pacing=Pacing(period_s=options.period_s, manual=options.manual),
            rng=rng,
        )
        yield cycle
