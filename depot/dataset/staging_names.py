"""The names in a dataset's staging directory, relative to the dataset.

`<32 hex>-<number>`      a file that is not yet under its name; no other writer has its name
`leaving-<64 hex>`       an artifact that is about to go: it may yet get its name back

What is staged is gone at the next attach; what was leaving is brought back then.
"""

from __future__ import annotations

import itertools
import re
import secrets
from typing import Final

from depot.artifact import ArtifactHash
from depot.dataset.small_files import STAGING

# Of staged files: this process's, which begin as no other's do, and a number.
_OURS: Final = f"{secrets.token_hex(16)}-"
_NUMBERS: Final = itertools.count()
_LEAVING: Final = "leaving-"
_LEAVING_NAME: Final = re.compile(r"leaving-[0-9a-f]{64}", re.ASCII)


def new_staged_name() -> str:
    """Make a name for a file to be staged, which no other has."""
    return f"{STAGING}/{_OURS}{next(_NUMBERS):x}"


def leaving_name(artifact: ArtifactHash) -> str:
    """The name of an artifact's file once it is set aside."""
    return f"{STAGING}/{_LEAVING}{artifact}"


def is_leaving(name: str) -> bool:
    """Tell whether a file of the staging directory is an artifact that was set aside."""
    return _LEAVING_NAME.fullmatch(name) is not None


def leaving_artifact(name: str) -> ArtifactHash:
    """The artifact that a file of such a name is."""
    return ArtifactHash.parse(name.removeprefix(_LEAVING))
