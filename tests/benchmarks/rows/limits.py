"""What the machine gives to a script that does one thing: rows of their own, beside nobody."""

from __future__ import annotations

import errno

from tests.benchmarks import raw
from tests.benchmarks.measure import MIB_PER_S, Contender, Row, Sample, alone
from tests.benchmarks.rig import Rig
from tests.benchmarks.rows.put import NO_DIRECT


def sha256_hot(rig: Rig) -> list[Row]:
    raw.sha256_pass(rig.body.path)
    work = "limit: one SHA-256 pass, from the page cache"
    return [_limit(rig, "limit-sha256-hot", work, lambda: raw.sha256_pass(rig.body.path))]


def sha256_cold(rig: Rig) -> list[Row]:
    def run() -> Sample:
        raw.forget(rig.body.path)
        return raw.sha256_pass(rig.body.path)

    return [_limit(rig, "limit-sha256-cold", "limit: one SHA-256 pass, from the disk", run)]


def direct(rig: Rig) -> list[Row]:
    key, work = "limit-direct", "limit: 2 raw O_DIRECT writes, in parallel"
    targets = [rig.directory / f"direct-{index}" for index in range(2)]
    try:
        row = _limit(
            rig, key, work, lambda: raw.write_twice_directly(rig.scale.size_bytes, targets)
        )
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        row = alone(key, work, (), MIB_PER_S, note=NO_DIRECT)
    return [row]


def socket(rig: Rig) -> list[Row]:
    work = "limit: loopback socket copy"
    return [_limit(rig, "limit-socket", work, lambda: raw.socket_copy(rig.scale.size_bytes))]


def _limit(rig: Rig, key: str, work: str, run: Contender) -> Row:
    samples, _ = rig.pairs(run, None)
    return alone(key, work, [each.rate for each in samples], MIB_PER_S)
