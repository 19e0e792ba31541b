"""`depot-coordinator snapshot held` and `drop`."""

from __future__ import annotations

from pathlib import Path

from agent.snapshots.opening import open_archive
from agent.snapshots.publish import Publication, publish
from tests.coordinator.cli.conftest import Cli
from tests.coordinator.running import InThread


def test_what_the_sleds_hold_is_listed_and_dropped_once_somebody_says_so(
    cli: Cli, server: InThread, tmp_path: Path
) -> None:
    assert "no snapshot" in cli("snapshot", "held").err
    file = tmp_path / "file"
    file.write_bytes(b"what every node starts from")
    archive = open_archive(f"fleet+{server.url}")
    publication = Publication(path=file, name="db/state")
    head = publish(archive, publication, line=lambda _: None, progress=lambda _: None)

    (listed,) = cli("snapshot", "held", "--json").document["items"]
    assert (listed["name"], listed["newest"]["version"]) == ("db/state", str(head.version))
    assert str(head.version) in cli.fine("snapshot", "held")

    refused = cli("snapshot", "drop", "db/state")
    assert (refused.code, "--yes" in refused.err) == (2, True)
    assert cli.fine("snapshot", "drop", "db/state", "--yes") == "db/state: dropped\n"
    assert cli("snapshot", "held", "--json").document == {"items": []}
    assert cli("snapshot", "drop", "db/state", "--yes").code == 3


def test_the_database_can_be_published_into_a_fleet(
    cli: Cli, server: InThread, tmp_path: Path
) -> None:
    config = tmp_path / "coordinator.toml"
    config.write_text(
        f'[staging]\npath = "{tmp_path}/coordinator/staging"\n'
        f'[snapshot]\narchive = "fleet+{server.url}"\nname = "db"\nkeep = 2\n'
    )
    for _ in range(3):
        cli.fine("snapshot", "publish", "--config", config)
    listed = cli("snapshot", "ls", "--config", config, "--json").document
    assert len(listed["items"]) == 2
    (held,) = cli("snapshot", "held", "--json").document["items"]
    assert (held["name"], held["versions"]) == ("db", 2)
    assert held["newest"]["version"] == listed["items"][0]["version"]
    assert held["newest"]["metadata"]["checksum"] == listed["newest"]["checksum"]
