"""How a store behaves."""

from __future__ import annotations

from dataclasses import dataclass

from depot.device.host import DeviceWorkers
from depot.reading.reader import VerifyReads

GIB = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreOptions:
    """How a store behaves; sizes in bytes, times in seconds.

    Attributes:
        quota_bytes: of each dataset.
        min_copies: durable copies without which a put is not a success.
        delete_grace_s: how long a config that drops more than half is not acted on (D4).
        device_timeout_s: a device call that takes longer makes its dataset suspect.
        mirror_lag_s: how long, in all, one write may wait for one dataset alone; one that is
            further behind is dropped from the write.
        group_commit: make short bodies durable together, as many at once as there are.
        watch_interval_s: how often each dataset is looked at.
        verify_reads: whether the depot checks bytes before they leave.
        scrub_interval_s: within which every copy is verified in the background.
        scrub_max_bytes_per_s: on each dataset, whatever that does to the interval.
        heal_max_bytes_per_s: of all healing, from here and from peers; 0: no limit.
        quarantine_bytes: what damaged copies that were set aside may take on each dataset.
        sled_id: expected in the markers; None: whatever they say.
        device_workers: what the calls on a dataset run in; with a process for each, one that hangs
            keeps nothing but its own dataset, even from SIGKILL.
        direct_io: large artifacts of known length are written past the page cache where the
            filesystem takes that.
        chained_digests: block digests are taken in the same pass as the hash, where libcrypto can.
        relay: what is being received can be read from `ArtifactStore.arrivals`.
        checksum_state: find rows that are changed in place; many times slower, see
            `depot.state.checked`.
    """

    quota_bytes: int = 20 * GIB
    max_artifact_size_bytes: int = 2 * GIB
    require_mountpoint: bool = False
    min_copies: int = 1
    max_concurrent_puts: int = 32
    max_concurrent_copies: int = 8
    delete_grace_s: float = 600.0
    reconcile_interval_s: float = 300.0
    device_timeout_s: float = 30.0
    mirror_lag_s: float = 5.0
    group_commit: bool = True
    watch_interval_s: float = 5.0
    verify_reads: VerifyReads = VerifyReads.AUTO
    scrub_interval_s: float = 86400.0
    scrub_max_bytes_per_s: int = 500 << 20
    heal_max_bytes_per_s: int = 0
    quarantine_bytes: int = 2 * GIB
    sled_id: str | None = None
    checksum_state: bool = False
    device_workers: DeviceWorkers = DeviceWorkers.THREAD
    direct_io: bool = True
    chained_digests: bool = True
    relay: bool = True
