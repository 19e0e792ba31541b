"""On which line of a TOML document each key stands.

`tomllib` alone decides what a document means; it forgets positions, so this module reads the same
text a second time as a syntax tree and answers one question: which line. A key this module cannot
find costs a line number in an error message, nothing else.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from typing import Final

import tree_sitter_toml
from tree_sitter import Language, Node, Parser

# A key's place in the parsed document: table names and array indices, outermost first.
Path = tuple[str | int, ...]

_LANGUAGE: Final = Language(tree_sitter_toml.language())
_KEYS: Final = frozenset({"bare_key", "dotted_key", "quoted_key"})


def key_lines(text: str) -> dict[Path, int]:
    """Map the place of every key, table header and array element of valid TOML to its line.

    Lines count from 1. Where several lines define one table, the first counts.
    """
    lines: dict[Path, int] = {}
    lengths: dict[Path, int] = {}
    for node in Parser(_LANGUAGE).parse(text.encode()).root_node.named_children:
        for place, line in _statement(node, lengths):
            lines.setdefault(place, line)
    return lines


def line_of(place: Path, lines: Mapping[Path, int]) -> int | None:
    """Find the line of `place`, or of the nearest table around it that has one."""
    while place:
        if place in lines:
            return lines[place]
        place = place[:-1]
    return None


def _statement(node: Node, lengths: dict[Path, int]) -> Iterator[tuple[Path, int]]:
    """List what one top-level node defines; `lengths` counts the `[[tables]]` seen so far."""
    if node.type == "pair":
        yield from _pair(node, ())
    if node.type not in {"table", "table_array_element"}:
        return
    place = _inside_arrays(_key(node.named_children[0]), lengths)
    yield place, _line(node)
    if node.type == "table_array_element":
        index = lengths.get(place, 0)
        lengths[place] = index + 1
        place = (*place, index)
        yield place, _line(node)
    for pair in node.named_children[1:]:
        yield from _pair(pair, place)


def _inside_arrays(key: Path, lengths: Mapping[Path, int]) -> Path:
    """Turn a header's key into a place: a header below `[[a]]` speaks of the last `a`."""
    place: Path = ()
    for position, part in enumerate(key, start=1):
        place = (*place, part)
        if position < len(key) and place in lengths:
            place = (*place, lengths[place] - 1)
    return place


def _pair(node: Node, table: Path) -> Iterator[tuple[Path, int]]:
    if node.type != "pair":
        return
    key, *rest = node.named_children
    parts = _key(key)
    for depth in range(1, len(parts) + 1):
        yield (*table, *parts[:depth]), _line(key)
    for value in rest:
        yield from _value(value, (*table, *parts))


def _value(node: Node, place: Path) -> Iterator[tuple[Path, int]]:
    if node.type == "inline_table":
        for pair in node.named_children:
            yield from _pair(pair, place)
    elif node.type == "array":
        elements = (child for child in node.named_children if child.type != "comment")
        for index, element in enumerate(elements):
            yield (*place, index), _line(element)
            yield from _value(element, (*place, index))


def _key(node: Node) -> Path:
    """Read a bare, quoted or dotted key.

    `tomllib` does the reading, as the one value of a document of its own: it knows every escape.
    """
    if node.type not in _KEYS or node.text is None:
        return ()
    parts: list[str] = []
    table: object = tomllib.loads(f"{node.text.decode()} = 0")
    while isinstance(table, dict):
        [(part, table)] = table.items()
        parts.append(part)
    return tuple(parts)


def _line(node: Node) -> int:
    return node.start_point.row + 1
