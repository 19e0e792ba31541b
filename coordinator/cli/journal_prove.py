"""`depot-coordinator journal prove`: that an entry is in the journal, with it or with a file."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path

import click

from agent.cli.failures import ExitCode, Failure
from agent.cli.formats import plural
from agent.cli.options import Number
from agent.cli.output import Output, reporting
from agent.wire.fields import timestamp
from coordinator.cli import options
from coordinator.cli.journal_files import feed, known_keys, lines_of
from coordinator.cli.options import Common
from coordinator.cli.servers import coordinator
from coordinator.journal.checkpoints import opened
from coordinator.journal.notes import BadNote, VerifierKey
from coordinator.journal.proofs import BadProof, verify_inclusion
from coordinator.journal.proving import Proved, Prover
from coordinator.journal.tree import leaf_hash
from coordinator.journal_wire import CheckpointBody, EntryBody, ProofBody

_FILE = click.Path(path_type=Path, dir_okay=False, exists=True)


@click.command("prove", short_help="Prove that an entry is in the journal.")
@click.argument("index", metavar="INDEX", type=Number(min=0))
@click.option("--keys", type=_FILE, help="Believe only the keys in this file.")
@click.option(
    "--export", "file", type=_FILE, help="Prove it with this export; no coordinator is asked."
)
@options.shared
def prove(common: Common, index: int, keys: Path | None, file: Path | None) -> None:
    """Prove that an entry is in the journal, and verify the proof here.

    With --json the whole proof is told, for other programs to verify.
    """
    with reporting(common) as output:
        asyncio.run(_prove(common, output, index, keys, file))


async def _prove(
    common: Common, output: Output, index: int, keys: Path | None, file: Path | None
) -> None:
    known = await asyncio.to_thread(known_keys, keys)
    try:
        proof = await _proof(common, index, file, known)
        shard = proof.checkpoint.shard
        if known and shard not in known:
            raise BadNote(f"{keys} has no key of its shard {shard}")
        key = known.get(shard) or VerifierKey.parse(proof.checkpoint.verifier_key)
        _verify(proof, key)
    except (BadNote, BadProof) as error:
        raise Failure(f"entry {index} is not proved: {error}", ExitCode.WRONG_BYTES) from error
    if not known:
        whose = "the coordinator" if file is None else file
        output.warning(f"the key of shard {shard} is what {whose} says it is; see --keys")
    lines = [
        f"entry {index} is in shard {shard} of {plural(proof.tree_size, 'entry')}",
        f"key {key}",
        *proof.checkpoint.note.splitlines(),
    ]
    output.document(proof.model_dump(mode="json"), lines)


async def _proof(
    common: Common, index: int, file: Path | None, known: Mapping[str, VerifierKey]
) -> ProofBody:
    if file is None:
        async with coordinator(common) as client:
            return await client.journal.proof(index)
    prover = Prover(index, known)
    await feed(prover, lines_of(file), str(file))
    return _told(prover.end())


def _told(proved: Proved) -> ProofBody:
    """As a coordinator tells it that still has the entry."""
    said = json.loads(proved.content)
    entry = EntryBody(
        index=proved.index,
        id=said["id"],
        time=timestamp(said["time"]),
        kind=said["kind"],
        shard=proved.shard_id,
        position=proved.position,
        content=proved.content,
        leaf_hash=proved.leaf.hex(),
    )
    checkpoint = CheckpointBody(
        shard=proved.shard_id,
        first_index=proved.index - proved.position,
        size=proved.size,
        note=proved.note,
        verifier_key=str(proved.key),
    )
    hashes = tuple(each.hex() for each in proved.hashes)
    return ProofBody(entry=entry, tree_size=proved.size, hashes=hashes, checkpoint=checkpoint)


def _verify(proof: ProofBody, key: VerifierKey) -> None:
    checkpoint = opened(proof.checkpoint.note, key)
    verify_inclusion(
        leaf_hash(proof.entry.content.encode()),
        proof.entry.index - proof.checkpoint.first_index,
        checkpoint.size,
        tuple(map(bytes.fromhex, proof.hashes)),
        checkpoint.root,
    )
