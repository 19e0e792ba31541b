"""Zips that are read in one way only, and those that are not read at all."""

from __future__ import annotations

import io
import struct
import zipfile
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.errors import BadRelease
from coordinator.releases.zip_layout import DEFAULT_ZIP_LIMITS, Member, ZipLimits, read_layout
from tests.coordinator.releases.zips import (
    FULL_16,
    FULL_32,
    Raw,
    deflate,
    described,
    raw_zip,
    zip64,
)


def layout(content: bytes, limits: ZipLimits = DEFAULT_ZIP_LIMITS) -> tuple[Member, ...]:
    return read_layout(lambda at, size: content[at : at + size], len(content), limits)


def names(content: bytes) -> list[str]:
    return [member.name for member in layout(content)]


def refused(content: bytes, why: str, limits: ZipLimits = DEFAULT_ZIP_LIMITS) -> None:
    with pytest.raises(BadRelease, match=rf"^the zip is refused: .*{why}"):
        layout(content, limits)


ONE, TWO = Raw("one", b"1" * 10), Raw("dir/two", b"2" * 1000, deflated=True)


def test_members_are_where_their_bytes_are() -> None:
    content = raw_zip([ONE, TWO])
    one, two = layout(content)
    assert content[one.offset_bytes :][: one.packed_bytes] == ONE.content
    assert content[two.offset_bytes :][: two.packed_bytes] == deflate(TWO.content)
    assert (one.deflated, two.deflated, two.size_bytes) == (False, True, 1000)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("zip64_always", [False, True])
def test_what_the_standard_library_writes_is_read(method: int, zip64_always: bool) -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", method) as archive:
        archive.mkdir("repo")
        for name in ("repo/a", "repo/ü"):
            with archive.open(name, "w", force_zip64=zip64_always) as member:
                member.write(b"content" * 100)
    assert names(content.getvalue()) == ["repo/a", "repo/ü"]


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_what_it_writes_to_a_stream_is_read(method: int) -> None:
    class Stream(io.RawIOBase):
        content = b""

        def writable(self) -> bool:
            return True

        def write(self, block: Any) -> int:
            self.content += bytes(block)
            return len(block)

    stream = Stream()
    with zipfile.ZipFile(stream, "w", method) as archive:
        archive.writestr("a", b"content" * 100)
        archive.writestr("empty", b"")
    assert names(stream.content) == ["a", "empty"]


@pytest.mark.parametrize("signature", [False, True])
@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("member", [ONE, TWO, Raw("empty")])
def test_a_member_may_be_described_after_its_bytes(
    signature: bool, large: bool, member: Raw
) -> None:
    later = described(member, signature=signature, large=large)
    assert names(raw_zip([later, ONE if member is TWO else TWO])) == [
        member.name,
        "one" if member is TWO else "dir/two",
    ]


def test_a_member_that_is_described_later_may_say_before_what_was_known_then() -> None:
    later = described(TWO)
    later.local = {**later.local, "size": len(TWO.content)}
    assert names(raw_zip([later, ONE])) == ["dir/two", "one"]
    for known in ({"size": 1}, {"packed": 1}, {"crc": 1}):
        later.local = {**described(TWO).local, **known}
        refused(raw_zip([later, ONE]), "'dir/two': the header before it says something else")


def test_directories_are_no_members() -> None:
    folder = Raw("dir/", central={"mode": 0o040755})
    assert names(raw_zip([folder, TWO])) == ["dir/two"]


def test_sizes_may_be_in_zip64_fields() -> None:
    size = len(ONE.content)
    local = {"packed": FULL_32, "size": FULL_32, "extra": zip64(size, size)}
    other = struct.pack("<2H3s", 0x7777, 3, b"abc")
    central = {"offset": FULL_32, **local, "extra": other + zip64(size, size, 0)}
    content = raw_zip([Raw("one", ONE.content, central=central, local=local), TWO], large=True)
    assert names(content) == ["one", "dir/two"]


@pytest.mark.parametrize("content", [b"", b"PK", b"x" * 21, b"x" * 22, b"{}" * 1000])
def test_what_is_no_zip_is_said_to_be_none(content: bytes) -> None:
    refused(content, "it is not a zip file")


@pytest.mark.parametrize("cut", [1, 21, 22, 40])
def test_a_zip_that_was_cut_short_is_refused(cut: int) -> None:
    refused(raw_zip([ONE, TWO])[:-cut], "expected its end record in the last 22 bytes")


@pytest.mark.parametrize("after", [b"\0", b"garbage", b"\0" * 70_000, raw_zip([])[:-1]])
def test_nothing_follows_the_end_record(after: bytes) -> None:
    refused(raw_zip([ONE], after=after), "it was cut short, or something .* follows it")


def test_a_comment_is_something_that_follows() -> None:
    refused(raw_zip([ONE], end={"comment": b"hello"}), r"\(a comment, too\) follows it")


def test_a_comment_that_is_only_announced_is_none() -> None:
    refused(raw_zip([ONE])[:-2] + b"\1\0", "expected its end record in the last 22 bytes")


def test_a_second_archive_does_not_hide_behind_or_before_the_first() -> None:
    refused(raw_zip([ONE]) + raw_zip([TWO]), "directory is said to be")
    inner = raw_zip([ONE])
    refused(raw_zip([TWO], end={"comment": inner}), "directory is said to be")


def test_nothing_stands_before_the_first_member() -> None:
    refused(raw_zip([ONE], before=b"#!/bin/sh\n"), "10 bytes stand before its first member")


def test_nothing_stands_between_members_and_directory() -> None:
    refused(raw_zip([ONE], between=b"hidden"), "6 bytes after 'one' belong to no member")
    odd = Raw("one", b"1", after=b"gap")
    refused(raw_zip([odd, TWO]), "3 bytes after 'one' belong to no member")


def test_what_describes_a_member_later_has_to_say_the_same() -> None:
    later = described(ONE)
    later.after = later.after[:-1] + b"\7"
    refused(raw_zip([later, TWO]), "16 bytes after 'one' belong to no member")
    bare = Raw("one", ONE.content, after=described(ONE).after)
    refused(raw_zip([bare, TWO]), "16 bytes after 'one' belong to no member")


def test_members_do_not_overlap() -> None:
    inner = raw_zip([Raw("kernel", b"x" * 100)])[: 30 + 6 + 100]
    outer = Raw("outer", inner)
    at = 30 + len("outer")
    twice = Raw("kernel", b"x" * 100, central={"offset": at})
    content = raw_zip([outer])
    entries = outer.entry(0) + twice.entry(at)
    begin = 30 + len("outer") + len(inner)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 2, 2, len(entries), begin, 0)
    refused(content[:begin] + entries + end, f"'outer' overlaps what follows it at byte {at}")


def test_two_names_do_not_share_one_members_bytes() -> None:
    shared = Raw("second", central={"offset": 0})
    refused(raw_zip([ONE, shared]), "overlaps what follows it|says something else")


def test_no_name_is_there_twice() -> None:
    refused(raw_zip([ONE, Raw("one", b"other")]), "it has 'one' twice")


@pytest.mark.parametrize(
    "name",
    [
        "../evil",
        "a/../../evil",
        "/etc/passwd",
        "a//b",
        "./a",
        "a/.",
        "..",
        "",
        "/",
        "C:\\evil",
        "a\\..\\b",
        "nul\0byte",
        "new\nline",
        "x" * 1025,
    ],
)
def test_s4_names_are_plain_relative_paths(name: str) -> None:
    refused(raw_zip([Raw(name, b"")]), "is not a plain relative path")


def test_names_are_utf_8() -> None:
    odd = {"name": b"\xff\xfe"}
    refused(raw_zip([Raw("x", central=odd, local=odd)]), "the name .* is not UTF-8")


@pytest.mark.parametrize(
    ("mode", "why"),
    [
        (0o120777, "is a symbolic link"),
        (0o010644, "is neither a file nor a directory: mode 10644"),
        (0o060644, "is neither a file nor a directory"),
        (0o040755, "is neither a file nor a directory"),
    ],
)
def test_members_are_files(mode: int, why: str) -> None:
    refused(raw_zip([Raw("one", b"/etc/passwd", central={"mode": mode})]), f"'one' {why}")


def test_a_directory_has_no_bytes() -> None:
    folder = Raw("dir/", b"bytes", central={"mode": 0o040755})
    refused(raw_zip([folder]), "'dir/' is a directory of 5 bytes")


@pytest.mark.parametrize(
    ("flags", "why"),
    [(0x1, "is encrypted"), (0x41, "is encrypted"), (0x20, "flags"), (0x2000, "flags")],
)
def test_members_are_neither_encrypted_nor_patched(flags: int, why: str) -> None:
    say = {"flags": flags}
    refused(raw_zip([Raw("one", b"1", central=say, local=say)]), f"'one' .*{why}")


@pytest.mark.parametrize("method", [1, 9, 12, 14, 93, 99])
def test_members_are_stored_or_deflated(method: int) -> None:
    say = {"method": method}
    refused(raw_zip([Raw("one", b"1", central=say, local=say)]), f"'one'.* found method {method}")


@pytest.mark.parametrize(
    "say",
    [
        {"crc": 1},
        {"packed": 9},
        {"size": 9},
        {"flags": 2},
        {"method": 8},
        {"name": b"two"},
        {"name": b"once"},
        {"packed": 0, "size": 0, "crc": 0},
        {"packed": FULL_32, "size": FULL_32, "extra": zip64(10, 11)},
    ],
)
def test_the_header_before_a_member_says_what_the_directory_says(say: dict[str, Any]) -> None:
    lying = Raw("one", ONE.content, local=say)
    refused(raw_zip([lying, TWO]), "'one'.*(says something else|overlaps|belong to no member)")


@pytest.mark.parametrize(
    ("say", "why"),
    [
        ({"size": 11}, "'one' is stored and said to be both 10 and 11 bytes long"),
        ({"packed": 11}, "'one' is stored and said to be both 11 and 10"),
        ({"packed": 11, "size": 11}, "'one' overlaps what follows it"),
        ({"packed": 1 << 31, "size": 1 << 31}, "would unpack to|'one' overlaps what follows it"),
        ({"offset": 1}, "1 bytes stand before its first member"),
        ({"offset": FULL_32 - 1}, "stand before its first member"),
        ({"size": FULL_32}, "'one' refers to zip64 sizes and has none"),
        ({"size": FULL_32, "extra": zip64()}, "'one' refers to zip64 sizes and has none"),
        ({"size": FULL_32, "extra": zip64(1 << 63)}, "is stored and said to be both"),
        ({"disk": 1}, "it is one of several volumes"),
        ({"signature": b"PK\1\3"}, "entry 0 of its directory is not where it is expected"),
    ],
)
def test_a_directory_that_lies_is_refused(say: dict[str, Any], why: str) -> None:
    refused(raw_zip([Raw("one", ONE.content, central=say)]), why)


@pytest.mark.parametrize(
    ("end", "why"),
    [
        ({"count": 1, "total": 2}, "it is one of several volumes"),
        ({"disk": 1}, "it is one of several volumes"),
        ({"count": 1}, "bytes of its directory belong to none of 1 members"),
        ({"count": 3}, "entry 2 of its directory is not where it is expected"),
        ({"size": 1}, "its directory is said to be 1 bytes at"),
        ({"offset": 0}, "its directory is said to be .* bytes at 0, expected it to end at"),
        ({"count": FULL_16}, "it refers to a zip64 end record and has none"),
        ({"offset": FULL_32}, "it refers to a zip64 end record and has none"),
    ],
)
def test_an_end_record_that_lies_is_refused(end: dict[str, Any], why: str) -> None:
    refused(raw_zip([ONE, TWO], end=end), why)


@pytest.mark.parametrize(
    ("end_64", "why"),
    [
        ({"count": 3}, "entry 2 of its directory"),
        ({"count": 1 << 63}, "members, listed in"),
        ({"size": 1}, "its directory is said to be 1 bytes"),
        ({"offset": 1 << 63}, "its directory is said to be"),
        ({"disk": 7}, "its end records disagree: 0 and 7"),
        ({"locator": 0}, "expected its zip64 end record at .* found it said to be at 0"),
        ({"record": 45}, "expected its zip64 end record at"),
    ],
)
def test_a_zip64_end_record_that_lies_is_refused(end_64: dict[str, Any], why: str) -> None:
    refused(raw_zip([ONE, TWO], large=True, end_64=end_64), why)


def test_end_records_that_disagree_are_refused() -> None:
    refused(raw_zip([ONE, TWO], large=True, end={"count": 1}), "its end records disagree: 1 and 2")


def test_a_directory_that_ends_within_an_entry_is_refused() -> None:
    whole = raw_zip([ONE])
    begin = whole.index(b"PK\1\2")
    for size in (4, 20, 45, 48):
        end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, size, begin, 0)
        refused(whole[: begin + size] + end, "entry 0 of its directory (is not where|runs past)")


def test_s1_a_bomb_is_refused_by_what_it_says_before_anything_is_unpacked() -> None:
    bomb = Raw("bomb", packed=b"\0" * 10_000, deflated=True, central={"size": 10_000_000})
    limits = ZipLimits(growth=100, free_bytes=0)
    refused(raw_zip([bomb]), "says something else")  # within what any zip may unpack to
    refused(raw_zip([bomb]), r"10\d\d\d bytes would unpack to 10000000, at most", limits)


def test_s1_more_than_deflate_can_pack_is_a_lie() -> None:
    bomb = Raw("bomb", packed=b"\0" * 100, deflated=True, central={"size": 103_201})
    refused(raw_zip([bomb]), "'bomb': 100 bytes cannot unpack to 103201")


def test_s1_members_have_a_bound_in_number_and_in_the_room_their_names_take() -> None:
    content = raw_zip([ONE, TWO])
    refused(content, "2 members, listed in .* at most 1 in", ZipLimits(members=1))
    refused(content, "2 members, listed in .* in 99 are read", ZipLimits(directory_bytes=99))
    refused(content, "would unpack to 1010, at most 1000", ZipLimits(total_bytes=1000))


@given(st.data())
def test_a_damaged_zip_is_read_the_same_or_refused(data: st.DataObject) -> None:
    content = bytearray(raw_zip([ONE, described(TWO), Raw("three", b"3" * 50)], large=True))
    before = layout(bytes(content))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] = data.draw(st.integers(0, 255))
    try:
        found = layout(bytes(content))
    except BadRelease:
        return
    assert [(each.offset_bytes, each.packed_bytes) for each in found] == [
        (each.offset_bytes, each.packed_bytes) for each in before
    ]


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_whatever_stands_for_a_zip_is_refused_in_one_way(one: bytes, two: bytes) -> None:
    valid = raw_zip([ONE])
    for content in (one, one + valid, valid[: len(one)] + two, valid + two, one + valid[-22:]):
        if content != valid:
            refused(content, "")
