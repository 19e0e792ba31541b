"""A signed release for the demo, or to try a coordinator with: a TUF repository in a zip.

As a command (`python packaging/demo_release.py DIR`) it makes release.zip, and the root.json that
verifies it, in a new directory. The key that signs it is forgotten at once.
"""

from __future__ import annotations

import argparse
import json
import random
import shlex
import sys
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


def make_release(directory: Path, version: str = VERSION) -> MadeRelease:
    """Sign some images and the largest modules of Python's library as one release.

    Raises:
        FileExistsError: the directory is there already.
    """
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
        listed.append({"name": name, "version": version, "kind": "demo", "target": name})
    document = {"system_version": version, "artifacts": listed}
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


def main() -> int:
    """Make a release in a new directory, and say what to do with it; the exit status."""
    parser = argparse.ArgumentParser(description="Make a signed release to try a coordinator with.")
    parser.add_argument("directory", type=Path, help="a new directory: release.zip, root.json")
    parser.add_argument("--version", default=VERSION, help="of the release (default: %(default)s)")
    asked = parser.parse_args()
    try:
        made = make_release(asked.directory, asked.version)
    except OSError as error:
        print(f"demo_release: {asked.directory}: {error.strerror or error}", file=sys.stderr)
        return 1
    print(
        f"release {asked.version}: {len(made.hashes)} artifacts, {made.size_bytes:,} bytes. Next:"
    )
    for command in ("trust add", str(made.root)), ("release upload", str(made.archive)):
        print(f"  depot-coordinator {command[0]} {shlex.quote(command[1])}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
