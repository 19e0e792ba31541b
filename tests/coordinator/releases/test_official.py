"""Compared with python-tuf's own client: what it takes is taken, what it refuses is refused."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from copy import deepcopy
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from hypothesis import given, settings
from hypothesis import strategies as st
from securesystemslib.exceptions import FormatError
from securesystemslib.formats import encode_canonical
from tuf.api.exceptions import DownloadError, RepositoryError

from coordinator.errors import BadRelease, Untrusted
from coordinator.releases.repository import DEFAULT_LIMITS
from coordinator.releases.trust import verify
from tests.coordinator.releases.builder import Files, ReleaseBuilder, signer, small_release
from tests.coordinator.releases.memory import MemoryRepository, official_client

LATER: Final = datetime(2200, 1, 1, tzinfo=UTC)
Found = Mapping[str, Mapping[str, Any]] | None


def ours(files: Files, root: bytes) -> Found:
    try:
        found = verify(MemoryRepository(files), root, now_s=time.time(), limits=DEFAULT_LIMITS)
    except (BadRelease, Untrusted):
        return None
    if found.expired:
        return None
    return {path: target.to_dict() for path, target in found.targets.items()}


def theirs(files: Files, root: bytes, paths: Sequence[str]) -> Found:
    with tempfile.TemporaryDirectory() as directory:
        try:
            client = official_client(files, root, Path(directory))
            client.refresh()
            found = {path: client.get_targetinfo(path) for path in paths}
        except (RepositoryError, DownloadError):
            return None
    return {path: target.to_dict() for path, target in found.items() if target is not None}


def rotated_release() -> ReleaseBuilder:
    """One in which nothing has the hash of anything: what is signed anew still hangs together."""
    release = small_release(expires=LATER, hashed_meta=False)
    release.allow("root", ["root", "second"], threshold=2)
    release.rotate("root")
    release.publish()
    return release


RELEASE: Final = rotated_release()
PATHS: Final = ["one.tar.gz", "two.tar.gz", "artifacts.json"]
SIGNERS: Final = {
    "metadata/2.root.json": ["root", "second"],
    "metadata/timestamp.json": ["timestamp"],
    "metadata/1.snapshot.json": ["snapshot"],
    "metadata/1.targets.json": ["targets"],
}
NUMBERS: Final = [0, 1, 2, 3, -1, 1.0, 10**400]
TEXTS: Final = ["", "1", "x", "root", "targets", "1.0.9"]
DATES: Final = ["2020-01-01T00:00:00Z", "2199-01-01T00:00:00Z", "2199-01-01"]
OTHERS: Final = [None, True, False, [], {}, [1], {"a": 1}]
VALUES: Final = st.sampled_from([*NUMBERS, *TEXTS, *DATES, *OTHERS])


def test_they_agree_on_a_release_that_is_right() -> None:
    found = ours(RELEASE.files, RELEASE.trusted)
    assert found is not None
    assert set(found) == set(PATHS)
    assert found == theirs(RELEASE.files, RELEASE.trusted, PATHS)


def changed(data: st.DataObject, document: Any) -> None:
    """Change, take or add something somewhere in it."""
    at = document
    while True:
        key = data.draw(st.sampled_from(sorted(at))) if isinstance(at, dict) else 0
        if not (isinstance(at[key], dict | list) and at[key]) or data.draw(st.integers(0, 9)) == 0:
            break
        at = at[key]
    value = deepcopy(data.draw(VALUES))  # the next change may be in it
    match data.draw(st.sampled_from(["change", "change", "take", "add"])):
        case "take":
            del at[key]
        case "add" if isinstance(at, dict):
            at[data.draw(st.sampled_from(["extra", "x.json"]))] = value
        case _:
            at[key] = value


def signed_anew(document: Any, names: Sequence[str]) -> bytes:
    """As whoever holds the keys would sign whatever it is."""
    try:
        payload = (encode_canonical(document) or "").encode()
    except FormatError:  # nobody can
        payload = b""
    signatures = [signer(name).sign(payload).to_dict() for name in names]
    return json.dumps({"signed": document, "signatures": signatures}).encode()


@given(st.data())
@settings(max_examples=80)
def test_they_agree_on_signed_metadata_that_say_anything(data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(sorted(SIGNERS)))
    document = json.loads(RELEASE.files[path])["signed"]
    for _ in range(data.draw(st.integers(1, 2))):
        changed(data, document)
    names = SIGNERS[path][: data.draw(st.sampled_from([2, 2, 2, 1]))]
    files = {**RELEASE.files, path: signed_anew(document, names)}
    found = ours(files, RELEASE.trusted)
    assert found == theirs(files, RELEASE.trusted, sorted(found) if found else PATHS)


PATTERNS: Final = st.sampled_from(["*", "a*", "b*", "?", "d/*", "*/*", "d/a"])
TARGETS: Final = ["a", "b", "ab", "d/a", "d/b"]


@given(st.data())
@settings(max_examples=25)
def test_they_agree_on_whose_word_counts_for_a_target(data: st.DataObject) -> None:
    release = ReleaseBuilder(expires=LATER)
    roles = ["targets"]
    for _ in range(data.draw(st.integers(1, 7))):
        role = data.draw(st.sampled_from(["r1", "r2", "r3", "r4"]))
        release.delegate(
            role,
            data.draw(st.lists(PATTERNS, min_size=1, max_size=2)),
            by=data.draw(st.sampled_from(roles)),
            terminating=data.draw(st.booleans()),
        )
        roles.append(role)
    for path in TARGETS:
        for role in data.draw(st.sets(st.sampled_from(roles))):
            release.add(path, f"{role} says".encode(), role=role)
    files = release.publish()
    found = ours(files, release.trusted)
    assert found is not None
    assert found == theirs(files, release.trusted, TARGETS)
