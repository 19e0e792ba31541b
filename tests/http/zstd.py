"""Asking a depot for zstd by hand, and decoding what it sends as any client would."""

from __future__ import annotations

import zstandard

from depot.artifact import ArtifactHash
from depot.streams.sources import MAX_ZSTD_WINDOW_BYTES
from tests.http.raw import Answer, RawClient

MIB = 1 << 20
TEXT = b"".join(b"line %d of %d\n" % (n, n * n) for n in range(300_000))
"""Some six MiB that compress well."""


def line(artifact: ArtifactHash, method: str = "GET", version: str = "1.1") -> str:
    return f"{method} /artifact/sha256/{artifact} HTTP/{version}"


async def ask(
    url: str, artifact: ArtifactHash, *headers: str, accept: str = "zstd", method: str = "GET"
) -> Answer:
    async with RawClient.connect(url) as client:
        await client.send(line(artifact, method), f"Accept-Encoding: {accept}", *headers)
        status, _ = answer_head = await client.head()
        has_body = method != "HEAD" and status != 304
        chunked = answer_head[1].get("transfer-encoding") == "chunked"
        if has_body and chunked:
            return Answer(*answer_head, await client.chunks())
        length = int(answer_head[1].get("content-length", 0)) if has_body else 0
        return Answer(*answer_head, await client.reader.readexactly(length))


def decode(stream: bytes) -> bytes:
    """As a client does that knows no size and takes no larger window."""
    decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_ZSTD_WINDOW_BYTES)
    return decompressor.decompressobj().decompress(stream)


def is_encoded(answer: Answer) -> bool:
    return answer.headers.get("content-encoding") == "zstd"


async def cut_short(url: str, artifact: ArtifactHash) -> bytes:
    """What could be decoded of an answer that was cut."""
    async with RawClient.connect(url) as client:
        await client.send(line(artifact), "Accept-Encoding: zstd")
        status, headers = await client.head()
        assert (status, headers["content-encoding"]) == (200, "zstd")
        received = await client.rest()
    assert not received.endswith(b"0\r\n\r\n"), "a clean end"
    content = b""
    while received:
        size, _, received = received.partition(b"\r\n")
        content += received[: int(size, 16)]
        received = received[int(size, 16) + 2 :]
    decoder = zstandard.ZstdDecompressor().decompressobj()
    decoded = decoder.decompress(content)
    assert not decoder.eof, "the frame is whole"
    return decoded
