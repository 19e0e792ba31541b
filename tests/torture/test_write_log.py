"""What a disk may hold when its power goes."""

from __future__ import annotations

import random

from tests.torture.write_log import SECTOR_BYTES, Kind, Record, decode_all, encode, survivors

PENDING = [Record(Kind.WRITE, 0, 4096 * n, bytes([n]) * 4096) for n in range(8)]


def drawn() -> list[list[Record]]:
    return [survivors(PENDING, random.Random(seed)) for seed in range(300)]


def test_a_record_is_read_back_as_it_was_written() -> None:
    records = [*PENDING, Record(Kind.FLUSH, 2), Record(Kind.MARK, content=b"{}")]

    assert list(decode_all(b"".join(map(encode, records)))) == records


def test_all_none_or_some_of_what_was_not_flushed_survives() -> None:
    whole = [[write.offset_bytes for write in kept if write in PENDING] for kept in drawn()]

    assert [] in whole
    assert [write.offset_bytes for write in PENDING] in whole
    assert any(0 < len(offsets) < len(PENDING) for offsets in whole)
    assert all(offsets == sorted(offsets) for offsets in whole)


def test_a_torn_write_leaves_whole_sectors_in_their_places() -> None:
    pieces = [write for kept in drawn() for write in kept if write not in PENDING]

    assert pieces
    for piece in pieces:
        assert len(piece.content) == SECTOR_BYTES
        source = PENDING[piece.offset_bytes // 4096]
        assert set(piece.content) == set(source.content)


def test_what_a_filesystem_counts_on_being_written_whole_is_not_torn() -> None:
    whole = (range(4096, 8192),)
    pending = [Record(Kind.WRITE, 0, 0, b"".join(bytes([n]) * SECTOR_BYTES for n in range(24)))]
    drawn = [survivors(pending, random.Random(seed), whole=whole) for seed in range(300)]
    pieces = [write for kept in drawn for write in kept if write not in pending]

    sizes = {piece.offset_bytes: len(piece.content) for piece in pieces}
    sectors = [*range(0, 4096, SECTOR_BYTES), *range(8192, 3 * 4096, SECTOR_BYTES)]
    assert sizes == {4096: 4096} | dict.fromkeys(sectors, SECTOR_BYTES)
    for piece in pieces:
        end = piece.offset_bytes + len(piece.content)
        assert piece.content == pending[0].content[piece.offset_bytes : end]
