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
        named = [(a, file.size_bytes, file.identity) for a, file in expected.items()]
        assert list(there.identities()) == named
        assert list(there.sizes()) == [each[:2] for each in named]
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


def test_another_file_under_the_name_has_another_identity() -> None:
    file = FoundFile(1, 2, 3, 4.0)
    assert file.identity != file._replace(inode=9).identity != file._replace(mtime_ns=9).identity
    assert file.identity == file._replace(changed_at_s=9.0).identity
