"""The small JSON documents kept on datasets: versioned, checksummed, readable by people.

A document is one JSON object. `format` is its version, `checksum` the SHA-256 over the canonical
form of everything else. Pure: bytes in, values out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from depot.errors import FormatTooNew


class Unreadable(ValueError):
    """The bytes are not an intact document; the message says why."""


def encode(fields: Mapping[str, object], *, version: int) -> bytes:
    """Serialise in the order given, with format and checksum added."""
    body = {**fields, "format": version}
    return json.dumps({**body, "checksum": _checksum(body)}, indent=1).encode() + b"\n"


def decode(content: bytes, *, name: str, newest: int) -> dict[str, object]:
    """Parse and check a document of version 1 .. `newest`; the fields without the checksum.

    Raises:
        Unreadable: torn, empty, not JSON, not an object, or the checksum does not match.
        FormatTooNew: written by a newer program; naming what was expected and found.
    """
    fields = parse_object(content, name=name)
    version = fields.get("format")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise Unreadable(f"{name}: expected a format version, found {version!r}")
    # Before the version is believed: an altered digit must not look like a newer program's work.
    # That may seal its documents in another way; then there is no checksum.
    sealed = "checksum" in fields
    intact = fields.pop("checksum", None) == _checksum(fields)
    if version > newest and (intact or not sealed):
        raise FormatTooNew(
            f"{name} has format {version}; this program knows formats up to {newest}: "
            "use a newer program, or restore the file it wrote last"
        )
    if not intact:
        raise Unreadable(f"{name}: the checksum does not match the contents")
    return fields


def parse_object(content: bytes, *, name: str) -> dict[str, object]:
    """Parse any JSON object.

    Raises:
        Unreadable: it is none.
    """
    if not content:
        raise Unreadable(f"{name} is empty")
    try:
        fields = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"{name} is not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise Unreadable(f"{name}: expected a JSON object, found {type(fields).__name__}")
    return fields


def _checksum(fields: Mapping[str, object]) -> str:
    canonical = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()
