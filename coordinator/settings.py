"""Every key of the coordinator's configuration: its name, type, default and bounds.

The rules are those of the agent's (`agent.config.settings`): no key is unknown, no value is
guessed, every bound of the service (S1) stands here. Everything has a default, so that an empty
file is a coordinator with a SQLite database and a staging directory.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from agent.config.keys import Form
from agent.config.loading import load_form
from agent.config.settings import (
    GIB,
    Conflict,
    Directory,
    Hosts,
    HttpTable,
    Listen,
    LogTable,
    Networks,
    Size,
)
from agent.config.units import Address
from agent.snapshots.errors import InvalidArchive
from agent.snapshots.opening import KINDS
from agent.snapshots.values import snapshot_name
from depot.errors import InvalidRequest
from depot.urls import base_url

PREFIX: Final = "DEPOT_COORDINATOR__"
DEFAULT_LISTEN: Final = Address("127.0.0.1", 12340)
DEFAULT_STAGING: Final = Path("/var/lib/sled-depot-coordinator/staging")
# Private, loopback and link-local; but not the IPv4 link-local ones, where clouds keep secrets.
DEFAULT_SLED_NETWORKS: Final = tuple(
    ip_network(network)
    for network in (
        "127.0.0.0/8",
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "::1/128",
        "fc00::/7",
        "fe80::/10",
    )
)
DATABASE_FILE: Final = "coordinator.sqlite3"
JOURNAL_KEYS: Final = "journal-keys"
SNAPSHOT_WORK: Final = "snapshot-work"
_ARCHIVES: Final = re.compile(
    r"file://(localhost)?/[^?#]*|s3://[^/?#@]+(/[^?#@]*)?|fleet\+http://[^/?#@]+(/[^?#@]*)?"
)
_DATABASES: Final = re.compile(
    r"sqlite\+aiosqlite:///+[^/:].*|(postgresql|cockroachdb)\+asyncpg://.*", re.DOTALL
)

# As SQLAlchemy reads it: a password ends with the first @, and may hold anything else.
_DATABASE_URL: Final = re.compile(
    r"(?P<scheme>[^:]*://)(?:(?P<user>[^:/@?]*)(?P<password>:[^@]*)?@)?(?P<place>[^?]*)"
    r"(?:\?(?P<query>.*))?",
    re.DOTALL,
)
_SECRETLESS: Final = frozenset({"host", "port", "user", "database", "ssl", "application_name"})


def without_secrets(database_url: str) -> str:
    """A database's URL for people: without passwords, wherever in it they may be."""
    match = _DATABASE_URL.fullmatch(database_url)
    if match is None:
        return "a URL that cannot be read"
    scheme, user, password, place, query = match.groups()
    login = "" if user is None else f"{user}{':***' if password else ''}@"
    return f"{scheme}{login}{place}{'' if query is None else f'?{_without_values(query)}'}"


def _without_values(query: str) -> str:
    pairs = (pair.partition("=") for pair in query.split("&"))
    return "&".join(
        f"{name}{sign}{value if name in _SECRETLESS else '***'}" for name, sign, value in pairs
    )


def _parse_database(value: object) -> str:
    if isinstance(value, str) and _DATABASES.fullmatch(value) and "\0" not in value:
        return value
    # A URL may hold a password, and messages end up in logs: only its scheme is told.
    found = value.partition(":")[0][:40] if isinstance(value, str) else type(value).__name__
    raise ValueError(
        "expected sqlite+aiosqlite:////absolute/path or postgresql+asyncpg://user@host/name, "
        f"found {found!r}"
    )


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class DatabaseTable(_Table):
    """`[database]`: what the coordinators of one fleet share."""

    url: Annotated[str, BeforeValidator(_parse_database)] | None = None
    """None: a SQLite file beside the staging directory."""


class StagingTable(_Table):
    """`[staging]`: uploaded artifacts, until enough sleds have them."""

    path: Directory = DEFAULT_STAGING
    quota_bytes: Size = Field(default=100 * GIB, alias="quota")


class UploadTable(_Table):
    """`[upload]`: what a release may take while it arrives."""

    max_size_bytes: Size = Field(default=50 * GIB, alias="max_size")
    max_concurrent: Annotated[int, Field(ge=1, le=64)] = 2


class ReplicationTable(_Table):
    """`[replication]`: how the fleet is brought to hold every release."""

    min_sled_replication: Annotated[int, Field(ge=1, le=1000)] = 3
    period_s: Annotated[float, Field(gt=0, le=86400, allow_inf_nan=False)] = 60.0
    activation: Literal["periodic", "manual"] = "periodic"
    max_concurrent_requests: Annotated[int, Field(ge=1, le=1024)] = 8


class SledsTable(_Table):
    """`[sleds]`: the nodes of the fleet."""

    allowed_networks: Networks = DEFAULT_SLED_NETWORKS


class ImportTable(_Table):
    """`[import]`: releases fetched from a TUF repository by its URL."""

    allowed_sources: Networks = ()


class JournalTable(_Table):
    """`[journal]`: what happened, so that nobody can change it unseen."""

    keys: Directory | None = None
    """None: a directory beside the staging directory."""
    gather_s: Annotated[float, Field(gt=0, le=86400, allow_inf_nan=False)] = 10.0
    checkpoint_s: Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)] = 10.0
    max_entries: Annotated[int, Field(ge=1, le=1_000_000_000)] = 1_000_000
    max_age_s: Annotated[float, Field(ge=60, le=10 * 365 * 86400, allow_inf_nan=False)] = (
        2_592_000.0
    )


class PruneTable(_Table):
    """`[prune]`: which releases stay when the others go."""

    enabled: bool = False
    keep_previous_targets: Annotated[int, Field(ge=0, le=1000)] = 2
    keep_newest: Annotated[int, Field(ge=0, le=1000)] = 3


def _parse_archive(value: object) -> str:
    if isinstance(value, str) and _ARCHIVES.fullmatch(value):
        return value
    raise ValueError(f"expected {KINDS}, found {_scheme_of(value)!r}")


def _parse_endpoint(value: object) -> str:
    try:
        return str(base_url(value if isinstance(value, str) else "")).rstrip("/")
    except InvalidRequest:
        raise ValueError("expected a URL like http://host:port") from None


def _scheme_of(value: object) -> str:
    return value.partition(":")[0][:40] if isinstance(value, str) else type(value).__name__


def _parse_snapshot_name(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"expected the name of a snapshot, found {type(value).__name__}")
    try:
        return snapshot_name(value)
    except InvalidArchive as error:
        raise ValueError(str(error)) from None


class SnapshotTable(_Table):
    """`[snapshot]`: copies of the database, in an archive."""

    archive: Annotated[str, BeforeValidator(_parse_archive)] | None = None
    endpoint: Annotated[str, BeforeValidator(_parse_endpoint)] | None = None
    """The server that speaks S3; None: what AWS_ENDPOINT_URL says, or Amazon's."""
    name: Annotated[str, BeforeValidator(_parse_snapshot_name)] = "coordinator"
    interval_s: Annotated[float, Field(ge=0, le=365 * 86400, allow_inf_nan=False)] = 0.0
    """0: only when somebody says so."""
    keep: Annotated[int, Field(ge=1, le=10000)] = 7
    zstd: bool = True


class CoordinatorSettings(_Table):
    """The whole configuration."""

    listen: Listen = DEFAULT_LISTEN
    allowed_hosts: Hosts = ()
    """Names it is called by, beside its address, this machine's name and `localhost`."""
    drain_timeout_s: Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)] = 20.0
    database: DatabaseTable = DatabaseTable()
    staging: StagingTable = StagingTable()
    upload: UploadTable = UploadTable()
    replication: ReplicationTable = ReplicationTable()
    sleds: SledsTable = SledsTable()
    import_: ImportTable = Field(default=ImportTable(), alias="import")
    prune: PruneTable = PruneTable()
    journal: JournalTable = JournalTable()
    snapshot: SnapshotTable = SnapshotTable()
    http: HttpTable = HttpTable()
    log: LogTable = LogTable()

    @property
    def database_url(self) -> str:
        """Where the database is: as it was said, or beside the staging directory."""
        if self.database.url is not None:
            return self.database.url
        return f"sqlite+aiosqlite:///{self.staging.path.parent / DATABASE_FILE}"

    @property
    def journal_keys(self) -> Path:
        """Where the journal's private keys are: as it was said, or beside the staging directory."""
        return self.journal.keys or self.staging.path.parent / JOURNAL_KEYS

    @property
    def snapshot_work(self) -> Path:
        """Where copies of the database are made: beside the staging directory."""
        return self.staging.path.parent / SNAPSHOT_WORK


def conflicts(settings: CoordinatorSettings) -> Iterator[Conflict]:
    """List what is wrong between keys that are valid by themselves."""
    http = settings.http
    if http.max_connections_per_client > http.max_connections:
        yield Conflict(
            (("http", "max_connections_per_client"), ("http", "max_connections")),
            f"expected at most http.max_connections ({http.max_connections}), "
            f"found {http.max_connections_per_client}",
        )
    if settings.snapshot.interval_s and settings.snapshot.archive is None:
        yield Conflict(
            (("snapshot", "interval_s"),),
            "snapshots every so often need a place: snapshot.archive",
        )


COORDINATOR: Final = Form(CoordinatorSettings, conflicts, PREFIX)


def load(path: Path, environ: Mapping[str, str]) -> CoordinatorSettings:
    """Read the configuration file and the `DEPOT_COORDINATOR__` variables.

    Raises:
        ConfigurationError: with every mistake.
    """
    return load_form(COORDINATOR, path, environ)
