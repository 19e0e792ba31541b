"""How a coordinator's errors show on the wire and in the log: the common table, and ours."""

from __future__ import annotations

import logging
from types import MappingProxyType
from typing import Final

from coordinator import errors
from depot.http.problems import PROBLEMS as COMMON
from depot.http.problems import Problems, Row

PROBLEMS: Final[Problems] = MappingProxyType(
    {
        **COMMON,
        errors.BadRelease: Row(400, logging.WARNING),
        errors.Untrusted: Row(400, logging.WARNING),
        errors.Expired: Row(400, logging.WARNING),
        errors.TargetMismatch: Row(400, logging.WARNING),
        errors.ReleaseConflict: Row(409, logging.WARNING),
        errors.ReleaseNotFound: Row(404, logging.INFO),
        errors.TargetRelease: Row(409, logging.INFO),
        errors.ReleaseUnusable: Row(409, logging.INFO),
        errors.TrustRootNotFound: Row(404, logging.INFO),
        errors.SledNotFound: Row(404, logging.INFO),
        errors.SledExpunged: Row(409, logging.INFO),
        errors.SledInService: Row(409, logging.INFO),
        errors.SledAddressTaken: Row(409, logging.WARNING),
        errors.TooMany: Row(409, logging.WARNING),
        errors.CoordinatorNotFound: Row(404, logging.INFO),
        errors.CoordinatorActive: Row(409, logging.INFO),
        errors.DatabaseUnavailable: Row(503, logging.ERROR),
        errors.Quiescing: Row(503, logging.INFO),
        errors.TooManyUploads: Row(429, logging.INFO),
        errors.UploadRunning: Row(409, logging.INFO),
        errors.EntryNotFound: Row(404, logging.INFO),
        errors.NoShard: Row(503, logging.ERROR),
        errors.ShardInUse: Row(409, logging.INFO),
        errors.ShardDropped: Row(410, logging.INFO),
        errors.JournalKeyMissing: Row(503, logging.WARNING),
        errors.SnapshotRunning: Row(409, logging.INFO),
        errors.RestoreFailed: Row(503, logging.WARNING),
        errors.DatabaseInUse: Row(409, logging.INFO),
        errors.SnapshotBehind: Row(409, logging.WARNING),
        errors.SnapshotNotFound: Row(404, logging.INFO),
        errors.SnapshotConflict: Row(409, logging.INFO),
        errors.SnapshotFailed: Row(503, logging.WARNING),
    }
)
