from __future__ import annotations

import pytest
from rich.text import Text

from agent.cli.formats import (
    Column,
    age,
    fields,
    middle,
    plural,
    short,
    size,
    span,
    table,
)
from agent.cli.printable import printable

SHA256 = "9953b7c2db0600d931a7be2a293bb5f4db9937cf0c7f268802f2e78bfef76586"


@pytest.mark.parametrize(
    ("count_bytes", "words"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (13147, "12.8 KiB"),
        (1048575, "1.0 MiB"),
        (20 * 2**30, "20.0 GiB"),
        (3 * 2**40, "3.0 TiB"),
        (2**60, "1024.0 PiB"),
    ],
)
def test_a_size_has_the_unit_that_keeps_it_short(count_bytes: int, words: str) -> None:
    assert size(count_bytes) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "just now"),
        (1.9, "just now"),
        (59, "59 seconds ago"),
        (60, "1 minute ago"),
        (7300, "2 hours ago"),
        (86400 * 3, "3 days ago"),
    ],
)
def test_an_age_is_in_words(seconds: float, words: str) -> None:
    assert age(seconds) == words


def test_a_span_of_nothing_is_nothing() -> None:
    assert span(0.4) == "0 seconds"


def test_nouns_follow_their_count() -> None:
    assert [plural(1, "copy"), plural(0, "copy"), plural(2, "file"), plural(3, "hash")] == [
        "1 copy",
        "0 copies",
        "2 files",
        "3 hashes",
    ]


def test_a_short_hash_shows_that_it_is_short() -> None:
    assert short(SHA256) == "9953b7c2db06…"
    assert short("abc") == "abc"


def test_what_could_move_the_cursor_is_escaped() -> None:
    assert printable("a\x1b[31mb\nc\udcff") == r"a\x1b[31mb\nc\udcff"
    assert printable("Ünïcode 日本") == "Ünïcode 日本"


def test_the_middle_of_a_long_name_is_cut() -> None:
    assert middle("short", 10) == "short"
    assert middle("control_plane-1.0.0.tar.gz", 11) == "contr…ar.gz"
    assert len(middle("x" * 100, 22)) == 22


def test_fields_without_a_value_are_left_out_and_words_are_quoted() -> None:
    assert fields({"a": 1, "b": None, "c": "two words"}) == "a=1 c='two words'"


def test_a_table_is_aligned_without_trailing_blanks() -> None:
    columns = (Column("NAME"), Column("SIZE", right=True), Column("WHY", prose=True))
    lines = table(columns, [("a", "1 B", ""), ("longer", "10 KiB", "because")])
    assert [line.plain for line in lines] == [
        "NAME      SIZE  WHY",
        "a          1 B",
        "longer  10 KiB  because",
    ]


def test_wide_characters_count_as_the_columns_they_take() -> None:
    lines = table((Column("N"), Column("X")), [("日本", "1"), ("abcd", "2")])
    assert [line.plain for line in lines[1:]] == ["日本  1", "abcd  2"]


def test_prose_wraps_under_itself_and_only_on_a_terminal() -> None:
    columns = (Column("STATE"), Column("WHY", prose=True))
    row = ("failed", "the source answered with another length than it had announced before")
    wrapped = [line.plain for line in table(columns, [row], width=40)]
    assert wrapped[1:] == [
        "failed  the source answered with another",
        "        length than it had announced",
        "        before",
    ]
    assert len(table(columns, [row], width=None)) == 2


@pytest.mark.parametrize("width", [20, 40, 80, 120])
def test_no_width_breaks_a_hash(width: int) -> None:
    columns = (Column("SHA256"), Column("WHY", prose=True))
    lines = table(columns, [(SHA256, f"expected {SHA256}, found another")], width=width)
    text = "\n".join(line.plain for line in lines)
    assert text.count(SHA256) == 2


def test_a_cell_keeps_its_style_and_loses_its_control_characters() -> None:
    (_, row) = table((Column("STATE"),), [(Text("mis\x1bsing", style="red"),)])
    assert row.plain == r"mis\x1bsing"
    assert [span.style for span in row.spans] == ["red"]
