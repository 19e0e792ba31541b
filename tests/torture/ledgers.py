"""Ledgers torn, emptied, altered, swapped, taken from elsewhere, or replaced by what is no file.

Each run takes a node that accepted a few configs, and does something to the ledger of each dataset
and to the witness. What the node has to say after that is worked out here from what is left to be
read, without the store's code: the newest intact ledger of this sled, the witness, and whether they
agree. Whatever is left: no accepted generation is taken for a lower one (G1), equals that differ
stop writes and deletes (G4), and nothing that the last config names is deleted (D1).
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Final

from depot.artifact import ArtifactConfig, Generation
from depot.errors import ConfigGeneration, DepotError, LedgerUnknown
from depot.initialise import init_datasets
from depot.options import StoreOptions
from depot.store import ArtifactStore
from tests import ondisk
from tests.memory_dir import memory_dir
from tests.store.builders import BytesSource, hash_of
from tests.torture.campaign import Campaign, Outcome, Plan, strike_each
from tests.torture.child import Child, Tell

SLED: Final = "sled-under-torture"
NEWEST: Final = 4
OPTIONS: Final = StoreOptions(quota_bytes=8 << 20, delete_grace_s=0.0)
CONTENTS: Final = tuple(bytes([65 + number]) * 3000 for number in range(NEWEST + 2))

Reading = tuple[int, frozenset[str]] | None
"""What a document says: its generation and artifacts; None: nothing that counts."""


def wanted(generation: int) -> tuple[bytes, ...]:
    """Each config adds an artifact; the first one stays wanted for ever."""
    return CONTENTS[: generation + 1]


def config_of(generation: int) -> ArtifactConfig:
    return ArtifactConfig.make(generation, map(hash_of, wanted(generation)))


@dataclass
class Template:
    """A node that accepted generations 1 to `NEWEST`, and every document it had on the way."""

    root: Path
    ledgers: dict[int, bytes] = field(default_factory=dict)
    witnesses: dict[int, bytes] = field(default_factory=dict)
    foreign: tuple[bytes, bytes] = (b"", b"")

    @classmethod
    def make(cls, root: Path) -> Template:
        template = cls(root)
        asyncio.run(template._found())
        other = cls(root / "other")
        asyncio.run(other._found("another-sled"))
        template.foreign = (other.ledgers[NEWEST], other.witnesses[NEWEST])
        return template

    async def _found(self, sled_id: str = SLED) -> None:
        paths = [self.root / "a", self.root / "b"]
        for path in paths:
            path.mkdir(parents=True)
        init_datasets(paths, sled_id=sled_id)
        state = self.root / "state"
        async with await ArtifactStore.open(paths, state_dir=state, options=OPTIONS) as store:
            for generation in range(1, NEWEST + 1):
                await store.put_config(config_of(generation))
                self.ledgers[generation] = (paths[0] / ondisk.LEDGER).read_bytes()
                witness = state / "witness.json"
                assert witness.exists(), f"G1 no witness of the accepted generation {generation}"
                self.witnesses[generation] = witness.read_bytes()
            for content in wanted(NEWEST):
                generation = Generation(NEWEST)
                async with store.begin_put(hash_of(content), generation, len(content)) as put:
                    await put.receive(BytesSource(content))
        for path in paths:
            (path / ondisk.METADATA / "reserve").unlink()  # 32 MiB that every run makes anew

    def copy(self, root: Path) -> None:
        for name in ("a", "b", "state"):
            shutil.copytree(self.root / name, root / name)


def sealed(ledger: bytes, **changes: object) -> bytes:
    """Alter a ledger's fields and give it a checksum that fits."""
    fields = {**json.loads(ledger), **changes}
    fields.pop("checksum", None)
    canonical = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    return json.dumps({**fields, "checksum": ondisk.sha256(canonical.encode())}).encode()


Mistreat = Callable[[Path, random.Random, Template], Reading]
"""Does it to the ledger at a path, which is intact; what can be read from it then."""


def _newest(_path: Path, _rng: random.Random, _template: Template) -> Reading:
    return NEWEST, names(NEWEST)


def names(generation: int) -> frozenset[str]:
    return frozenset(map(ondisk.sha256, wanted(generation)))


def _old(path: Path, rng: random.Random, template: Template) -> Reading:
    generation = rng.randrange(1, NEWEST)
    path.write_bytes(template.ledgers[generation])
    return generation, names(generation)


def _torn(path: Path, rng: random.Random, _template: Template) -> Reading:
    # The last byte is a line feed, without which it is whole.
    os.truncate(path, rng.randrange(path.stat().st_size - 1))
    return None


def _digit(path: Path, rng: random.Random, _template: Template) -> Reading:
    content = bytearray(path.read_bytes())
    start = content.index(rng.choice(sorted(names(NEWEST))).encode())
    at = start + rng.randrange(64)
    content[at] = rng.choice([c for c in b"0123456789abcdef" if c != content[at]])
    path.write_bytes(content)
    return None


def _bit(path: Path, rng: random.Random, _template: Template) -> Reading:
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content) - 1)] ^= 1 << rng.randrange(8)
    path.write_bytes(content)
    return None


def _zeroed(path: Path, rng: random.Random, _template: Template) -> Reading:
    size_bytes = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(rng.randrange(size_bytes // 2))
        file.write(bytes(size_bytes - file.tell()))
    return None


def _rival(path: Path, _rng: random.Random, template: Template) -> Reading:
    artifacts = [ondisk.sha256(CONTENTS[0]), "f" * 64]
    path.write_bytes(sealed(template.ledgers[NEWEST], artifacts=artifacts))
    return NEWEST, frozenset(artifacts)


def _impossible(path: Path, rng: random.Random, template: Template) -> Reading:
    generations = [2**63, 2**200, -1, True, "5", 4.0, [4]]
    altered: list[dict[str, object]] = [{"generation": generation} for generation in generations]
    altered += [{"epoch": -1}, {"epoch": "0"}, {"artifacts": "x"}, {"artifacts": [1]}]
    path.write_bytes(sealed(template.ledgers[NEWEST], **rng.choice(altered)))
    return None


def _of_the_future(path: Path, _rng: random.Random, template: Template) -> Reading:
    path.write_bytes(sealed(template.ledgers[NEWEST], format=99, generation=NEWEST + 9))
    return None


def _foreign(path: Path, _rng: random.Random, template: Template) -> Reading:
    path.write_bytes(template.foreign[0])
    return None


def _empty(path: Path, _rng: random.Random, _template: Template) -> Reading:
    path.write_bytes(b"")
    return None


def _other_document(path: Path, _rng: random.Random, _template: Template) -> Reading:
    shutil.copy(path.parent / ondisk.METADATA / "marker.json", path)
    return None


def _directory(path: Path, rng: random.Random, _template: Template) -> Reading:
    path.unlink()
    path.mkdir()
    if rng.random() < 0.5:
        (path / "somebody's").write_bytes(b"file")
    return None


def _fifo(path: Path, _rng: random.Random, _template: Template) -> Reading:
    path.unlink()
    os.mkfifo(path)
    return None


def _link(path: Path, rng: random.Random, template: Template) -> Reading:
    path.unlink()
    path.symlink_to(rng.choice(["/dev/zero", "nowhere", str(template.root / "a" / ondisk.LEDGER)]))
    return None


def _absent(path: Path, _rng: random.Random, _template: Template) -> Reading:
    path.unlink()
    return None


MISTREATMENTS: Final[dict[str, Mistreat]] = {
    "newest": _newest,
    "old": _old,
    "torn": _torn,
    "digit": _digit,
    "bit": _bit,
    "zeroed": _zeroed,
    "rival": _rival,
    "impossible": _impossible,
    "of the future": _of_the_future,
    "foreign": _foreign,
    "empty": _empty,
    "other document": _other_document,
    "directory": _directory,
    "fifo": _fifo,
    "link": _link,
    "absent": _absent,
}

CANNOT_BE_WRITTEN: Final = frozenset({"directory", "of the future"})
"""With one of these on every dataset no config can be kept, so none is accepted."""


def _mistreat_witness(path: Path, rng: random.Random, template: Template) -> tuple[str, int | None]:
    """What was done, and the generation that can be read from it."""
    how = rng.choice(["newest"] * 3 + ["old", "absent", "torn", "bit", "foreign", "empty", "fifo"])
    match how:
        case "newest":
            return how, NEWEST
        case "old":
            generation = rng.randrange(1, NEWEST)
            path.write_bytes(template.witnesses[generation])
            return how, generation
        case "absent":
            path.unlink()
        case "torn":
            os.truncate(path, rng.randrange(path.stat().st_size - 1))
        case "bit":
            _bit(path, rng, template)
        case "foreign":
            path.write_bytes(template.foreign[1])
        case "empty":
            path.write_bytes(b"")
        case _:
            path.unlink()
            os.mkfifo(path)
    return how, None


@dataclass(frozen=True)
class Expected:
    """What a node has to say.

    Attributes:
        generation: the highest it knows of.
        artifacts: what the config in force names; None: none is in force.
    """

    standing: str
    generation: int | None
    artifacts: frozenset[str] | None = None

    @property
    def deletes(self) -> bool:
        """There is a config to delete by, and it is not the one that was accepted last."""
        return self.artifacts is not None and self.artifacts != names(NEWEST)

    @classmethod
    def of(cls, readings: list[Reading], witness: int | None, *, absent: int) -> Expected:
        found = [reading for reading in readings if reading is not None]
        if not found and witness is None:
            return cls("empty" if absent == len(readings) else "unknown", None)
        newest = max((generation for generation, _ in found), default=0)
        if witness is not None and witness > newest:
            return cls("behind", witness)
        contents = {artifacts for generation, artifacts in found if generation == newest}
        if witness == newest:
            contents.add(names(newest))
        if len(contents) > 1:
            return cls("conflicted", newest)
        return cls("clear", newest, contents.pop())


def _run(plan: Plan) -> Outcome:
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(dir=memory_dir()) as root:
        # Made in the first run: a store that cannot even found a node breaks a rule, too.
        template = cache(lambda: Template.make(Path(root) / "template"))
        return strike_each(plan, lambda seed: _strike(template(), seed, counts), counts)


def _strike(template: Template, seed: int, counts: Counter[str]) -> None:
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory(dir=memory_dir()) as found:
        root = Path(found)
        template.copy(root)
        paths = [root / "a", root / "b"]
        chosen = [rng.choice([*MISTREATMENTS]) for _ in paths]
        readings = [
            MISTREATMENTS[how](path / ondisk.LEDGER, rng, template)
            for how, path in zip(chosen, paths, strict=True)
        ]
        how, witness = _mistreat_witness(root / "state" / "witness.json", rng, template)
        expected = Expected.of(readings, witness, absent=chosen.count("absent"))
        counts[expected.standing] += 1
        child = Child.fork(partial(_judge, root, chosen, expected))
        try:
            for event in child.rest():
                raise AssertionError(f"unexpected: {event}")
            status = child.wait()
            assert status == 0, f"the process ended with {status}"
        except AssertionError as error:
            error.add_note(f"A {chosen[0]}, B {chosen[1]}, witness {how}; expected {expected}")
            raise
        finally:
            child.reap()


def _judge(root: Path, chosen: list[str], expected: Expected, _tell: Tell) -> None:
    asyncio.run(_judge_store(root, chosen, expected))


async def _judge_store(root: Path, chosen: list[str], expected: Expected) -> None:
    paths, state = [root / "a", root / "b"], root / "state"
    async with await ArtifactStore.open(paths, state_dir=state, options=OPTIONS) as store:
        status = store.status()
        assert status.ledger == expected.standing, f"found {status.ledger}"
        if expected.generation is not None:
            assert status.generation == expected.generation, f"G1 found {status.generation}"
        await store.reconcile()
        if expected.artifacts is not None:
            found = frozenset(map(str, store.config().artifacts))
            assert found == expected.artifacts, f"G1 contents {sorted(found)}"
        if not expected.deletes:
            await _judge_kept(paths, chosen)
        if set(chosen) == {"of the future"}:
            return  # no dataset is used at all
        await _judge_refusals(store, expected)
        if expected.standing == "unknown" or CANNOT_BE_WRITTEN.issuperset(chosen):
            return
        await store.put_config(config_of(NEWEST + 1))
        content = CONTENTS[NEWEST + 1]
        async with store.begin_put(hash_of(content), Generation(NEWEST + 1), len(content)) as put:
            await put.receive(BytesSource(content))
    await _judge_next_start(paths, state)


async def _judge_kept(paths: list[Path], chosen: list[str]) -> None:
    for path, how in zip(paths, chosen, strict=True):
        kept = await asyncio.to_thread(ondisk.artifact_files, path)
        gone = sorted(names(NEWEST) - kept.keys())
        assert gone == [], f"D1 {how}: {gone}"


async def _judge_refusals(store: ArtifactStore, expected: Expected) -> None:
    if expected.standing == "empty":
        return
    lower = [g for g in range(NEWEST + 1) if g < (expected.generation or NEWEST + 1)]
    if expected.standing == "conflicted" and expected.generation is not None:
        lower.append(expected.generation)
    for generation in lower:
        try:
            await store.put_config(config_of(generation))
        except LedgerUnknown:
            assert expected.standing == "unknown", "a first config was refused"
        except ConfigGeneration:
            assert expected.standing != "unknown"
        else:
            raise AssertionError(f"G1 generation {generation} was accepted")


async def _judge_next_start(paths: list[Path], state: Path) -> None:
    """What was accepted after all that is in force when the node is started again."""
    async with await ArtifactStore.open(paths, state_dir=state, options=OPTIONS) as store:
        status = store.status()
        assert (status.ledger, status.generation) == ("clear", NEWEST + 1), f"G1 {status}"
        with await store.open_artifact(hash_of(CONTENTS[NEWEST + 1])) as opened:
            content = await asyncio.to_thread(os.pread, opened.fd, opened.size_bytes + 1, 0)
        assert content == CONTENTS[NEWEST + 1], "B2"
        try:
            await store.put_config(config_of(NEWEST))
        except DepotError:
            return
        raise AssertionError(f"G1 generation {NEWEST} was accepted after {NEWEST + 1}")


CAMPAIGN: Final = Campaign(
    "ledger",
    "ledgers and witness torn, altered, swapped, taken from elsewhere, or no files at all",
    runs=5000,
    slice_runs=40,
    run=_run,
)
