"""The sled agent API: one table of endpoints, and the app that serves it.

A handler parses, calls one verb, renders. What is refused, and in which order, is for the verbs to
decide; how a refusal looks is for `depot.http`.
"""

from __future__ import annotations

from typing import Final

from aiohttp import web

from agent.api.artifacts import ArtifactApi, put_reply
from agent.api.checkpoints import CheckpointApi
from agent.api.config import ConfigApi
from agent.api.copies import CopyApi
from agent.api.datasets import DatasetApi
from agent.api.observe import ObserveApi
from agent.api.pins import PinApi
from agent.api.quarantine import QuarantineApi
from agent.api.queries import strict_about_queries
from agent.api.scrub import ScrubApi
from agent.api.verbs import Copies, Store
from agent.checkpoints import CheckpointBook
from agent.events import EventLog
from agent.metrics import Metrics
from agent.status import StatusSource
from depot.http.browsers import OwnNames
from depot.http.fast_puts import FAST_PUTS, FastPuts, Taker
from depot.http.limits import HttpLimits
from depot.http.openapi import Endpoint
from depot.http.plain_puts import PlainPuts
from depot.http.service import ACTIVITY, make_app
from depot.http.versions import ApiInfo

AGENT_API: Final = ApiInfo(
    title="Sled Agent artifact API",
    description="Configuration, artifacts, copies, pins and status of one sled.",
    version="48.0.0",
    oldest=(1, 0, 0),
    newest=(48, 0, 0),
)


def agent_endpoints(
    *,
    store: Store,
    copies: Copies,
    status: StatusSource,
    events: EventLog,
    metrics: Metrics,
    checkpoints: CheckpointBook,
) -> tuple[Endpoint, ...]:
    """The table of the sled agent API."""
    table = (
        *ConfigApi(store).endpoints(),
        *ArtifactApi(store).endpoints(),
        *CopyApi(store, copies).endpoints(),
        *PinApi(store).endpoints(),
        *ScrubApi(store).endpoints(),
        *QuarantineApi(store).endpoints(),
        *DatasetApi(store).endpoints(),
        *CheckpointApi(checkpoints).endpoints(),
        *ObserveApi(status, events, metrics).endpoints(),
    )
    return tuple(map(strict_about_queries, table))


def agent_app(
    *,
    store: Store,
    copies: Copies,
    status: StatusSource,
    events: EventLog,
    metrics: Metrics,
    checkpoints: CheckpointBook,
    limits: HttpLimits | None = None,
    short_puts: Taker | None = None,
    own: OwnNames | None = None,
) -> web.Application:
    """The app of the sled agent API, watched by `metrics`, under its `own` names (`make_app`).

    Plain puts go to `short_puts`, past the HTTP library; without it there is no such way.
    """
    own = own or OwnNames.of(None)
    table = agent_endpoints(
        store=store,
        copies=copies,
        status=status,
        events=events,
        metrics=metrics,
        checkpoints=checkpoints,
    )
    app = make_app(table, api=AGENT_API, limits=limits, own=own)
    if short_puts is not None:
        plain = PlainPuts(AGENT_API.check, own)
        app[FAST_PUTS] = FastPuts(short_puts, plain, app[ACTIVITY], put_reply)
    metrics.watch(app, "agent", table)
    return app
