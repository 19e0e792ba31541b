"""What is done to copies where they lie: bits flipped, sectors zeroed, ends lost, files swapped.

One copy, both in different blocks, both in the same; or a copy is removed, or both; block digests
are harmed too. Modification times stay. What was done says what can be made good again.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from tests import ondisk
from tests.store.builders import MIB, hash_of
from tests.store.damage import hurt_file

_NOISE: Final = random.Random(8).randbytes(8 * MIB)
SIZES: Final = (1, 5000, MIB - 1, MIB, 2 * MIB + 77, 3 * MIB)
CONTENTS: Final = tuple(bytes([n]) + _NOISE[n * 1000 :][: size - 1] for n, size in enumerate(SIZES))
BY_NAME: Final = {str(hash_of(content)): content for content in CONTENTS}
SECTORS: Final = (512, 4096, 65536)

Harm = Callable[[random.Random, bytearray, int, int], bytearray]
"""Does something to a copy between two offsets, where at least one byte has to change."""


def _flip(rng: random.Random, content: bytearray, start: int, end: int) -> bytearray:
    for at in rng.sample(range(start, end), min(end - start, rng.randint(1, 3))):
        content[at] ^= 1 << rng.randrange(8)
    return content


def _zero(rng: random.Random, content: bytearray, start: int, end: int) -> bytearray:
    return _overwrite(content, start, end, bytes(rng.choice(SECTORS)), rng)


def _misdirected(rng: random.Random, content: bytearray, start: int, end: int) -> bytearray:
    return _overwrite(content, start, end, _NOISE[-rng.choice(SECTORS) :], rng)


def _overwrite(
    content: bytearray, start: int, end: int, sector: bytes, rng: random.Random
) -> bytearray:
    at = rng.randrange(start, end) // 512 * 512
    before = bytes(content)
    at = max(at, start)
    content[at : min(end, at + len(sector))] = sector[: min(end, at + len(sector)) - at]
    return content if content != before else _flip(rng, content, start, end)


def _truncated(rng: random.Random, content: bytearray, start: int, _end: int) -> bytearray:
    return content[: rng.choice([0, start, max(0, len(content) - 1)])]


def _extended(_rng: random.Random, content: bytearray, _start: int, _end: int) -> bytearray:
    return content + b"more"


HARMS: Final[dict[str, Harm]] = {
    **{"flip": _flip, "zero": _zero, "misdirected": _misdirected},
    **{"truncated": _truncated, "extended": _extended},
}
LENGTHS: Final = frozenset({"truncated", "extended"})


@dataclass
class Harmed:
    """What was done to the copies of one artifact; blocks that are bad, by dataset.

    Attributes:
        bad_blocks: of every copy that is bad; none where it only became too long.
        removed: the datasets on which the file was removed; nothing of it is left to be kept.
    """

    content: bytes
    bad_blocks: dict[int, set[int]] = field(default_factory=dict)
    digests_kept: bool = True
    removed: set[int] = field(default_factory=set)

    @property
    def can_be_healed(self) -> bool:
        """Some dataset has a good copy, or there is a good copy of each block and it is known."""
        if len(self.bad_blocks) + len(self.removed) < len("ab"):
            return True
        if self.removed:
            return False
        one_block = len(self.content) <= MIB
        return self.is_whole_between and (one_block or self.digests_kept)

    @property
    def is_whole_between(self) -> bool:
        """Some copy of each block is good."""
        return not set.intersection(*self.bad_blocks.values())


def harm_all(rng: random.Random, paths: list[Path]) -> tuple[list[Harmed], Counter[str]]:
    counts: Counter[str] = Counter()
    harmed: list[Harmed] = []
    if rng.random() < 0.1:
        counts["swapped"] += 1
        return _swap(rng, paths), counts
    for content in rng.sample(CONTENTS, rng.randint(1, 3)):
        which = rng.choice(["one", "one", "both apart", "both alike", "removed", "one removed"])
        each = Harmed(content)
        if "removed" in which:
            harmed.append(_remove(rng, paths, each, which))
            counts[which] += 1
            continue
        blocks = range(-(-len(content) // MIB))
        if which == "both apart" and len(blocks) < len(paths):
            which = "both alike"
        chosen = rng.sample(blocks, min(len(blocks), len(paths)))
        victims = [rng.choice([0, 1])] if which == "one" else [0, 1]
        kinds = [rng.choice([*HARMS]) for _ in victims]
        for index, kind in zip(victims, kinds, strict=True):
            block = chosen[index] if which == "both apart" else chosen[0]
            each.bad_blocks[index] = _harm(rng, paths[index], content, HARMS[kind], block)
            counts[kind] += 1
        if len(victims) > 1:  # an end that is lost may take a block with it that was to be left
            which = "both apart" if each.is_whole_between else "both alike"
            counts["both of another length"] += LENGTHS.issuperset(kinds)
        counts[which] += 1
        if rng.random() < 0.5:
            each.digests_kept = _hurt_digests(rng, paths, content)
        harmed.append(each)
    return harmed, counts


def _remove(rng: random.Random, paths: list[Path], each: Harmed, which: str) -> Harmed:
    """Remove one copy, or both; the other of one that was removed may have rotted, too."""
    each.removed = {0, 1} if which == "removed" else {rng.choice([0, 1])}
    for index in each.removed:
        (paths[index] / str(hash_of(each.content))).unlink()
    for index in {0, 1} - each.removed:
        if rng.random() < 0.3:
            path = paths[index] / str(hash_of(each.content))
            hurt_file(path, partial(_do, rng, _flip, (0, min(MIB, len(each.content)))))
            each.bad_blocks[index] = {0}
    if rng.random() < 0.3:
        each.digests_kept = _hurt_digests(rng, paths, each.content)
    return each


def _harm(rng: random.Random, dataset: Path, content: bytes, harm: Harm, block: int) -> set[int]:
    """Harm a copy in a block, or in its length; the blocks of it that are bad now."""
    start, end = block * MIB, min(len(content), (block + 1) * MIB)
    harmed = bytearray()

    def do(before: bytearray) -> bytearray:
        harmed[:] = harm(rng, before, start, end)
        return harmed

    hurt_file(dataset / str(hash_of(content)), do)
    if len(content) <= MIB:
        return {0}  # also when it only became longer: nothing says how long it was
    blocks = [slice(at, min(at + MIB, len(content))) for at in range(0, len(content), MIB)]
    return {number for number, each in enumerate(blocks) if harmed[each] != content[each]}


def _do(rng: random.Random, harm: Harm, bounds: tuple[int, int], content: bytearray) -> bytearray:
    return harm(rng, content, *bounds)


def _swap(rng: random.Random, paths: list[Path]) -> list[Harmed]:
    """Two files under each other's name."""
    index = rng.choice([0, 1])
    pair = rng.sample(CONTENTS, 2)
    one, other = (paths[index] / str(hash_of(content)) for content in pair)
    aside = paths[index] / "aside"
    for source, target in ((one, aside), (other, one), (aside, other)):
        source.rename(target)
    return [Harmed(content, {index: {0}}) for content in pair]


def _hurt_digests(rng: random.Random, paths: list[Path], content: bytes) -> bool:
    """Harm what is kept of the blocks; tell whether it is still intact somewhere."""
    files = [path / ondisk.METADATA / "blocks" / str(hash_of(content)) for path in paths]
    victims = [file for file in files if file.exists() and rng.random() < 0.7]
    for file in victims:
        if rng.random() < 0.5:
            file.unlink()
        else:
            hurt_file(file, lambda old: _flip(rng, old, 0, len(old)))
    return len(victims) < len(files)
