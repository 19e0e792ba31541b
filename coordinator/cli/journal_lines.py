"""Entries of the journal as lines for people; all of an entry is what `journal show` is for."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from rich.text import Text

from agent.cli.formats import Column, fields, moment, plural, short, size, table
from agent.cli.resolving import WHOLE
from coordinator.journal_wire import EntryBody

_BEFORE: Final = (Column("INDEX", right=True), Column("TIME"), Column("EVENT"), Column("SLED"))
_ARTIFACT: Final = Column("ARTIFACT")
_WHAT: Final = Column("WHAT", prose=True)
_HASH: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
# Of no use to people in a list: numbers of one sled's own, and what another field says as well.
_NOISE: Final = frozenset({"copy_id", "sources", "state"})


def content_of(entry: EntryBody) -> Mapping[str, Any]:
    """What an entry says; nothing, when somebody has changed it into what cannot be read."""
    try:
        content = json.loads(entry.content)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def listed(
    entries: Sequence[EntryBody], *, width: int | None, long: bool, about: str | None = None
) -> list[Text]:
    """A table; none without entries.

    Args:
        entries: in their order.
        width: of the terminal.
        long: whether hashes are whole.
        about: the artifact that all of them are about, which needs no column.
    """
    if not entries:
        return []
    each = about is None or len(about) < WHOLE
    columns = (*_BEFORE, _ARTIFACT, _WHAT) if each else (*_BEFORE, _WHAT)
    rows = [_row(entry, each=each, long=long) for entry in entries]
    return table(columns, rows, width=width)


def _row(entry: EntryBody, *, each: bool, long: bool) -> tuple[str | Text, ...]:
    content = content_of(entry)
    artifacts = [str(each) for each in content.get("artifacts", ())]
    before = (
        str(entry.index),
        moment(entry.time),
        Text(entry.kind, style="bold"),
        str(content.get("sled", "-")),
    )
    what = fields(dict(_said(content, artifacts, long=long)))
    return (*before, *([_artifacts(artifacts, long=long)] if each else []), what)


def _artifacts(artifacts: Sequence[str], *, long: bool) -> str:
    match artifacts:
        case []:
            return "-"
        case [one]:
            return one if long else short(one)
        case _:
            return plural(len(artifacts), "artifact")


def _said(
    content: Mapping[str, Any], artifacts: Sequence[str], *, long: bool
) -> Iterator[tuple[str, object]]:
    yield "release", content.get("release")
    said = content.get("data", {})
    for name, value in said.items() if isinstance(said, dict) else ():
        match name, value:
            case "sha256", _ if artifacts == [value]:
                continue
            case "size_bytes", int():
                yield "size", size(value).replace(" ", "")
            case ("sources", _) if "served_by" not in said and "error" not in said:
                yield name, value
            case _ if name in _NOISE:
                continue
            case _, str() if not long and _HASH.fullmatch(value):
                yield name, short(value)
            case _:
                yield name, value
