from __future__ import annotations

import asyncio
import random
import zlib
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager
from typing import NoReturn

import pytest
import zstandard

from depot.artifact import ArtifactHash
from depot.http.compressing import (
    MAX_LEVEL,
    MAX_PLACES,
    SAMPLE_BYTES,
    SAMPLES,
    Compressor,
    affordable_places,
    make_encoder,
    sample_bounds,
)
from depot.streams.blocks import BLOCK_SIZE_BYTES
from depot.streams.sources import MAX_ZSTD_WINDOW_BYTES

MIB = 1 << 20
TEXT = b"".join(b"%d bottles, %d glasses\n" % (n, n * n) for n in range(200_000))
NOISE = random.Random(6).randbytes(len(TEXT))


class Reads:
    """Reads a content, and notes where."""

    def __init__(self, content: bytes, *, fails_at: int | None = None) -> None:
        self.content = content
        self.fails_at = fails_at
        self.asked: list[tuple[int, int]] = []

    async def __call__(self, start: int, length_bytes: int) -> bytes:
        self.asked.append((start, length_bytes))
        if self.fails_at is not None and start + length_bytes > self.fails_at:
            raise LookupError("no copy has it")
        return self.content[start : start + length_bytes]


@pytest.fixture
async def compressor() -> AsyncIterator[Compressor]:
    compressor = Compressor()
    yield compressor
    compressor.close()


async def pays(compressor: Compressor, reads: Reads) -> bool:
    return await compressor.pays(ArtifactHash.of(reads.content), len(reads.content), reads)


def decode(stream: bytes) -> bytes:
    return zstandard.ZstdDecompressor(max_window_size=MAX_ZSTD_WINDOW_BYTES).decompress(stream)


# ---- the stream


@pytest.mark.parametrize("content", [TEXT, NOISE, b"", b"x", TEXT[:MIB], TEXT[: MIB + 1]])
async def test_the_stream_is_one_frame_of_the_content(
    compressor: Compressor, content: bytes
) -> None:
    stream = b"".join([part async for part in compressor.stream(len(content), Reads(content))])
    assert decode(stream) == content
    head = zstandard.get_frame_parameters(stream)
    assert (head.content_size, head.has_checksum) == (len(content), True)
    unpacker = zstandard.ZstdDecompressor().decompressobj()
    unpacker.decompress(stream)
    assert unpacker.unused_data == b""


async def test_s1_the_content_is_read_a_block_at_a_time(compressor: Compressor) -> None:
    reads = Reads(TEXT)
    async for _ in compressor.stream(len(TEXT), reads):
        pass
    assert max(length_bytes for _, length_bytes in reads.asked) == BLOCK_SIZE_BYTES
    starts = [start for start, _ in reads.asked]
    assert starts == list(range(0, len(TEXT), BLOCK_SIZE_BYTES))


async def test_b2_a_read_that_fails_leaves_a_stream_without_an_end(compressor: Compressor) -> None:
    received: list[bytes] = []

    async def receive() -> None:
        async for part in compressor.stream(len(TEXT), Reads(TEXT, fails_at=3 * MIB)):
            received.append(part)

    with pytest.raises(LookupError):
        await receive()
    with pytest.raises(zstandard.ZstdError):
        decode(b"".join(received))


def test_b2_a_stream_that_lacks_bytes_cannot_be_ended() -> None:
    encoder = make_encoder(3, 1000)
    encoder.compress(bytes(999))
    with pytest.raises(zstandard.ZstdError):
        encoder.flush()


@pytest.mark.parametrize("level", [1, 3, 12, MAX_LEVEL])
def test_the_window_is_one_that_every_decoder_takes(level: int) -> None:
    encoder = make_encoder(level, 1 << 32)
    head = zstandard.get_frame_parameters(encoder.compress(bytes(MIB)))
    assert head.window_size <= MAX_ZSTD_WINDOW_BYTES == 8 * MIB


# ---- the places


def test_s1_compressors_that_take_more_memory_have_fewer_places() -> None:
    places = [affordable_places(level) for level in range(1, MAX_LEVEL + 1)]
    assert places == sorted(places, reverse=True)
    assert (places[3 - 1], places[-1]) == (MAX_PLACES, 1)


def test_a_place_is_free_again_when_its_user_has_left_or_failed() -> None:
    compressor = Compressor(places=1)

    def use(place: AbstractContextManager[bool]) -> NoReturn:
        with place as granted:
            assert granted
            with compressor.place() as second:
                assert not second
            raise LookupError

    for _ in range(3):
        with pytest.raises(LookupError):
            use(compressor.place())
    compressor.close()


# ---- whether it pays


async def test_text_pays_and_noise_does_not(compressor: Compressor) -> None:
    assert await pays(compressor, Reads(TEXT))
    assert not await pays(compressor, Reads(NOISE))


@pytest.mark.parametrize("coded", ["zstd", "zlib"])
async def test_what_is_compressed_already_does_not_pay(compressor: Compressor, coded: str) -> None:
    packed = zlib.compress(TEXT) if coded == "zlib" else zstandard.compress(TEXT)
    assert not await pays(compressor, Reads(packed))


async def test_a_packed_head_does_not_hide_what_follows(compressor: Compressor) -> None:
    assert await pays(compressor, Reads(NOISE[: 2 * MIB] + TEXT))


async def test_what_is_small_does_not_pay_and_is_not_read() -> None:
    compressor = Compressor(min_size_bytes=1000)
    small, enough = Reads(TEXT[:999]), Reads(TEXT[:1000])
    assert not await pays(compressor, small)
    assert not small.asked
    assert await pays(compressor, enough)
    compressor.close()


@pytest.mark.parametrize("content", [TEXT, NOISE], ids=["pays", "does not"])
async def test_it_is_judged_once_for_each_artifact_however_many_ask(
    compressor: Compressor, content: bytes
) -> None:
    reads = Reads(content)
    await asyncio.gather(*(pays(compressor, reads) for _ in range(5)))
    asked = len(reads.asked)
    assert asked == SAMPLES
    await pays(compressor, reads)
    assert len(reads.asked) == asked


async def test_a_judgement_that_failed_is_made_again(compressor: Compressor) -> None:
    with pytest.raises(LookupError):
        await pays(compressor, Reads(TEXT, fails_at=MIB))
    assert await pays(compressor, Reads(TEXT))


async def test_s1_what_is_remembered_is_bounded_and_the_last_used_stay() -> None:
    compressor = Compressor(min_size_bytes=0, remembered=2)
    one, two, three = (Reads(TEXT[n:MIB]) for n in range(3))
    for reads in (one, two, one, three, one):
        await pays(compressor, reads)
    assert [len(reads.asked) for reads in (one, two, three)] == [1, 1, 1]
    await pays(compressor, two)
    assert len(two.asked) == 2, "what had to go is judged anew"
    compressor.close()


@pytest.mark.parametrize(
    "size_bytes",
    [0, 1, MIB - 1, MIB, MIB + 1, 2 * MIB, 3 * MIB + 1, 5 * MIB, 100 * MIB + 7, 2 << 30],
)
def test_samples_lie_in_the_artifact_apart_and_each_within_one_block(size_bytes: int) -> None:
    bounds = sample_bounds(size_bytes)
    assert 1 <= len(bounds) <= SAMPLES
    assert sum(length for _, length in bounds) <= SAMPLES * SAMPLE_BYTES
    for (start, length), (after, _) in zip(bounds, [*bounds[1:], (size_bytes, 0)], strict=True):
        assert start % BLOCK_SIZE_BYTES == 0
        assert start + length <= min(after, start + BLOCK_SIZE_BYTES)
    if size_bytes > MIB:
        assert bounds[-1][0] >= size_bytes - BLOCK_SIZE_BYTES - 1, "the end is looked at"
