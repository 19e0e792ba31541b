"""Signed releases for tests: TUF repositories made with python-tuf, and zips of them."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    SuccinctRoles,
    TargetFile,
    Targets,
    Timestamp,
)

NOW_S: Final = 1_800_000_000.0
FUTURE: Final = datetime.fromtimestamp(NOW_S + 86_400, UTC)
PAST: Final = datetime.fromtimestamp(NOW_S - 86_400, UTC)
TOP_ROLES: Final = (Root.type, Timestamp.type, Snapshot.type, Targets.type)
Files = dict[str, bytes]


@cache
def signer(name: str) -> CryptoSigner:
    """The key of this name: made once, the same in every test of a process."""
    return CryptoSigner.generate_ed25519()


@dataclass
class ReleaseBuilder:
    """A repository that is still being written.

    Its metadata are python-tuf's own objects, to be changed at will until `publish` signs them.
    """

    consistent: bool = True
    expires: datetime = FUTURE
    keys: dict[str, list[str]] = field(default_factory=dict)
    """The names of the keys that sign for each role; not given: one of its own."""
    hashed_meta: bool = True
    """Whether snapshot and timestamp have lengths and hashes of what they list."""
    version: int = 1

    def __post_init__(self) -> None:
        self.root = Root(expires=self.expires, consistent_snapshot=self.consistent)
        for role in TOP_ROLES:
            self.allow(role, self.keys.setdefault(role, [role]))
        self.roles = {Targets.type: Targets(version=self.version, expires=self.expires)}
        self.snapshot = Snapshot(version=self.version, expires=self.expires, meta={})
        self.timestamp = Timestamp(version=self.version, expires=self.expires)
        self.roots: list[bytes] = []
        self.files: Files = {}
        self.sign_root()

    @property
    def targets(self) -> Targets:
        return self.roles[Targets.type]

    @property
    def trusted(self) -> bytes:
        """The first root: what an operator adds."""
        return self.roots[0]

    def allow(self, role: str, names: Sequence[str], threshold: int = 1) -> None:
        """Have these keys, and no other, sign for a top-level role."""
        for key_id in list(self.root.roles[role].keyids):
            self.root.revoke_key(key_id, role)
        for name in names:
            self.root.add_key(signer(name).public_key, role)
        self.root.roles[role].threshold = threshold
        self.keys[role] = list(names)

    def sign_root(self, *names: str) -> None:
        """Sign the root as it is now; by these keys, or those that may."""
        content = signed(self.root, names or self.keys[Root.type])
        self.files[f"metadata/{self.root.version}.root.json"] = content
        self.roots.append(content)

    def rotate(self, *names: str) -> None:
        """Sign the root as the next version; by these keys too, and those that may."""
        self.root.version += 1
        self.sign_root(*dict.fromkeys((*names, *self.keys[Root.type])))

    def add(
        self, path: str, content: bytes, *, role: str = Targets.type, hashes: Sequence[str] = ()
    ) -> None:
        """List a target, and put its file where it belongs."""
        target = TargetFile.from_data(path, content, ["sha256", *hashes])
        self.roles[role].targets[path] = target
        name = target.get_prefixed_paths()[0] if self.consistent else path
        self.files[f"targets/{name}"] = content

    def document(self, artifacts: Sequence[Mapping[str, Any]], version: str = "1.0.0") -> None:
        """Add an `artifacts.json`."""
        content = {"system_version": version, "artifacts": list(artifacts)}
        self.add("artifacts.json", json.dumps(content).encode())

    def document_v2(self, artifacts: Sequence[Mapping[str, Any]], version: str = "1.0.0") -> None:
        """Add an `artifacts-v2.json`."""
        content = {"system_version": version, "artifacts": list(artifacts), "metadata": {"a": "b"}}
        self.add("artifacts-v2.json", json.dumps(content).encode())

    def delegate(
        self,
        name: str,
        paths: Sequence[str],
        *,
        by: str = Targets.type,
        terminating: bool = False,
        keys: Sequence[str] = ("delegated",),
        threshold: int = 1,
    ) -> None:
        """Let a role speak for the targets at these paths; new unless it is there already."""
        found = [signer(key).public_key for key in keys]
        parent = self.roles[by]
        if parent.delegations is None:
            parent.delegations = Delegations({}, {})
        assert parent.delegations.roles is not None
        parent.delegations.keys |= {key.keyid: key for key in found}
        parent.delegations.roles[name] = DelegatedRole(
            name, [key.keyid for key in found], threshold, terminating, list(paths)
        )
        self.roles.setdefault(name, Targets(version=self.version, expires=self.expires))
        self.keys[name] = list(keys)

    def delegate_bins(self, bit_length: int, prefix: str = "bin") -> SuccinctRoles:
        """Spread targets over hash bins; their roles are made when they are added to."""
        key = signer("delegated").public_key
        bins = SuccinctRoles([key.keyid], 1, bit_length, prefix)
        self.targets.delegations = Delegations({key.keyid: key}, None, bins)
        return bins

    def bin(self, name: str) -> None:
        """Make the role of a hash bin."""
        self.roles[name] = Targets(version=self.version, expires=self.expires)
        self.keys[name] = ["delegated"]

    def publish(self) -> Files:
        """Sign everything but the roots; all files by their paths in the repository."""
        for name, role in self.roles.items():
            content = signed(role, self.keys[name])
            self._write(quote(name, safe=""), role.version, content)
            self.snapshot.meta[f"{name}.json"] = self._meta(role.version, content)
        content = signed(self.snapshot, self.keys[Snapshot.type])
        self._write(Snapshot.type, self.snapshot.version, content)
        self.timestamp.snapshot_meta = self._meta(self.snapshot.version, content)
        self.sign_timestamp()
        return self.files

    def sign_timestamp(self) -> None:
        """Sign the timestamp alone, as it is now."""
        content = signed(self.timestamp, self.keys[Timestamp.type])
        self.files["metadata/timestamp.json"] = content

    def _write(self, name: str, version: int, content: bytes) -> None:
        prefix = f"{version}." if self.consistent else ""
        self.files[f"metadata/{prefix}{name}.json"] = content

    def _meta(self, version: int, content: bytes) -> MetaFile:
        return (
            MetaFile.from_data(version, content, ["sha256"])
            if self.hashed_meta
            else MetaFile(version)
        )


def signed(what: Root | Timestamp | Snapshot | Targets, names: Sequence[str]) -> bytes:
    """The bytes of metadata, signed by the keys of these names."""
    metadata: Metadata[Any] = Metadata(what)
    for name in names:
        metadata.sign(signer(name), append=True)
    return metadata.to_bytes()


def small_release(version: str = "1.0.0", **changes: Any) -> ReleaseBuilder:
    """A release of two artifacts with a document, not yet published."""
    builder = ReleaseBuilder(**changes)
    builder.add("one.tar.gz", b"one of them\n")
    builder.add("two.tar.gz", b"and the other\n" * 100)
    builder.document(
        [
            {"name": "one", "version": version, "kind": "sp", "target": "one.tar.gz"},
            {"name": "two", "version": version, "kind": "host", "target": "two.tar.gz"},
        ],
        version,
    )
    return builder


def zip_bytes(
    files: Mapping[str, bytes], *, prefix: str = "repo/", method: int = zipfile.ZIP_STORED
) -> bytes:
    """A zip of a repository's files."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", method) as archive:
        for path, each in files.items():
            archive.writestr(prefix + path, each)
    return content.getvalue()


def write_zip(directory: Path, files: Mapping[str, bytes], **options: Any) -> Path:
    """Write a zip of a repository's files into a directory."""
    path = directory / "release.zip"
    path.write_bytes(zip_bytes(files, **options))
    return path


def write_files(directory: Path, files: Mapping[str, bytes], prefix: str = "") -> Path:
    """Write a repository's files into a directory as they are."""
    for name, content in files.items():
        path = directory / (prefix + name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return directory
