"""What a failing staging disk means for an upload."""

from __future__ import annotations

from depot.errors import DepotError, Io, QuotaExceeded
from depot.os_errors import describe_error, full_disk


def no_room(error: OSError) -> DepotError:
    """The refusal for an error of the disk that takes uploads; it names no path."""
    if full_disk(error):
        return QuotaExceeded("the disk of the staging directory has no room for the upload")
    return Io(f"the staging directory cannot be used: {describe_error(error)}")
