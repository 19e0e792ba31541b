"""A signed release for the demo: a TUF repository in a zip, made with python-tuf."""

from __future__ import annotations

import json
import random
import sysconfig
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    TOP_LEVEL_ROLE_NAMES,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

VERSION: Final = "1.0.0"
IMAGES: Final = 3
IMAGE_BYTES: Final = 12 << 20
MODULES: Final = 12


@dataclass(frozen=True, slots=True)
class MadeRelease:
    """What a release engineer hands over.

    Attributes:
        root: the first root.json, which operators trust.
        hashes: of its artifacts.
        size_bytes: of all of them.
    """

    archive: Path
    root: Path
    hashes: tuple[str, ...]
    size_bytes: int


def make_release(directory: Path) -> MadeRelease:
    """Sign some images and the largest modules of Python's library as one release."""
    directory.mkdir(parents=True)
    expires = (datetime.now(UTC) + timedelta(days=30)).replace(microsecond=0)
    signer = CryptoSigner.generate_ed25519()
    root, targets = Root(expires=expires), Targets(expires=expires)
    for role in TOP_LEVEL_ROLE_NAMES:
        root.add_key(signer.public_key, role)
    files: dict[str, bytes] = {}
    listed: list[dict[str, str]] = []
    hashes: list[str] = []
    for name, content in _contents():
        hashes.append(_add(targets, files, name, content))
        listed.append({"name": name, "version": VERSION, "kind": "demo", "target": name})
    document = {"system_version": VERSION, "artifacts": listed}
    _add(targets, files, "artifacts.json", json.dumps(document).encode())

    signed_targets = _signed(targets, signer)
    snapshot = Snapshot(expires=expires)
    snapshot.meta["targets.json"] = MetaFile.from_data(1, signed_targets, ["sha256"])
    signed_snapshot = _signed(snapshot, signer)
    timestamp = Timestamp(expires=expires)
    timestamp.snapshot_meta = MetaFile.from_data(1, signed_snapshot, ["sha256"])
    signed_root = _signed(root, signer)
    files |= {
        "metadata/1.root.json": signed_root,
        "metadata/1.targets.json": signed_targets,
        "metadata/1.snapshot.json": signed_snapshot,
        "metadata/timestamp.json": _signed(timestamp, signer),
    }
    archive, trusted = directory / "release.zip", directory / "root.json"
    with zipfile.ZipFile(archive, "w") as made:
        for path, content in files.items():
            made.writestr(f"repo/{path}", content)
    trusted.write_bytes(signed_root)
    size_bytes = sum(targets.targets[entry["target"]].length for entry in listed)
    return MadeRelease(archive, trusted, tuple(hashes), size_bytes)


def _contents() -> Iterator[tuple[str, bytes]]:
    rng = random.Random()
    for number in range(IMAGES):
        yield f"image-{number}.img", rng.randbytes(IMAGE_BYTES)
    library = Path(sysconfig.get_path("stdlib"))
    modules = sorted(library.glob("*.py"), key=lambda path: path.stat().st_size)[-MODULES:]
    for module in modules:
        yield module.name, module.read_bytes()


def _add(targets: Targets, files: dict[str, bytes], name: str, content: bytes) -> str:
    target = TargetFile.from_data(name, content, ["sha256"])
    targets.targets[name] = target
    files[f"targets/{target.get_prefixed_paths()[0]}"] = content
    return str(target.hashes["sha256"])


def _signed(what: Root | Targets | Snapshot | Timestamp, signer: CryptoSigner) -> bytes:
    metadata: Metadata[Any] = Metadata(what)
    metadata.sign(signer)
    return metadata.to_bytes()
