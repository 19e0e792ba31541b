"""The small JSON documents kept on datasets: versioned, checksummed, readable by people.

A document is one JSON object. `format` is its version, `checksum` the SHA-256 over the canonical
form of everything else. A field of many artifacts is a tuple of hashes here and an array of
strings there. Pure: bytes in, values out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from depot import hash_lists
from depot.errors import FormatTooNew

_HASHES: Final = "\0hashes"
"""Stands where they go, and nowhere else: no field of ours has such a character."""


class Unreadable(ValueError):
    """The bytes are not an intact document; the message says why."""


def encode(fields: Mapping[str, object], *, version: int) -> bytes:
    """Serialise in the order given, with format and checksum added."""
    body = {**fields, "format": version}
    sealed = {**body, "checksum": _checksum(body)}
    return "".join((*_pieces(sealed, ",\n  ", indent=1), "\n")).encode()


def decode(content: bytes, *, name: str, newest: int) -> dict[str, object]:
    """Parse and check a document of version 1 .. `newest`; the fields without the checksum.

    Raises:
        Unreadable: torn, empty, not JSON, not an object, or the checksum does not match.
        FormatTooNew: written by a newer program; naming what was expected and found.
    """
    return checked(parse_object(content, name=name), name=name, newest=newest)


def checked(parsed: Mapping[str, object], *, name: str, newest: int) -> dict[str, object]:
    """Check a document that was parsed already; as `decode`."""
    fields = dict(parsed)
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
    """Parse any JSON object; one whose only array is a plain one of hashes has a tuple of them.

    Raises:
        Unreadable: it is none.
    """
    if not content:
        raise Unreadable(f"{name} is empty")
    divided = hash_lists.cut(content)
    try:
        fields = json.loads(content if divided is None else divided.rest)
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"{name} is not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise Unreadable(f"{name}: expected a JSON object, found {type(fields).__name__}")
    if divided is None:
        return fields
    place = [name for name, value in fields.items() if value == []]
    return {**fields, place[0]: tuple(divided.hashes)} if place else json.loads(content)


def _checksum(fields: Mapping[str, object]) -> str:
    canonical = hashlib.sha256()
    for piece in _pieces(fields, ",", sort_keys=True, separators=(",", ":")):
        canonical.update(piece.encode())
    return canonical.hexdigest()


def _pieces(fields: Mapping[str, object], gap: str, **form: Any) -> Iterator[str]:
    """Write JSON, hashes with `gap` between them, as the `form` has it."""
    hashes = {name: value for name, value in fields.items() if isinstance(value, tuple) and value}
    text = json.dumps({**fields, **{name: [_HASHES] for name in hashes}}, **form)
    for name in sorted(hashes) if form.get("sort_keys") else hashes:
        before, _, text = text.partition(json.dumps(_HASHES))
        yield before
        yield from hash_lists.texts(hashes[name], gap)
    yield text
