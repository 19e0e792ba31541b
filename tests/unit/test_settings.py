from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from pathlib import Path

import pytest

from agent.config.keys import KEYS, Key
from agent.config.loading import ConfigurationError, load
from agent.config.settings import Settings, state_directory
from agent.config.units import Address

MINIMAL = '[[datasets]]\npath = "/m2/a"\n[[datasets]]\npath = "/m2/b"\n'

# One value per key that its type refuses, and the start of what is said about it.
WRONG = {
    "sled_id": ('"a b"', "expected 1 to 128 letters"),
    "state_dir": ("7", "expected a path, found 7"),
    "allowed_hosts": ('["sled-7:12345"]', "expected a host name such as"),
    "drain_timeout_s": ("-1", "expected at least 0, found -1"),
    "agent.listen": ('"12345"', 'expected "host:port"'),
    "agent.advertise_url": ('"sled-7:12345"', 'expected a URL like http://host:port, found "sl'),
    "depot.listen": ("12348", 'expected "host:port"'),
    "depot.advertise_url": ('"http://a:1/?x"', "'http://a:1/?x' is not a server's base URL"),
    "depot.zstd_level": ("20", "expected at most 19, found 20"),
    "depot.zstd_min_size": ('"-1"', "expected a size"),
    "depot.max_bytes_per_s": ('"fast"', "expected a size"),
    "depot.relay": ("1", "expected true or false, found 1"),
    "depot.send": ('"mail"', "expected 'auto', 'splice', 'copy' or 'pipe', found"),
    "depot.fast_path": ("1", "expected true or false, found 1"),
    "depot.hot_cache": ('"many"', 'expected a size such as "20GiB"'),
    "coordinator.urls": ('["ftp://x"]', "expected a URL like http://host:port"),
    "datasets": ("7", "expected an array, found 7"),
    "storage.quota": ('"20 gigs"', 'expected a size such as "20GiB", found "20 gigs"'),
    "storage.max_artifact_size": ("true", "expected a size"),
    "storage.require_mountpoint": ('"yes"', 'expected true or false, found "yes"'),
    "storage.min_copies": ("0", "expected at least 1, found 0"),
    "storage.max_concurrent_puts": ("1.5", "expected a whole number, found 1.5"),
    "storage.delete_grace": ("600", 'expected a duration such as "30s"'),
    "storage.reconcile_interval": ('"0s"', 'expected more than no time, found "0s"'),
    "storage.device_timeout": ('"1 h"', "expected a duration"),
    "storage.mirror_lag": ('"0s"', 'expected more than no time, found "0s"'),
    "storage.group_commit": ('"on"', 'expected true or false, found "on"'),
    "storage.device_workers": ('"fibre"', "expected 'process' or 'thread', found"),
    "storage.direct_io": ('"always"', "expected 'auto' or 'never', found"),
    "storage.block_digests": ('"none"', "expected 'chained' or 'separate', found"),
    "storage.verify_reads": ('"maybe"', "expected 'auto', 'always' or 'never', found"),
    "scrub.interval": ('"0s"', 'expected more than no time, found "0s"'),
    "scrub.max_bytes_per_s": ("0", "expected a size from 1 byte"),
    "storage.quarantine": ('"2 gigs"', "expected a size"),
    "heal.peers": ('["ftp://x"]', "'ftp://x' is not a server's base URL"),
    "heal.max_peers": ("-1", "expected at least 0, found -1"),
    "heal.max_bytes_per_s": ("-1", "expected a size"),
    "copy.max_sources": ("0", "expected at least 1, found 0"),
    "copy.max_bytes_per_s": ("false", "expected a size"),
    "copy.max_bytes_per_s_per_source": ('"0 MiB"', "expected a size from 1 byte"),
    "copy.max_concurrent": ('"8"', 'expected a whole number, found "8"'),
    "copy.allowed_sources": ('["10.0.0.1/8"]', 'expected a network such as "10.0.0.0/8"'),
    "copy.connect_timeout_s": ('"10s"', 'expected a number, found "10s"'),
    "copy.idle_timeout_s": ("nan", "expected"),
    "copy.min_bytes_per_s": ("[]", "expected a whole number, found an array"),
    "http.header_timeout_s": ("inf", "expected"),
    "http.idle_timeout_s": ("{}", "expected a number, found a table"),
    "http.min_body_bytes_per_s": ("true", "expected a whole number, found true"),
    "http.max_connections": ("1979-05-27", "expected a whole number, found 1979-05-27"),
    "http.json_memory": ('"15MiB"', "expected at least 16MiB, which one config may have"),
    "http.max_connections_per_client": ("99999999", "expected at most 1000000, found 99999999"),
    "events.max_entries": ("-5", "expected at least 1, found -5"),
    "log.level": ('"loud"', "expected 'debug', 'info', 'warning' or 'error', found \"loud\""),
    "log.format": ("1", "expected 'console' or 'json', found 1"),
    "debug.checksum_state": ("1", "expected true or false, found 1"),
}

# Keys whose wrong value is wrong in an element.
IN_ARRAYS = ("allowed_hosts", "copy.allowed_sources", "coordinator.urls", "heal.peers")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory to start in, so that `agent.toml` is named the way an operator names it."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(text: str, environ: Mapping[str, str] | None = None) -> Settings:
    Path("agent.toml").write_text(text)
    return load(Path("agent.toml"), environ or {})


def problems(text: str, environ: Mapping[str, str] | None = None) -> tuple[str, ...]:
    with pytest.raises(ConfigurationError) as caught:
        read(text, environ)
    return caught.value.problems


def problem(text: str, environ: Mapping[str, str] | None = None) -> str:
    [only] = problems(text, environ)
    return only


@pytest.mark.usefixtures("folder")
class TestDefaults:
    def test_everything_but_the_datasets_has_a_default(self) -> None:
        settings = read(MINIMAL)

        assert settings.dataset_paths == (Path("/m2/a"), Path("/m2/b"))
        assert settings.agent.listen == Address("127.0.0.1", 12345)
        assert settings.depot.listen == Address("127.0.0.1", 12348)
        assert settings.storage.quota_bytes == 20 * 2**30
        assert settings.storage.max_artifact_size_bytes == 2 * 2**30
        assert settings.http.max_connections == 1024

    def test_copies_come_from_loopback_and_private_ipv6_unless_told_otherwise(self) -> None:
        assert [str(network) for network in read(MINIMAL).copy_.allowed_sources] == [
            "127.0.0.0/8",
            "::1/128",
            "fd00::/8",
            "fe80::/10",
        ]

    def test_a_relative_path_is_relative_to_the_working_directory(self, folder: Path) -> None:
        assert read('[[datasets]]\npath = "var/../m2"').dataset_paths == (folder / "m2",)


@pytest.mark.usefixtures("folder")
class TestStateDirectory:
    def test_the_configured_one_wins(self) -> None:
        settings = read('state_dir = "/s"\n' + MINIMAL)
        assert state_directory(settings, {"STATE_DIRECTORY": "/x"}) == Path("/s")

    def test_then_the_one_systemd_made(self) -> None:
        assert state_directory(read(MINIMAL), {"STATE_DIRECTORY": "/x:/y"}) == Path("/x")

    def test_else_it_stands_beside_the_first_dataset(self) -> None:
        assert state_directory(read(MINIMAL), {}) == Path("/m2/sled-depot-state")


@pytest.mark.usefixtures("folder")
class TestEveryKey:
    def test_the_table_of_wrong_values_names_every_key(self) -> None:
        assert set(WRONG) == {key.name for key in KEYS}

    @pytest.mark.parametrize("key", KEYS, ids=lambda key: key.name)
    def test_a_wrong_value_is_named_with_its_line(self, key: Key) -> None:
        value, expected = WRONG[key.name]
        datasets = "" if key.name == "datasets" else MINIMAL

        found = problem(f"# first line\n{key.name} = {value}\n{datasets}")

        element = "[0]" if key.name in IN_ARRAYS else ""
        assert found.startswith(f"agent.toml:2: {key.name}{element}: {expected}")

    @pytest.mark.parametrize("key", KEYS, ids=lambda key: key.name)
    def test_a_wrong_value_in_the_environment_is_named_by_its_variable(self, key: Key) -> None:
        text = {"datasets": "/m2/a,", "state_dir": ""}.get(key.name, "?")

        found = problem(MINIMAL, {key.variable: text})

        assert found.startswith(f"{key.variable}: {key.name}")
        assert "expected" in found

    @pytest.mark.parametrize("key", KEYS, ids=lambda key: key.name)
    def test_a_misspelt_key_is_unknown_and_the_right_one_is_offered(self, key: Key) -> None:
        found = problem(f"{key.name}x = 1\n{MINIMAL}")

        assert found.startswith(f"agent.toml:1: {key.name}x: unknown key; did you mean {key.name}")

    def test_the_table_that_a_key_stands_in_is_never_offered_instead_of_it(self) -> None:
        found = problem(f"storage.foo = 1\n{MINIMAL}")

        assert found.startswith("agent.toml:1: storage.foo: unknown key")
        assert not found.endswith("storage?")

    @pytest.mark.parametrize("key", KEYS, ids=lambda key: key.name)
    def test_a_misspelt_variable_is_unknown_and_the_right_one_is_offered(self, key: Key) -> None:
        found = problem(MINIMAL, {f"{key.variable}S": "1"})

        assert found == f"{key.variable}S: unknown variable; did you mean {key.variable}?"


@pytest.mark.usefixtures("folder")
class TestAllAtOnce:
    def test_every_mistake_is_reported_in_the_order_of_the_file(self) -> None:
        found = problems(
            'quota = "1GiB"\n'
            '[agent]\nlisten = "127.0.0.1:1"\n[depot]\nlisten = "127.0.0.1:1"\n'
            '[[datasets]]\npth = "/a"\n'
            '[storage]\nquota = "20 gigs"\nmin_copies = 0\n[log]\nlevel = "loud"\n',
            {"SLED_AGENT__COPY__MAX_CONCURRENT": "many", "SLED_AGENT__STORAGE": "x"},
        )

        assert found == (
            "agent.toml:1: quota: unknown key; did you mean storage.quota?",
            "agent.toml:5: depot.listen: expected a port of its own, found that of agent.listen: "
            '"127.0.0.1:1" and "127.0.0.1:1"',
            "agent.toml:6: datasets[0].path: expected a value, found none",
            "agent.toml:7: datasets[0].pth: unknown key; did you mean datasets.path?",
            'agent.toml:9: storage.quota: expected a size such as "20GiB", found "20 gigs"',
            "agent.toml:10: storage.min_copies: expected at least 1, found 0",
            "agent.toml:12: log.level: expected 'debug', 'info', 'warning' or 'error', "
            'found "loud"',
            "SLED_AGENT__COPY__MAX_CONCURRENT: copy.max_concurrent: expected a whole number, "
            'found "many"',
            "SLED_AGENT__STORAGE: unknown variable; did you mean SLED_AGENT__STORAGE__QUOTA?",
        )

    def test_a_file_that_is_not_toml_is_named_with_line_and_column(self) -> None:
        found = problems("a = 1\nb 2\n", {"SLED_AGENT__X": "1"})

        assert found == (
            "agent.toml:2:3: not TOML: Expected '=' after a key in a key/value pair",
            "SLED_AGENT__X: unknown variable",
        )

    def test_a_file_that_ends_too_early_is_named_with_its_last_line(self) -> None:
        assert problem('a = 1\nb = "').startswith("agent.toml:2:1: not TOML: ")

    def test_a_file_that_is_not_there_is_named(self) -> None:
        with pytest.raises(ConfigurationError, match=r"none\.toml: cannot be read: No such file"):
            load(Path("none.toml"), {})

    def test_a_file_that_is_not_utf8_is_named(self) -> None:
        Path("agent.toml").write_bytes(b"a = 1\n# \xff")
        with pytest.raises(ConfigurationError, match=r"toml:2: expected UTF-8, found byte 0xff"):
            load(Path("agent.toml"), {})


@pytest.mark.usefixtures("folder")
class TestConflicts:
    @pytest.mark.parametrize("count", [0, 3])
    def test_there_are_one_or_two_datasets(self, count: int) -> None:
        text = "".join(f'[[datasets]]\npath = "/m2/{index}"\n' for index in range(count))
        assert f"expected 1 to 2 [[datasets]], each with a path, found {count}" in problem(text)

    @pytest.mark.parametrize("second", ["/m2/a", "/m2/./a", "/m2/a/inside", "/m2"])
    def test_datasets_are_apart(self, second: str) -> None:
        found = problem(f'[[datasets]]\npath = "/m2/a"\n\n[[datasets]]\npath = "{second}"\n')
        assert found.startswith("agent.toml:5: datasets[1].path: expected a directory apart from")

    def test_min_copies_is_at_most_the_number_of_datasets(self) -> None:
        found = problem(MINIMAL + "[storage]\nmin_copies = 3\n")
        assert found == (
            "agent.toml:6: storage.min_copies: expected at most the number of datasets (2), found 3"
        )

    @pytest.mark.parametrize(
        ("agent", "depot"), [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "10.1.1.1"), ("a.b", "[::]")]
    )
    def test_a_port_is_used_once(self, agent: str, depot: str) -> None:
        found = problem(f'agent.listen = "{agent}:7"\ndepot.listen = "{depot}:7"\n{MINIMAL}')
        assert found.startswith("agent.toml:2: depot.listen: expected a port of its own")

    @pytest.mark.parametrize(
        ("agent", "depot"), [("127.0.0.1:0", "127.0.0.1:0"), ("10.0.0.1:7", "10.0.0.2:7")]
    )
    def test_free_ports_and_different_addresses_do_not_clash(self, agent: str, depot: str) -> None:
        read(f'agent.listen = "{agent}"\ndepot.listen = "{depot}"\n{MINIMAL}')

    def test_one_client_has_at_most_all_connections(self) -> None:
        found = problem("http.max_connections = 100\n" + MINIMAL)
        assert "http.max_connections_per_client: expected at most http.max_connections" in found

    @pytest.mark.parametrize("peer", ["http://10.1.2.3:12348", "http://[2001:db8::1]:12348"])
    def test_a_peer_that_may_not_be_asked_is_a_mistake_in_both_keys(self, peer: str) -> None:
        found = problem(f'heal.peers = ["http://127.0.0.1", "{peer}"]\n{MINIMAL}')
        assert found.startswith("agent.toml:1: heal.peers[1]: ")
        assert "copy.allowed_sources (127.0.0.0/8, " in found
        assert peer in found

    def test_a_peer_within_the_networks_and_one_with_a_name_are_fine(self) -> None:
        peers = 'heal.peers = ["http://10.1.2.3", "http://[::ffff:10.1.2.3]", "http://depot.lan"]'
        settings = read(f'{peers}\ncopy.allowed_sources = ["10.0.0.0/8"]\n{MINIMAL}')
        assert len(settings.heal.peers) == 3

    @pytest.mark.parametrize("server", ["agent", "depot"])
    @pytest.mark.parametrize("host", ["0.0.0.0", "[::]"])
    def test_no_coordinator_is_told_of_all_addresses(self, server: str, host: str) -> None:
        urls = 'coordinator.urls = ["http://127.0.0.1:12340"]'
        found = problem(f'{server}.listen = "{host}:7"\n{urls}\n{MINIMAL}')
        assert f"{server}.advertise_url: expected the URL at which coordinators" in found
        assert found.endswith("is no address that anybody can connect to")
        read(f'{server}.listen = "{host}:7"\n{MINIMAL}')
        read(
            f'{server}.listen = "{host}:7"\n{server}.advertise_url = "http://a:7"\n{urls}\n{MINIMAL}'
        )

    @pytest.mark.parametrize("coordinator", ["http://10.0.0.1", "http://coordinator.lan:12340"])
    def test_no_other_machine_is_told_of_loopback(self, coordinator: str) -> None:
        urls = f'coordinator.urls = ["{coordinator}"]'
        found = problems(f"{urls}\n{MINIMAL}")
        assert [line.partition(":")[0] for line in found] == ["agent.toml", "agent.toml"]
        assert all("is reached from this machine only" in line for line in found)
        for own in ("http://127.0.0.2:12340", "http://[::1]", "http://localhost"):
            read(f'coordinator.urls = ["{own}"]\n{MINIMAL}')

    def test_a_quota_below_the_largest_artifact_is_legal(self) -> None:
        read(MINIMAL + '[storage]\nquota = "1MiB"\n')


@pytest.mark.usefixtures("folder")
class TestEnvironment:
    def test_variables_win_over_the_file_and_are_read_by_type(self) -> None:
        settings = read(
            MINIMAL + '[storage]\nquota = "1GiB"\n',
            {
                "SLED_AGENT__STORAGE__QUOTA": "5GiB",
                "SLED_AGENT__STORAGE__REQUIRE_MOUNTPOINT": "true",
                "SLED_AGENT__STORAGE__MAX_CONCURRENT_PUTS": "3",
                "SLED_AGENT__STATE_DIR": "/state",
                "SLED_AGENT__SLED_ID": "42",
                "SLED_AGENT__DRAIN_TIMEOUT_S": "1.5",
                "SLED_AGENT__AGENT__LISTEN": "[::1]:0",
                "SLED_AGENT__LOG__FORMAT": "json",
                "OTHER": "ignored",
            },
        )

        assert settings.storage.quota_bytes == 5 * 2**30
        assert settings.storage.require_mountpoint is True
        assert settings.storage.max_concurrent_puts == 3
        assert settings.state_dir == Path("/state")
        assert settings.sled_id == "42"
        assert settings.drain_timeout_s == 1.5
        assert settings.agent.listen == Address("::1", 0)
        assert settings.log.format == "json"

    @pytest.mark.parametrize("text", ["/x, /y", '["/x", "/y"]'])
    def test_datasets_are_a_list_of_paths(self, text: str) -> None:
        settings = read(MINIMAL, {"SLED_AGENT__DATASETS": text})
        assert settings.dataset_paths == (Path("/x"), Path("/y"))

    @pytest.mark.parametrize("text", ["10.0.0.0/8,fd00::/8", '["10.0.0.0/8", "fd00::/8"]'])
    def test_networks_are_json_or_separated_by_commas(self, text: str) -> None:
        settings = read(MINIMAL, {"SLED_AGENT__COPY__ALLOWED_SOURCES": text})
        assert settings.copy_.allowed_sources == (
            ipaddress.ip_network("10.0.0.0/8"),
            ipaddress.ip_network("fd00::/8"),
        )

    def test_an_empty_list_allows_nothing(self) -> None:
        settings = read(MINIMAL, {"SLED_AGENT__COPY__ALLOWED_SOURCES": ""})
        assert settings.copy_.allowed_sources == ()

    def test_no_names_are_another_thing_than_nothing_said_of_names(self) -> None:
        assert read(MINIMAL).allowed_hosts is None
        for text, names in (("", ()), ("Sled-7,a.example", ("sled-7", "a.example"))):
            settings = read(MINIMAL, {"SLED_AGENT__ALLOWED_HOSTS": text})
            assert settings.allowed_hosts == names

    def test_a_variable_replaces_a_wrong_value_of_the_file(self) -> None:
        read(MINIMAL + "[log]\nlevel = 1\n", {"SLED_AGENT__LOG__LEVEL": "debug"})

    def test_a_section_that_is_no_table_is_named_though_a_variable_is_set(self) -> None:
        found = problem("storage = 5\n" + MINIMAL, {"SLED_AGENT__STORAGE__QUOTA": "5GiB"})
        assert found == "agent.toml:1: storage: expected a table, found 5"
