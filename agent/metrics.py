"""Figures for Prometheus: requests counted as they are answered, the rest read at the scrape.

Rules kept here:
- A registry of its own: importing this module or running two agents in one process mixes nothing.
- What the status document knows is taken from it, so that the two cannot differ.
- Labels have a bounded number of values: operations of the table, not paths of clients.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from http import HTTPStatus
from itertools import accumulate
from typing import Final

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector

from agent.duties import DutyState
from agent.loop_lag import BOUNDS_S, Lags
from agent.wire.datasets import DatasetBody
from agent.wire.healing import HealingBody
from agent.wire.node import NodeBody
from agent.wire.scrub import DatasetScrubBody, ScrubBody
from agent.wire.status import DutyBody, RelayBody, StatusBody
from depot.http.fast_path import FAST_PATH, PATH, FastPath
from depot.http.fast_puts import FAST_PUTS, FastPuts
from depot.http.fast_puts import PATH as PUT_PATH
from depot.http.openapi import Endpoint

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST
PREFIX: Final = "sled_depot"
OTHER: Final = "other"
_METHODS: Final = frozenset({"GET", "HEAD", "PUT", "POST", "DELETE", "PATCH", "OPTIONS"})

Values = Mapping[tuple[str, ...], int]
"""A counter's values by those of its labels."""


class Metrics:
    """Every figure of one process.

    Args:
        figures: reads them, at each scrape; requests are counted here.
    """

    def __init__(self, figures: Callable[[], Iterable[Metric]]) -> None:
        self._traffic = Traffic()
        self._registry = CollectorRegistry()
        self._registry.register(_AtScrape(figures, self._traffic))

    def watch(self, app: web.Application, server: str, table: Iterable[Endpoint]) -> None:
        """Count what `app` answers. Call it before the app is served."""
        operations = {(each.method, each.path): each.operation_id for each in table}

        async def count(request: web.Request, response: web.StreamResponse) -> None:
            self._traffic.count(server, operation_of(request, operations), request, response)

        app.on_response_prepare.append(count)
        if (fast_path := app.get(FAST_PATH)) is not None:
            operation = operations["GET", f"{PATH}{{sha256}}"]
            self._traffic.include(server, operation, "GET", fast_path)
        if (fast_puts := app.get(FAST_PUTS)) is not None:
            operation = operations["PUT", f"{PUT_PATH}{{sha256}}"]
            self._traffic.include(server, operation, "PUT", fast_puts)

    def render(self) -> bytes:
        """The text that Prometheus scrapes."""
        return generate_latest(self._registry)


class Traffic:
    """Requests and the bytes of their bodies, as their heads announce them, since start."""

    def __init__(self) -> None:
        self._requests: Counter[tuple[str, ...]] = Counter()
        self._bytes_in: Counter[tuple[str, ...]] = Counter()
        self._bytes_out: Counter[tuple[str, ...]] = Counter()
        self._included: list[tuple[str, str, str, FastPath | FastPuts]] = []

    def include(self, server: str, operation: str, method: str, fast: FastPath | FastPuts) -> None:
        """Add in what `fast` counts by itself: answers to that method, with success."""
        self._included.append((server, operation, method, fast))

    def count(
        self, server: str, operation: str, request: web.Request, response: web.StreamResponse
    ) -> None:
        """Count one answered request."""
        method = request.method if request.method in _METHODS else OTHER
        self._requests[server, operation, method, str(response.status)] += 1
        if response.status < HTTPStatus.BAD_REQUEST:  # nobody read the body of a refused one
            self._bytes_in[server, operation] += request.content_length or 0
        if request.method != "HEAD":
            self._bytes_out[server, operation] += response.content_length or 0

    def figures(self) -> Iterator[Metric]:
        """What was counted."""
        labels = ("server", "operation")
        requests, bytes_in, bytes_out = map(
            Counter, (self._requests, self._bytes_in, self._bytes_out)
        )
        for server, operation, method, fast in self._included:
            if fast.answers:
                requests[server, operation, method, "200"] += fast.answers
                bytes_in[server, operation] += fast.received_bytes
                bytes_out[server, operation] += fast.body_bytes
        yield counter(
            "http_requests", "Requests answered.", (*labels, "method", "status"), requests
        )
        yield counter(
            "http_request_body_bytes", "Announced sizes of request bodies.", labels, bytes_in
        )
        yield counter(
            "http_response_body_bytes", "Announced sizes of response bodies.", labels, bytes_out
        )


def operation_of(request: web.Request, operations: Mapping[tuple[str, str], str]) -> str:
    """The operation that answers `request`; `OTHER` for unknown paths and methods."""
    resource = request.match_info.route.resource
    path = resource.canonical if resource is not None else ""
    method = request.method
    if (method, path) not in operations and method == "HEAD":
        method = "GET"
    return operations.get((method, path), OTHER)


class _AtScrape(Collector):
    """Reads the figures of the moment."""

    def __init__(self, figures: Callable[[], Iterable[Metric]], traffic: Traffic) -> None:
        self._figures = figures
        self._traffic = traffic

    def describe(self) -> Iterable[Metric]:
        """Nothing: registering must not ask for a status."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Every figure, as of now."""
        yield from self._figures()
        yield from self._traffic.figures()


def agent_figures(
    read: Callable[[], StatusBody],
    event_counts: Callable[[], Mapping[str, int]],
    lags: Callable[[], Lags] | None = None,
) -> Iterator[Metric]:
    """Turn the status document of the moment into figures."""
    status = read()
    yield from sled_figures(status)
    yield from dataset_figures(status.datasets)
    if status.scrub is not None:
        yield from scrub_figures(status.scrub)
    yield from duty_figures(status.duties)
    events: Values = {(kind,): count for kind, count in event_counts().items()}
    yield counter("events", "Events recorded.", ("kind",), events)
    if lags is not None:
        yield from loop_lag_figures(lags())
    if status.node is not None:
        yield from process_figures(status.node)


def sled_figures(status: StatusBody) -> Iterator[Metric]:
    """Figures of the sled as a whole."""
    about = {"version": status.version, "sled_id": status.sled_id or ""}
    info = GaugeMetricFamily(f"{PREFIX}_info", "Always 1; the labels tell.", labels=tuple(about))
    info.add_metric(tuple(about.values()), 1)
    yield info
    yield gauge("uptime_seconds", "Since the agent started.", status.uptime_s)
    if status.generation is not None:
        yield gauge("config_generation", "Of the artifact config.", status.generation)
    yield gauge(
        "under_replicated_artifacts",
        "Artifacts that lack a copy.",
        status.under_replicated.count,
    )
    yield gauge(
        "missing_artifacts", "Artifacts of the config without a good copy.", status.missing.count
    )
    yield from healing_figures(status.healing)
    yield gauge("puts_running", "Puts under way.", status.puts_running)
    yield gauge("copies_running", "Copies from other depots under way.", status.copies.running)
    yield from relay_figures(status.relay)
    yield gauge("warnings", "Warnings in the status document.", len(status.warnings))
    yield gauge(
        "events_persistent", "1 when events survive a restart.", int(status.events.persistent)
    )
    yield counter(
        "events_dropped", "Events lost, too many at once.", (), {(): status.events.dropped}
    )


def relay_figures(relay: RelayBody) -> Iterator[Metric]:
    """Figures of what is served while it is being received."""
    yield gauge("relay_artifacts", "Arriving, and can be fetched already.", relay.arriving)
    yield gauge("relay_readers", "Answers that are sent from them.", relay.readers)
    yield counter("relay_bytes", "Sent while still arriving.", (), {(): relay.sent_bytes})


def healing_figures(healing: HealingBody) -> Iterator[Metric]:
    """Figures of the background healing."""
    yield gauge("heal_todo_artifacts", "Artifacts that wait to be healed.", healing.todo)
    yield gauge("heal_todo_bytes", "What is to be written for them.", healing.todo_bytes)
    yield gauge("lost_artifacts", "Wanted, and nobody has a good copy.", healing.lost.count)
    yield SummaryMetricFamily(
        f"{PREFIX}_heal_seconds",
        "From when damage was found until it was healed.",
        count_value=healing.healed,
        sum_value=healing.heal_seconds,
    )


def dataset_figures(datasets: Sequence[DatasetBody]) -> Iterator[Metric]:
    """Figures of each dataset."""

    def each(name: str, text: str, read: Callable[[DatasetBody], int]) -> Metric:
        family = GaugeMetricFamily(f"{PREFIX}_dataset_{name}", text, labels=("dataset",))
        for dataset in datasets:
            family.add_metric((dataset.path,), read(dataset))
        return family

    yield each("healthy", "1 when in use.", lambda d: int(d.state == "healthy"))
    yield each("full", "1 when it takes no more bytes.", lambda d: int(d.full))
    yield each("quota_bytes", "What may be used.", lambda d: d.quota_bytes)
    yield each("used_bytes", "Artifacts and staged files.", lambda d: d.used_bytes)
    yield each("reserved_bytes", "Promised to running writes.", lambda d: d.reserved_bytes)
    yield each("available_bytes", "Left for new artifacts.", lambda d: d.available_bytes)
    yield each("artifacts", "Artifacts held.", lambda d: d.artifacts)
    yield each("quarantined", "Damaged copies set aside.", lambda d: d.quarantined)
    yield each("quarantined_bytes", "What they take.", lambda d: d.quarantined_bytes)
    yield each("hangs", "1 while a call to the device hangs.", lambda d: int(d.worker_hangs))
    yield each("left_behind", "Hung worker processes.", lambda d: len(d.left_behind))


def scrub_figures(scrub: ScrubBody) -> Iterator[Metric]:
    """Figures of the background verification, by dataset."""

    def each(name: str, text: str, read: Callable[[DatasetScrubBody], float | None]) -> Metric:
        family = GaugeMetricFamily(f"{PREFIX}_scrub_{name}", text, labels=("dataset",))
        for dataset in scrub.datasets:
            if (value := read(dataset)) is not None:  # what is not known is no figure
                family.add_metric((dataset.dataset,), value)
        return family

    def count(name: str, text: str, read: Callable[[DatasetScrubBody], int]) -> Metric:
        values: Values = {(dataset.dataset,): read(dataset) for dataset in scrub.datasets}
        return counter(f"scrub_{name}", text, ("dataset",), values)

    yield gauge("scrub_paused", "1 while it is paused.", int(scrub.paused_until is not None))
    yield each("running", "1 while a pass runs.", lambda d: int(d.state == "running"))
    yield each(
        "oldest_unverified_seconds",
        "Age of the oldest verification of a copy; of a dataset without copies, none.",
        lambda d: d.oldest_unverified_s,
    )
    yield each("never_verified_copies", "Copies not verified yet.", lambda d: d.never_verified)
    yield each("bad_copies_waiting", "Bad copies still to be healed.", lambda d: d.waiting)
    yield count("verified_bytes", "Bytes read and hashed.", lambda d: d.verified_bytes)
    yield count(
        "bad_copies", "Copies found bad or gone, by whatever read them.", lambda d: d.bad_found
    )
    healing = SummaryMetricFamily(
        f"{PREFIX}_scrub_heal_seconds", "From found to healed.", labels=("dataset",)
    )
    for dataset in scrub.datasets:
        healing.add_metric((dataset.dataset,), dataset.healed, dataset.heal_s)
    yield healing


def duty_figures(duties: Sequence[DutyBody | DutyState]) -> Iterator[Metric]:
    """Figures of the background duties (S5)."""
    failing = GaugeMetricFamily(
        f"{PREFIX}_duty_failing", "1 while a background duty fails.", labels=("duty",)
    )
    for duty in duties:
        failing.add_metric((duty.name,), int(duty.failing))
    yield failing
    failures: Values = {(duty.name,): duty.failures for duty in duties}
    yield counter("duty_failures", "Failed runs of background duties.", ("duty",), failures)


def loop_lag_figures(lags: Lags) -> Iterator[Metric]:
    """How late the event loop was."""
    bounds = [*map(str, BOUNDS_S), "+Inf"]
    yield HistogramMetricFamily(
        f"{PREFIX}_loop_lag_seconds",
        "How late the event loop came back to a timer.",
        buckets=list(zip(bounds, accumulate(lags.counts), strict=True)),
        sum_value=lags.sum_s,
    )
    yield gauge("loop_lag_longest_seconds", "The longest since the start.", lags.longest_s)


def process_figures(node: NodeBody) -> Iterator[Metric]:
    """Figures of the agent's own process, as last sampled."""
    process = node.process
    yield gauge("process_resident_memory_bytes", "Memory in use.", process.rss_bytes)
    yield gauge("process_open_files", "Open descriptors.", process.open_files)
    yield gauge("process_threads", "Threads.", process.threads)


def gauge(name: str, text: str, value: float) -> Metric:
    """One figure without labels."""
    return GaugeMetricFamily(f"{PREFIX}_{name}", text, value=value)


def counter(name: str, text: str, labels: Sequence[str], values: Values) -> Metric:
    """One counter with labels; its name gets `_total` when it is rendered."""
    family = CounterMetricFamily(f"{PREFIX}_{name}", text, labels=labels)
    for each, value in sorted(values.items()):
        family.add_metric(each, value)
    return family
