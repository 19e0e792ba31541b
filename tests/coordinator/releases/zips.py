"""Zips written by hand, byte for byte, so that they can lie."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

FULL_16 = 0xFFFF
FULL_32 = 0xFFFF_FFFF


@dataclass
class Raw:
    """A member: true until told otherwise.

    `central` and `local` change single fields of the directory's entry and of the header: `flags`,
    `method`, `crc`, `packed`, `size`, `offset`, `name`, `extra`, `comment`, `mode`, `disk`.
    """

    name: str
    content: bytes = b""
    deflated: bool = False
    packed: bytes | None = None
    central: Mapping[str, Any] = field(default_factory=dict)
    local: Mapping[str, Any] = field(default_factory=dict)
    after: bytes = b""

    def fields(self, offset: int) -> dict[str, Any]:
        return {
            "flags": 0,
            "method": 8 if self.deflated else 0,
            "crc": zlib.crc32(self.content),
            "packed": len(self.body),
            "size": len(self.content),
            "name": self.name.encode(),
            "extra": b"",
            "comment": b"",
            "mode": 0o100644,
            "disk": 0,
            "offset": offset,
        }

    @property
    def body(self) -> bytes:
        if self.packed is not None:
            return self.packed
        return deflate(self.content) if self.deflated else self.content

    def header(self, offset: int) -> bytes:
        say = {**self.fields(offset), **self.local}
        return (
            struct.pack(
                "<4s5H3L2H",
                say.get("signature", b"PK\3\4"),
                *(20, say["flags"], say["method"], 0, 33),
                *(say["crc"], say["packed"], say["size"]),
                *(len(say["name"]), len(say["extra"])),
            )
            + bytes(say["name"])
            + bytes(say["extra"])
        )

    def entry(self, offset: int) -> bytes:
        say = {**self.fields(offset), **self.central}
        return (
            struct.pack(
                "<4s6H3L5H2L",
                say.get("signature", b"PK\1\2"),
                *(3 << 8 | 20, 20, say["flags"], say["method"], 0, 33),
                *(say["crc"], say["packed"], say["size"]),
                *(len(say["name"]), len(say["extra"]), len(say["comment"]), say["disk"], 0),
                *(say["mode"] << 16, say["offset"]),
            )
            + bytes(say["name"])
            + bytes(say["extra"])
            + bytes(say["comment"])
        )


def deflate(content: bytes) -> bytes:
    packing = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packing.compress(content) + packing.flush()


def zip64(*values: int) -> bytes:
    """The extra field with sizes of eight bytes."""
    return struct.pack(f"<2H{len(values)}Q", 1, 8 * len(values), *values)


def described(member: Raw, *, signature: bool = True, large: bool = False) -> Raw:
    """The same member as one writes it who learns of its size only afterwards."""
    size = "Q" if large else "L"
    values = zlib.crc32(member.content), len(member.body), len(member.content)
    after = (b"PK\7\10" if signature else b"") + struct.pack(f"<L2{size}", *values)
    unknown = {"flags": 8, "crc": 0, "packed": 0, "size": 0}
    return Raw(
        member.name, member.content, member.deflated, None, {"flags": 8}, unknown, after=after
    )


def raw_zip(
    members: Sequence[Raw],
    *,
    before: bytes = b"",
    between: bytes = b"",
    after: bytes = b"",
    large: bool = False,
    end: Mapping[str, Any] | None = None,
    end_64: Mapping[str, Any] | None = None,
) -> bytes:
    """A zip of these members.

    Args:
        members: in their order.
        before: the first member.
        between: the last member and the directory.
        after: the end record.
        large: whether it has a zip64 end record.
        end: changes fields of the end record: `disk`, `count`, `size`, `offset`, `comment`.
        end_64: changes those of the zip64 one; and `locator`, where that is said to be.
    """
    content, entries = bytearray(before), b""
    for member in members:
        entries += member.entry(len(content))
        content += member.header(len(content)) + member.body + member.after
    content += between
    say = {"disk": 0, "count": len(members), "size": len(entries), "offset": len(content)}
    content += entries
    if large:
        said = {**say, **(end_64 or {})}
        locator = struct.pack("<4sLQL", b"PK\6\7", 0, said.get("locator", len(content)), 1)
        content += struct.pack(
            "<4sQ2H2L4Q",
            *(b"PK\6\6", said.get("record", 44), 45, 45, said["disk"], said["disk"]),
            *(said["count"], said["count"], said["size"], said["offset"]),
        )
        content += locator
        say = {"disk": 0, "count": FULL_16, "size": FULL_32, "offset": FULL_32}
    said = {**say, "comment": b"", **(end or {})}
    content += struct.pack(
        "<4s4H2LH",
        *(b"PK\5\6", said["disk"], said["disk"], said["count"], said.get("total", said["count"])),
        *(said["size"], said["offset"], len(said["comment"])),
    )
    return bytes(content) + bytes(said["comment"]) + after
