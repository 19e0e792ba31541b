from __future__ import annotations

import pickle

from hypothesis import given
from hypothesis import strategies as st

from depot.artifact import ArtifactHash
from depot.dataset.found_files import FoundFile, FoundFiles

artifacts = st.binary(min_size=32, max_size=32).map(ArtifactHash)
numbers = st.integers(0, 2**64 - 1)
times = st.integers(-(2**63), 2**63 - 1)
files = st.builds(FoundFile, numbers, numbers, times, st.floats(allow_nan=False))
tables = st.dictionaries(artifacts, files, max_size=8)


def packed(expected: dict[ArtifactHash, FoundFile]) -> FoundFiles:
    found = FoundFiles()
    for artifact, file in expected.items():
        found.add(artifact, *file)
    return found


@given(tables, artifacts)
def test_files_that_were_packed_are_what_they_were(
    expected: dict[ArtifactHash, FoundFile], other: ArtifactHash
) -> None:
    found = packed(expected)
    for there in (found, pickle.loads(pickle.dumps(found, protocol=5))):
        assert list(there.sizes()) == [(a, file.size_bytes) for a, file in expected.items()]
        assert {artifact: there.find(artifact) for artifact in expected} == expected
        assert (there.find(other) is None) == (other not in expected)
        assert len(there) == len(expected)
        assert (other in there) == (other in expected)


def test_a_file_takes_the_same_few_bytes_to_cross_however_many_there_are() -> None:
    many = {ArtifactHash(n.to_bytes(32)): FoundFile(n, n, n, float(n)) for n in range(2000)}
    assert len(pickle.dumps(packed(many), protocol=5)) / len(many) < 80


def test_what_was_unpacked_meanwhile_does_not_cross() -> None:
    found = packed({ArtifactHash(bytes(32)): FoundFile(1, 2, 3, 4.0)})
    before = pickle.dumps(found, protocol=5)
    assert ArtifactHash(bytes(32)) in found
    assert pickle.dumps(found, protocol=5) == before


@given(tables.filter(bool), st.data())
def test_a_stretch_is_of_files_that_follow_each_other(
    expected: dict[ArtifactHash, FoundFile], data: st.DataObject
) -> None:
    in_order = sorted(expected)
    found = packed({artifact: expected[artifact] for artifact in in_order})
    begin = data.draw(st.integers(0, len(in_order) - 1))
    asked = in_order[begin : data.draw(st.integers(begin + 1, len(in_order)))]
    stretch = found.stretch(asked)
    assert stretch is not None
    assert list(stretch.artifacts) == asked
    assert list(zip(*stretch[1:], strict=True)) == [expected[each][:3] for each in asked]
    left_out = data.draw(st.sampled_from(asked))
    others = [each for each in asked if each != left_out]
    assert others in ([], asked[1:], asked[:-1]) or found.stretch(others) is None
    assert found.stretch([*asked, asked[0]]) is None


def test_those_that_were_not_added_in_order_are_no_stretch_at_worst() -> None:
    file, first, last = FoundFile(1, 2, 3, 4.0), ArtifactHash(bytes(32)), ArtifactHash(b"x" * 32)
    found = packed({last: file, first: file})
    assert found.stretch([first, last]) is None
    assert found.find(first) == found.find(last) == file
