"""A process that stages artifacts, one batch after the other, and is killed while it does.

`python -m tests.coordinator.staging.holder DIRECTORY SEED` says on stdout, one line each, what it
has held (`held HASH`) and what it is about to drop (`dropping HASH`).
"""

from __future__ import annotations

import asyncio
import io
import random
import sys
from pathlib import Path
from typing import Final

from coordinator.staging.depot import Claim, StagingDepot
from depot.artifact import ArtifactHash

KIB: Final = 1 << 10
SIZES_KIB: Final = (1, 40, 300, 3000)


async def main(path: Path, seed: str) -> None:
    rng = random.Random(seed)
    async with await StagingDepot.open(path, quota_bytes=200 << 20) as depot:
        (depot.incoming / "release.zip").write_bytes(b"x" * KIB)
        while True:
            await _upload(depot, rng)
            for artifact in rng.sample(sorted(depot.held()), k=rng.randrange(3)):
                _say(f"dropping {artifact}")
                await depot.drop([artifact], since=depot.moment())


async def _upload(depot: StagingDepot, rng: random.Random) -> None:
    contents = [rng.randbytes(rng.choice(SIZES_KIB) * KIB) for _ in range(4)]
    by_hash = {ArtifactHash.of(content): content for content in contents}
    async with depot.claim({a: len(content) for a, content in by_hash.items()}) as claim:
        await asyncio.gather(*(_hold(claim, a, content) for a, content in by_hash.items()))


async def _hold(claim: Claim, artifact: ArtifactHash, content: bytes) -> None:
    await claim.hold(artifact, io.BytesIO(content))
    _say(f"held {artifact}")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
