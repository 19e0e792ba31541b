"""Every measurement by the name that `--only` takes: that of its first row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from tests.benchmarks.measure import Row
from tests.benchmarks.rig import Rig
from tests.benchmarks.rows import (
    connections,
    copying,
    fanout,
    get,
    journal,
    limits,
    passing,
    planning,
    put,
    small,
    snapshots,
    start,
)

MEASUREMENTS: Final[Mapping[str, Callable[[Rig], list[Row]]]] = {
    "get-1": get.one,
    "get-8": get.eight,
    "get-1-caddy": get.caddy,
    "get-verified": get.verified,
    "small-get-16": small.get(16, cached=False),
    "small-get-64": small.get(64, cached=False),
    "small-get-16-cached": small.get(16, cached=True),
    "small-get-64-cached": small.get(64, cached=True),
    "put-direct": put.direct,
    "put-nginx": put.nginx,
    "put-registry": put.registry,
    "put-rclone": put.rclone,
    "put-script": put.script,
    "small-put": small.put,
    "copy-curl": copying.curl,
    "copy-tee": copying.tee,
    "fanout-8": fanout.fan_out(8, 200, 1.25),
    "fanout-32": fanout.fan_out(32, 40, 1.5),
    "crowd": connections.crowd,
    "memory-idle": connections.idle_memory,
    "memory-put": connections.put_memory,
    "start": start.start,
    "snapshot-file": snapshots.from_file,
    "snapshot-s3": snapshots.from_s3,
    "plan": planning.planning,
    "pass": passing.idle_pass,
    "journal-append": journal.journal,
    "limit-get-mapped-1": get.bare(1, "mapped"),
    "limit-get-mapped-8": get.bare(8, "mapped"),
    "limit-get-spliced-1": get.bare(1, "spliced"),
    "limit-get-spliced-8": get.bare(8, "spliced"),
    "limit-put": put.limit,
    "limit-small-put-files": small.files_limit,
    "limit-small-put-server": small.server_limit,
    "limit-sha256-hot": limits.sha256_hot,
    "limit-sha256-cold": limits.sha256_cold,
    "limit-direct": limits.direct,
    "limit-socket": limits.socket,
}


def chosen(names: Sequence[str]) -> list[str]:
    """The measurements of these names, in the table's order.

    A name that is none itself stands for all that begin with it.

    Raises:
        ValueError: a name leads to none; says which.
    """
    found = {name: [each for each in MEASUREMENTS if _belongs(each, name)] for name in names}
    if strangers := [name for name, measurements in found.items() if not measurements]:
        raise ValueError(f"no such measurement: {', '.join(strangers)}")
    wanted = {each for measurements in found.values() for each in measurements}
    return [each for each in MEASUREMENTS if each in wanted]


def _belongs(measurement: str, name: str) -> bool:
    whole = name in MEASUREMENTS
    return measurement == name if whole else measurement.startswith(f"{name}-")
