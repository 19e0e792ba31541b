from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from agent.config.loading import ConfigurationError
from agent.config.units import Address
from coordinator.settings import COORDINATOR, CoordinatorSettings, load, without_secrets

# The names that others rely on.
PROMISED = {
    "listen",
    "database.url",
    "staging.path",
    "staging.quota",
    "replication.min_sled_replication",
    "replication.period_s",
    "replication.activation",
    "replication.max_concurrent_requests",
    "import.allowed_sources",
    "drain_timeout_s",
}


def loaded(
    tmp_path: Path, text: str, environ: Mapping[str, str] | None = None
) -> CoordinatorSettings:
    file = tmp_path / "coordinator.toml"
    file.write_text(text)
    return load(file, environ or {})


def test_every_promised_key_is_there() -> None:
    assert {key.name for key in COORDINATOR.keys} >= PROMISED


def test_an_empty_file_is_a_coordinator_with_sqlite_beside_its_staging(tmp_path: Path) -> None:
    settings = loaded(tmp_path, "")
    assert settings.listen == Address("127.0.0.1", 12340)
    assert settings.database_url == (
        "sqlite+aiosqlite:////var/lib/sled-depot-coordinator/coordinator.sqlite3"
    )
    assert settings.import_.allowed_sources == ()


@pytest.mark.parametrize("scheme", ["postgresql+asyncpg", "cockroachdb+asyncpg"])
def test_several_coordinators_share_a_database_of_postgresql_s_kind(
    tmp_path: Path, scheme: str
) -> None:
    url = f"{scheme}://fleet@db.example/fleet"
    assert loaded(tmp_path, f'[database]\nurl = "{url}"').database_url == url


def test_keys_are_read_from_the_file_and_the_environment_wins(tmp_path: Path) -> None:
    settings = loaded(
        tmp_path,
        'listen = "[::1]:0"\n[staging]\npath = "/srv/staging"\nquota = "5GiB"\n'
        '[replication]\nactivation = "manual"\nperiod_s = 5\n'
        '[import]\nallowed_sources = ["10.0.0.0/8"]\n',
        {
            "DEPOT_COORDINATOR__REPLICATION__PERIOD_S": "7",
            "DEPOT_COORDINATOR__DATABASE__URL": "postgresql+asyncpg://u@/fleet",
            "DEPOT_COORDINATOR_URL": "http://elsewhere:1",
        },
    )
    assert settings.staging.path == Path("/srv/staging")
    assert settings.staging.quota_bytes == 5 * 2**30
    assert settings.replication.period_s == 7
    assert settings.database_url == "postgresql+asyncpg://u@/fleet"
    assert [str(network) for network in settings.import_.allowed_sources] == ["10.0.0.0/8"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[replication]\nmin_sled_replication = 0\n", "expected at least 1, found 0"),
        ('[replication]\nactivation = "never"\n', "expected 'periodic' or 'manual'"),
        ("[staging]\nquoat = 1\n", "staging.quoat: unknown key; did you mean staging.quota?"),
        ('[database]\nurl = "mysql://x:secret@y/z"\n', "found 'mysql'"),
        ('[database]\nurl = "sqlite+aiosqlite://"\n', "sqlite+aiosqlite:////absolute/path"),
        ('[database]\nurl = "sqlite+aiosqlite:///:memory:"\n', "////absolute/path"),
        ("[http]\nmax_connections = 3\n", "expected at most http.max_connections (3)"),
    ],
)
def test_a_mistake_names_its_line_and_what_was_expected(
    tmp_path: Path, text: str, expected: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        loaded(tmp_path, text)
    assert expected in str(caught.value)
    assert f"{tmp_path}/coordinator.toml:" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_an_unknown_variable_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"did you mean DEPOT_COORDINATOR__LISTEN\?"):
        loaded(tmp_path, "", {"DEPOT_COORDINATOR__LISTENS": "x"})


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql+asyncpg://u:secret@host/name", "postgresql+asyncpg://u:***@host/name"),
        ("postgresql+asyncpg://u:s/?:ecret@host/name", "postgresql+asyncpg://u:***@host/name"),
        ("postgresql+asyncpg://u@host/name", "postgresql+asyncpg://u@host/name"),
        (
            "postgresql+asyncpg://u@/name?host=/run/pg&password=sec%40ret",
            "postgresql+asyncpg://u@/name?host=/run/pg&password=***",
        ),
        (
            "postgresql+asyncpg://host/name?password=sec@ret&ssl=require",
            "postgresql+asyncpg://host/name?password=***&ssl=require",
        ),
        ("sqlite+aiosqlite:////var/lib/x.sqlite3", "sqlite+aiosqlite:////var/lib/x.sqlite3"),
    ],
)
def test_secrets_in_a_databases_url_are_not_shown(url: str, shown: str) -> None:
    assert without_secrets(url) == shown
