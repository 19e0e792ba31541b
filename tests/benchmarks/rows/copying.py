"""A copy from agent to agent, beside fetching the same artifact from the same depot by hand."""

from __future__ import annotations

from functools import partial

from tests.benchmarks import clients, raw
from tests.benchmarks.measure import Contender, Row, Sample, Target, versus
from tests.benchmarks.node import Node
from tests.benchmarks.programs import missing, not_found
from tests.benchmarks.rig import Rig
from tests.benchmarks.rows.get import stocked


def curl(rig: Rig) -> list[Row]:
    source, lacking = stocked(rig, "source"), missing("curl")
    against = "curl -o (1 copy, no hash, no sync)"
    return [_row(rig, source, "copy-curl", against, partial(_curl, rig, source), lacking, 0.75)]


def tee(rig: Rig) -> list[Row]:
    source, lacking = stocked(rig, "source"), missing("curl", "tee", "sha256sum")
    against = "curl | tee a b | sha256sum; sync"
    return [_row(rig, source, "copy-tee", against, partial(_tee, rig, source), lacking, 4.0)]


def _row(
    rig: Rig,
    source: Node,
    key: str,
    against: str,
    by_hand: Contender,
    lacking: list[str],
    target: float,
) -> Row:
    run = partial(_copy, rig, source, rig.node("target"))
    theirs = None if lacking else by_hand
    for warm_up in (run, theirs):
        if warm_up is not None:
            warm_up()
    return versus(
        key,
        f"copy {rig.size_text}, agent to agent, 2 mirrors",
        rig.pairs(run, theirs),
        against,
        target=Target(target),
        note=not_found(lacking),
    )


def _copy(rig: Rig, source: Node, target: Node) -> Sample:
    target.want()
    target.want(rig.body.sha256)
    return target.copy(rig.body, source)


def _curl(rig: Rig, source: Node) -> Sample:
    file, body = rig.directory / "fetched", rig.body
    seconds = clients.curl_to_file(source.artifact_url(body.sha256), file, body.size_bytes)
    raw.remove([file])
    return Sample.of_bytes(body.size_bytes, seconds)


def _tee(rig: Rig, source: Node) -> Sample:
    files, body = [rig.directory / "fetched-a", rig.directory / "fetched-b"], rig.body
    seconds = clients.curl_tee(source.artifact_url(body.sha256), files, body.sha256)
    raw.remove(files)
    return Sample.of_bytes(body.size_bytes, seconds)
