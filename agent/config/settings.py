"""Every key of the agent's configuration: its name, type, default and bounds.

Rules: no key is unknown, no value is guessed (a string is never taken for a number), everything
has a default except the datasets, and every bound of the service (invariant S1) stands here. What
one key alone can get wrong is refused by its type; what only two keys together can get wrong is
listed by `conflicts`. Reading files and the environment is `agent.config.loading`'s.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from agent.config.advertising import why_not_advertised
from agent.config.units import (
    Address,
    parse_address,
    parse_duration,
    parse_host,
    parse_limit,
    parse_size,
    shown,
)
from agent.copies.networks import AllowedNetworks
from agent.copies.source_url import SourceUrl
from depot.errors import BadSource, InvalidRequest
from depot.http.compressing import DEFAULT_LEVEL, DEFAULT_MIN_SIZE_BYTES, MAX_LEVEL
from depot.http.hot_artifacts import DEFAULT_BUDGET_BYTES
from depot.http.limits import MAX_JSON_BODY_BYTES
from depot.urls import base_url

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_SLED_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", re.ASCII)
GIB: Final = 2**30
MAX_DATASETS: Final = 2
DEFAULT_SOURCES: Final = tuple(
    ipaddress.ip_network(network) for network in ("127.0.0.0/8", "::1/128", "fd00::/8", "fe80::/10")
)


def _parse_network(value: object) -> Network:
    expected = 'expected a network such as "10.0.0.0/8" or "fd00::/8"'
    try:
        return ipaddress.ip_network(value if isinstance(value, str) else "")
    except ValueError as error:
        why = f" ({error})" if "host bits" in str(error) else ""
        raise ValueError(f"{expected}, found {shown(value)}{why}") from None


def _parse_interval(value: object) -> float:
    if not (interval_s := parse_duration(value)):
        raise ValueError(f"expected more than no time, found {shown(value)}")
    return interval_s


def _parse_json_memory(value: object) -> int:
    if (size_bytes := parse_size(value)) < MAX_JSON_BODY_BYTES:
        raise ValueError(
            f"expected at least {MAX_JSON_BODY_BYTES // 2**20}MiB, which one config may have, "
            f"found {shown(value)}"
        )
    return size_bytes


def _parse_path(value: object) -> Path:
    """Make a path absolute and plain.

    Symbolic links stay: they are the operator's, and looking them up would touch a disk that
    may hang.
    """
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError(f"expected a path, found {shown(value)}")
    return Path(os.path.abspath(value))


def _parse_sled_id(value: object) -> str:
    if isinstance(value, str) and _SLED_ID.fullmatch(value):
        return value
    raise ValueError(
        "expected 1 to 128 letters, digits, dots, dashes or underscores, the first a letter or "
        f"digit, found {shown(value)}"
    )


SledId = Annotated[str, BeforeValidator(_parse_sled_id)]
Size = Annotated[int, BeforeValidator(parse_size)]
Limit = Annotated[int, BeforeValidator(parse_limit)]
JsonMemory = Annotated[int, BeforeValidator(_parse_json_memory)]
Duration = Annotated[float, BeforeValidator(parse_duration)]
Interval = Annotated[float, BeforeValidator(_parse_interval)]
Listen = Annotated[Address, BeforeValidator(parse_address)]
Directory = Annotated[Path, BeforeValidator(_parse_path)]
# Lax for the array only: TOML has lists, and its elements are checked one by one.
Networks = Annotated[
    tuple[Annotated[Network, BeforeValidator(_parse_network)], ...], Field(strict=False)
]
Hosts = Annotated[tuple[Annotated[str, BeforeValidator(parse_host)], ...], Field(strict=False)]
Seconds = Annotated[float, Field(gt=0, le=86400, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]


def _parse_url(value: object) -> str:
    try:
        return str(base_url(value if isinstance(value, str) else "")).rstrip("/")
    except InvalidRequest:
        raise ValueError(f"expected a URL like http://host:port, found {shown(value)}") from None


def _parse_depot_url(value: object) -> str:
    try:
        return str(SourceUrl.parse(value if isinstance(value, str) else ""))
    except BadSource as error:
        raise ValueError(str(error)) from None


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class AgentTable(_Table):
    """`[agent]`: the sled agent API."""

    listen: Listen = Address("127.0.0.1", 12345)
    advertise_url: Annotated[str | None, BeforeValidator(_parse_url)] = None


class DepotTable(_Table):
    """`[depot]`: the repo depot API."""

    listen: Listen = Address("127.0.0.1", 12348)
    advertise_url: Annotated[str | None, BeforeValidator(_parse_depot_url)] = None
    zstd_level: Annotated[int, Field(ge=0, le=MAX_LEVEL)] = DEFAULT_LEVEL
    zstd_min_size_bytes: Size = Field(default=DEFAULT_MIN_SIZE_BYTES, alias="zstd_min_size")
    max_bytes_per_s: Limit = 0
    relay: bool = True
    send: Literal["auto", "splice", "copy", "pipe"] = "auto"
    fast_path: bool = True
    hot_cache_bytes: Limit = Field(default=DEFAULT_BUDGET_BYTES, alias="hot_cache")


class CoordinatorTable(_Table):
    """`[coordinator]`: who is told where this sled is."""

    urls: Annotated[
        tuple[Annotated[str, BeforeValidator(_parse_url)], ...], Field(strict=False)
    ] = ()


class DatasetTable(_Table):
    """`[[datasets]]`: one directory, on a disk of its own."""

    path: Directory


class StorageTable(_Table):
    """`[storage]`: what a dataset may hold and how it is looked after."""

    quota_bytes: Size = Field(default=20 * GIB, alias="quota")
    max_artifact_size_bytes: Size = Field(default=2 * GIB, alias="max_artifact_size")
    require_mountpoint: bool = False
    min_copies: Count = 1
    max_concurrent_puts: Count = 32
    delete_grace_s: Duration = Field(default=600.0, alias="delete_grace")
    reconcile_interval_s: Interval = Field(default=300.0, alias="reconcile_interval")
    device_timeout_s: Interval = Field(default=30.0, alias="device_timeout")
    mirror_lag_s: Interval = Field(default=5.0, alias="mirror_lag")
    group_commit: bool = True
    device_workers: Literal["process", "thread"] = "process"
    verify_reads: Literal["auto", "always", "never"] = "auto"
    direct_io: Literal["auto", "never"] = "auto"
    block_digests: Literal["chained", "separate"] = "chained"
    quarantine_bytes: Size = Field(default=2 * GIB, alias="quarantine")


class ScrubTable(_Table):
    """`[scrub]`: verifying every copy in the background."""

    interval_s: Interval = Field(default=86400.0, alias="interval")
    max_bytes_per_s: Size = 500 * 2**20


class CopyTable(_Table):
    """`[copy]`: fetching from peers."""

    max_concurrent: Count = 8
    max_sources: Annotated[int, Field(ge=1, le=16)] = 4
    allowed_sources: Networks = DEFAULT_SOURCES
    connect_timeout_s: Seconds = 10.0
    idle_timeout_s: Seconds = 30.0
    min_bytes_per_s: Count = 1024
    max_bytes_per_s: Limit = 0
    max_bytes_per_s_per_source: Limit = 0


class HealTable(_Table):
    """`[heal]`: where artifacts come back from that no dataset here has whole."""

    peers: Annotated[
        tuple[Annotated[str, BeforeValidator(_parse_depot_url)], ...], Field(strict=False)
    ] = ()
    max_peers: Annotated[int, Field(ge=0, le=1024)] = 64
    max_bytes_per_s: Limit = 0


class HttpTable(_Table):
    """`[http]`: bounds of both servers."""

    header_timeout_s: Seconds = 10.0
    idle_timeout_s: Seconds = 75.0
    min_body_bytes_per_s: Count = 1024
    max_connections: Count = 1024
    max_connections_per_client: Count = 256
    json_memory_bytes: JsonMemory = Field(default=64 * 2**20, alias="json_memory")


class EventsTable(_Table):
    """`[events]`: the log that `GET /events` reads."""

    max_entries: Annotated[int, Field(ge=1, le=10_000_000)] = 100_000


class LogTable(_Table):
    """`[log]`: what goes to stderr."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["console", "json"] = "console"


class DebugTable(_Table):
    """`[debug]`: what finds bugs and is too slow for service."""

    checksum_state: bool = False


class Settings(_Table):
    """The whole configuration, checked key by key; `conflicts` checks the keys together."""

    sled_id: SledId | None = None
    state_dir: Directory | None = None
    allowed_hosts: Hosts | None = None
    """Names that both servers are called by, beside those that they know; None: any."""
    drain_timeout_s: Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)] = 20.0
    agent: AgentTable = AgentTable()
    depot: DepotTable = DepotTable()
    coordinator: CoordinatorTable = CoordinatorTable()
    datasets: Annotated[tuple[DatasetTable, ...], Field(strict=False)] = ()
    storage: StorageTable = StorageTable()
    scrub: ScrubTable = ScrubTable()
    copy_: CopyTable = Field(default=CopyTable(), alias="copy")
    heal: HealTable = HealTable()
    http: HttpTable = HttpTable()
    events: EventsTable = EventsTable()
    log: LogTable = LogTable()
    debug: DebugTable = DebugTable()

    @property
    def dataset_paths(self) -> tuple[Path, ...]:
        """The datasets' directories, in the order of the file."""
        return tuple(dataset.path for dataset in self.datasets)


@dataclass(frozen=True, slots=True)
class Conflict:
    """Keys that are each valid and together are not; the first is where it is reported."""

    keys: tuple[tuple[str | int, ...], ...]
    message: str


def conflicts(settings: Settings) -> Iterator[Conflict]:
    """List what is wrong between keys, in no particular order."""
    yield from _dataset_conflicts(settings.dataset_paths)
    if settings.datasets and settings.storage.min_copies > len(settings.datasets):
        yield Conflict(
            (("storage", "min_copies"), ("datasets",)),
            f"expected at most the number of datasets ({len(settings.datasets)}), "
            f"found {settings.storage.min_copies}",
        )
    if _overlap(settings.agent.listen, settings.depot.listen):
        yield Conflict(
            (("depot", "listen"), ("agent", "listen")),
            "expected a port of its own, found that of agent.listen: "
            f'"{settings.depot.listen}" and "{settings.agent.listen}"',
        )
    if settings.http.max_connections_per_client > settings.http.max_connections:
        yield Conflict(
            (("http", "max_connections_per_client"), ("http", "max_connections")),
            f"expected at most http.max_connections ({settings.http.max_connections}), "
            f"found {settings.http.max_connections_per_client}",
        )
    yield from _peer_conflicts(settings)
    yield from _advertising_conflicts(settings)


def _advertising_conflicts(settings: Settings) -> Iterator[Conflict]:
    """Addresses that a coordinator would be told and could not use."""
    coordinators = settings.coordinator.urls
    for name, server in (("agent", settings.agent), ("depot", settings.depot)):
        if not coordinators or server.advertise_url is not None:
            continue
        if why := why_not_advertised(server.listen, coordinators):
            yield Conflict(
                ((name, "advertise_url"), (name, "listen"), ("coordinator", "urls")),
                f"expected the URL at which coordinators and peers reach {name}.listen: {why}",
            )


def _peer_conflicts(settings: Settings) -> Iterator[Conflict]:
    """Peers that would never be asked. What a name resolves to is not known here."""
    allowed = AllowedNetworks.of(settings.copy_.allowed_sources)
    for index, peer in enumerate(settings.heal.peers):
        host = SourceUrl.parse(peer).host
        with suppress(ValueError):  # a name
            if not allowed.allows(host):
                yield Conflict(
                    (("heal", "peers", index), ("copy", "allowed_sources")),
                    f"expected an address within copy.allowed_sources ({allowed}), "
                    f'found "{peer}": it would never be asked',
                )


def _dataset_conflicts(paths: tuple[Path, ...]) -> Iterator[Conflict]:
    if not 1 <= len(paths) <= MAX_DATASETS:
        message = f"expected 1 to {MAX_DATASETS} [[datasets]], each with a path, found {len(paths)}"
        yield Conflict((("datasets",),), message)
    for index, path in enumerate(paths):
        for earlier, other in enumerate(paths[:index]):
            if path.is_relative_to(other) or other.is_relative_to(path):
                yield Conflict(
                    (("datasets", index, "path"), ("datasets", earlier, "path")),
                    f'expected a directory apart from datasets[{earlier}].path ("{other}"), '
                    f'found "{path}"',
                )


def _overlap(one: Address, other: Address) -> bool:
    """Say whether both cannot be bound at once; two host names are never looked up."""
    hosts = {one.host, other.host}
    return one.port == other.port != 0 and (len(hosts) == 1 or bool(hosts & {"0.0.0.0", "::"}))


def state_directory(settings: Settings, environ: Mapping[str, str]) -> Path:
    """Choose where the witness, the locks and the events live.

    The first that applies: `state_dir`; `$STATE_DIRECTORY`, which systemd sets for a unit with
    `StateDirectory=`; `sled-depot-state` beside the first dataset.
    """
    if settings.state_dir is not None:
        return settings.state_dir
    if from_systemd := environ.get("STATE_DIRECTORY"):
        return Path(from_systemd.split(":")[0])
    return settings.dataset_paths[0].parent / "sled-depot-state"
