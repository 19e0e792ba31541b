"""Words for people: sizes, ages, counts, hashes and tables as text. Pure.

Rules kept here:

- Nothing that came from a file, a server or a peer reaches a terminal unescaped: `printable` is
  applied to every cell and every line.
- A hash is shown whole, or as its first `SHORT` characters and an ellipsis; no layout breaks one.
- A table cuts no cell. On a terminal its last column gives way: prose wraps under itself, and a
  name loses its middle.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from rich.cells import cell_len
from rich.text import Text

from agent.cli.printable import printable
from agent.sizes import size as size  # one of the words for people, as the others here

SHORT: Final = 12
GAP: Final = "  "
INDENT: Final = "    "
PROSE_MIN_WIDTH: Final = 24
_NUMBERED: Final = re.compile(r"\bdataset ([1-9][0-9]{0,3})\b", re.ASCII)
_PLURALS: Final = {"copy": "copies", "entry": "entries", "hash": "hashes"}
_SPANS: Final = ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))


def plural(count: int, noun: str) -> str:
    """1 file, 2 files, 0 copies, 3 hashes."""
    return f"{count} {noun if count == 1 else _PLURALS.get(noun, f'{noun}s')}"


def span(seconds: float) -> str:
    """A length of time by its largest unit: 3 minutes, 1 day, 0 seconds."""
    for unit_s, name in _SPANS:
        if seconds >= unit_s:
            return plural(int(seconds // unit_s), name)
    return "0 seconds"


def moment(time: datetime) -> str:
    """A time of day on this machine, in the one form of all listings: 2026-11-21 02:40:11."""
    return time.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def with_paths(message: str, paths: Sequence[str]) -> str:
    """Replace `dataset 2` by the second path; what is no number of a dataset stays.

    What the sled says of its datasets names none of its paths, and nobody else knows the numbers.
    """

    def path_of(match: re.Match[str]) -> str:
        number = int(match[1])
        return paths[number - 1] if number <= len(paths) else match[0]

    return _NUMBERED.sub(path_of, message)


def age(seconds: float) -> str:
    """How long ago something was; the future, by clocks that differ, is just now."""
    return "just now" if seconds < 2 else f"{span(seconds)} ago"


def short(sha256: str) -> str:
    """The first characters of a hash, for where the full one is a --long or --json away."""
    return f"{sha256[:SHORT]}…" if len(sha256) > SHORT else sha256


def middle(text: str, width: int) -> str:
    """Cut the middle out of `text`: the start and the end of a file name say most."""
    if len(text) <= width:
        return text
    kept = max(2, width - 1)
    return f"{text[: (kept + 1) // 2]}…{text[-(kept // 2) :]}"


def wrapped(text: Text, width: int | None) -> Text:
    """Wrap a line that is too long for the terminal, indented, no word broken."""
    if width is None or cell_len(text.plain) <= width:
        return text
    plain = "\n".join(
        textwrap.wrap(
            text.plain,
            width,
            subsequent_indent=INDENT,
            break_long_words=False,
            break_on_hyphens=False,
        )
    )
    return Text(plain, spans=[span for span in text.spans if span.end <= plain.find("\n")])


def fields(values: Mapping[str, object]) -> str:
    """`key=value` pairs, for what has no words of its own."""
    return " ".join(f"{key}={_field(value)}" for key, value in values.items() if value is not None)


def _field(value: object) -> str:
    text = ",".join(str(each) for each in value) if isinstance(value, list) else str(value)
    return repr(text) if " " in text or not text else text


@dataclass(frozen=True, slots=True)
class Column:
    """A column's heading and habits: numbers to the right, prose wrapped, long names cut."""

    heading: str
    right: bool = False
    prose: bool = False
    name: bool = False


def table(
    columns: Sequence[Column], rows: Sequence[Sequence[str | Text]], *, width: int | None = None
) -> list[Text]:
    """Lay out rows under headings, aligned, without trailing blanks.

    Args:
        columns: one per cell of a row; only the last may be prose or a name.
        rows: cells; a `Text` keeps its style.
        width: of the terminal; None (a file, a pipe) never wraps.
    """
    head = [Text(column.heading, style="bold") for column in columns]
    body = [[_cell(cell) for cell in row] for row in rows]
    widths = [
        max(cell_len(row[index].plain) for row in (head, *body)) for index in range(len(columns))
    ]
    return [
        line for row in (head, *body) for line in _lines(row, columns, widths, _room(widths, width))
    ]


def _cell(value: str | Text) -> Text:
    if isinstance(value, Text):
        return Text(printable(value.plain), style=value.style)
    return Text(printable(value))


def _room(widths: Sequence[int], width: int | None) -> int | None:
    """What is left for the last column, never less than makes prose readable."""
    if width is None:
        return None
    return max(PROSE_MIN_WIDTH, width - sum(widths[:-1]) - len(GAP) * (len(widths) - 1))


def _lines(
    row: Sequence[Text], columns: Sequence[Column], widths: Sequence[int], room: int | None
) -> list[Text]:
    parts = [Text(part, style=row[-1].style) for part in _parts(row[-1].plain, columns[-1], room)]
    first = _joined([*row[:-1], parts[0]], columns, widths)
    indent = " " * (sum(widths[:-1]) + len(GAP) * (len(widths) - 1))
    return [first, *(Text.assemble(indent, part) for part in parts[1:])]


def _parts(text: str, column: Column, room: int | None) -> list[str]:
    """The last cell as the lines it takes."""
    if room is None or cell_len(text) <= room:
        return [text]
    if column.name:
        return [middle(text, room)]
    return _wrapped(text, room) if column.prose else [text]


def _wrapped(text: str, room: int) -> list[str]:
    # A hash or a path inside the prose stays whole, so that it can be copied.
    return textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False)


def _joined(cells: Sequence[Text], columns: Sequence[Column], widths: Sequence[int]) -> Text:
    line = Text()
    for index, (cell, column, wide) in enumerate(zip(cells, columns, widths, strict=True)):
        blank = " " * (wide - cell_len(cell.plain))
        if index:
            line.append(GAP)
        line.append_text(Text.assemble(blank, cell) if column.right else Text.assemble(cell, blank))
    line.rstrip()
    return line
