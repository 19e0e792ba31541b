"""An open artifact, as a value that owns a descriptor."""

from __future__ import annotations

import os

from depot.artifact import ArtifactHash
from depot.mirrors.open_artifact import OpenArtifact


def test_b4_an_error_that_closing_reports_is_not_one_of_what_was_read() -> None:
    fd = os.open(os.devnull, os.O_RDONLY)
    os.close(fd)  # so that closing it fails, as it may on a network filesystem or a FUSE mount
    opened = OpenArtifact(ArtifactHash.of(b""), 0, 0, fd)
    opened.close()
    assert opened.fd == -1
