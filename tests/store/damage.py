"""Copies hurt where they lie, behind the store's back, as rot does: modification times stay."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from tests import ondisk
from tests.store.builders import MIB, Node, hash_of, off_loop

Harm = Callable[[bytearray], bytearray]


def flip(offset: int) -> Harm:
    def harm(content: bytearray) -> bytearray:
        content[offset] ^= 0x10
        return content

    return harm


def zero(*blocks: int) -> Harm:
    def harm(content: bytearray) -> bytearray:
        for block in blocks:
            content[block * MIB : (block + 1) * MIB] = bytes(len(content[block * MIB :][:MIB]))
        return content

    return harm


def truncate(size_bytes: int) -> Harm:
    return lambda content: content[:size_bytes]


def hurt_file(path: Path, harm: Harm) -> None:
    before = path.stat()
    path.chmod(0o644)
    with path.open("r+b") as file:  # a store that runs may set it aside before this is done
        harmed = harm(bytearray(file.read()))
        file.seek(0)
        file.write(harmed)
        file.truncate()
        file.flush()
        os.fchmod(file.fileno(), 0o444)
        os.utime(file.fileno(), ns=(before.st_atime_ns, before.st_mtime_ns))


async def hurt(node: Node, index: int, content: bytes, harm: Harm) -> None:
    await off_loop(hurt_file, node.file(index, content), harm)


async def quarantined(node: Node, index: int, content: bytes | None = None) -> list[Path]:
    """Files in the quarantine of a dataset, of one artifact or of all."""
    name = "" if content is None else str(hash_of(content))
    return await off_loop(ondisk.quarantined_files, node.paths[index], name)
