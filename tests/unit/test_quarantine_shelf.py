from __future__ import annotations

import random

import pytest

from depot.artifact import ArtifactHash
from depot.dataset.quarantine_names import QuarantinedFile, Reason, file_name
from depot.quarantine.shelf import Shelf, largest_of

ARTIFACTS = [ArtifactHash.of(bytes([number])) for number in range(4)]


def a_file(draw: random.Random, time_ms: int) -> QuarantinedFile:
    name = file_name(draw.choice(ARTIFACTS), time_ms, draw.choice(list(Reason)))
    file = QuarantinedFile.parse(name, draw.randrange(1000))
    assert file is not None
    return file


def largest(files: set[QuarantinedFile]) -> dict[ArtifactHash, int]:
    return {
        artifact: max(file.size_bytes for file in files if file.artifact == artifact)
        for artifact in {file.artifact for file in files}
    }


@pytest.mark.parametrize("seed", range(5))
def test_what_a_shelf_keeps_is_what_counting_anew_finds(seed: int) -> None:
    draw = random.Random(seed)
    shelf, there = Shelf(), set[QuarantinedFile]()
    seen: list[QuarantinedFile] = []
    for time_ms in range(200):
        if seen and draw.random() < 0.5:
            file = draw.choice(seen)  # perhaps one that has gone, or is there
            if draw.random() < 0.7:
                shelf.remove(file)
                there.discard(file)
            else:
                shelf.add(file)
                there.add(file)
        else:
            seen.append(file := a_file(draw, time_ms))
            shelf.add(file)
            there.add(file)
        assert shelf.count == len(there)
        assert shelf.used_bytes == sum(file.size_bytes for file in there)
        assert shelf.largest == largest(there)
        for artifact in ARTIFACTS:
            assert shelf.of(artifact) == sorted(f for f in there if f.artifact == artifact)


def test_the_largest_of_several_shelves_is_that_of_all_their_files() -> None:
    draw = random.Random(1)
    piles = [{a_file(draw, time_ms) for time_ms in range(count)} for count in (0, 3, 0, 9)]
    assert largest_of(map(Shelf, piles)) == largest(set[QuarantinedFile]().union(*piles))
