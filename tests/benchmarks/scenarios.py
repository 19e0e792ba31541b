"""The parts of the benchmark: each makes its contenders run in turn, and tells what came of it."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Final

from tests.benchmarks import programs, raw
from tests.benchmarks.measure import (
    MIB,
    Contender,
    Row,
    Sample,
    Spread,
    Target,
    alone,
    alternate,
    versus,
)
from tests.benchmarks.node import Node
from tests.benchmarks.processes import cpu_of
from tests.benchmarks.rig import Rig

GET_TARGET: Final = Target(0.7)
VERIFIED_TARGET: Final = Target(0.8)
PUT_TARGET: Final = Target(0.6)
COPY_TARGET: Final = Target(1.0)
MEMORY_TARGET: Final = Target(150, at_least=False, unit="MiB")
SCRIPT: Final = "SHA-256 pass, then 2 writes + fsync"
CURL: Final = "curl -o, then sha256sum (1 copy)"


def get(rig: Rig) -> list[Row]:
    """GET of one large artifact: beside nginx on the same file, beside a hash, and a socket."""
    node = _stocked(rig, "unchecked", verify_reads="never")
    rows = [_get(rig, node, connections) for connections in (1, 8)]
    rows.append(_get_verified(rig))
    runs = alternate(rig.rounds, {"socket": lambda: raw.socket_copy(rig.size_bytes)})
    return [*rows, alone("limit-socket", "limit: loopback socket copy", runs["socket"])]


def _get(rig: Rig, node: Node, connections: int) -> Row:
    work = f"GET {rig.size_text}, {_count(connections, 'connection')}, not verified"
    missing = programs.missing("curl", "nginx")
    with ExitStack() as stack:
        contenders: dict[str, Contender] = {}
        if "curl" not in missing:
            url = node.artifact_url(rig.body.sha256)
            contenders["agent"] = partial(_fetch, rig, url, node.pid, connections)
        if not missing:
            home = rig.directory / f"nginx-{connections}"
            base, pid = stack.enter_context(programs.nginx(home, node.agent.datasets[0]))
            url = f"{base}/{rig.body.sha256}"
            contenders["nginx"] = partial(_fetch, rig, url, pid, connections)
        for warm_up in contenders.values():
            warm_up()
        runs = alternate(rig.rounds, contenders)
    return versus(
        f"get-{connections}",
        work,
        runs.get("agent", []),
        "nginx, sendfile, 1 worker",
        runs.get("nginx", []),
        target=GET_TARGET,
        note=_not_found(missing),
    )


def _get_verified(rig: Rig) -> Row:
    node = _stocked(rig, "checked", verify_reads="always")
    file = node.agent.datasets[0] / rig.body.sha256
    missing = programs.missing("curl")
    contenders: dict[str, Contender] = {"sha256": lambda: raw.sha256_pass(file)}
    if not missing:
        url = node.artifact_url(rig.body.sha256)
        contenders["agent"] = partial(_fetch, rig, url, node.pid, 1)
    runs = alternate(
        rig.rounds, {name: partial(_cold, file, run) for name, run in contenders.items()}
    )
    return versus(
        "get-verified",
        f"GET {rig.size_text}, every block verified, from the disk",
        runs.get("agent", []),
        "one SHA-256 pass, from the disk",
        runs["sha256"],
        target=VERIFIED_TARGET,
        note=_not_found(missing),
    )


def _cold(file: Path, run: Contender) -> Sample:
    raw.forget(file)
    return run()


def _fetch(rig: Rig, url: str, pid: int, connections: int) -> Sample:
    with cpu_of(pid) as cpu:
        seconds = programs.fetch(url, rig.size_bytes, connections)
    return Sample(rig.size_bytes * connections, seconds, cpu.seconds)


def put(rig: Rig) -> list[Row]:
    """PUT of an artifact that is new each time, beside what a script and the disk need for it."""
    node, targets, body = rig.node("source"), rig.targets(), rig.body

    def agent() -> Sample:
        node.want(body.change())
        return node.put(body)

    contenders: dict[str, Contender] = {
        "agent": agent,
        "script": lambda: raw.hash_then_write_twice(body.path, targets),
        "sha256": lambda: raw.sha256_pass(body.path),
    }
    note = ""
    try:
        raw.write_twice_directly(rig.size_bytes, targets)
        contenders["direct"] = lambda: raw.write_twice_directly(rig.size_bytes, targets)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        note = "this filesystem has no direct I/O"
    agent()
    runs = alternate(rig.rounds, contenders)
    work, direct = f"PUT {rig.size_text}, 2 mirrors", runs.get("direct", [])
    return [
        versus("put", work, runs["agent"], SCRIPT, runs["script"], target=PUT_TARGET),
        versus("put-direct", work, runs["agent"], "2 raw O_DIRECT writes", direct, note=note),
        alone("limit-sha256", "limit: one SHA-256 pass", runs["sha256"]),
        alone("limit-direct", "limit: 2 raw O_DIRECT writes, in parallel", direct, note=note),
    ]


def copy(rig: Rig) -> list[Row]:
    """A copy from agent to agent, beside fetching the same artifact from the same depot."""
    source, target = _stocked(rig), rig.node("target")
    url = source.artifact_url(rig.body.sha256)
    contenders: dict[str, Contender] = {"agent": partial(_copy, rig, source, target)}
    missing = programs.missing("curl", "sha256sum")
    if not missing:
        contenders["curl"] = partial(_curl, rig, url, check=False)
        contenders["curl-check"] = partial(_curl, rig, url, check=True)
    for warm_up in contenders.values():
        warm_up()
    runs = alternate(rig.rounds, contenders)
    work, ours = f"copy {rig.size_text}, agent to agent, 2 mirrors", runs["agent"]
    plain, checked = runs.get("curl", []), runs.get("curl-check", [])
    note = _not_found(missing)
    return [
        versus("copy", work, ours, CURL, checked, target=COPY_TARGET, note=note),
        versus("copy-curl", work, ours, "curl -o alone (1 copy, no hash)", plain, note=note),
    ]


def _copy(rig: Rig, source: Node, target: Node) -> Sample:
    target.want()
    target.want(rig.body.sha256)
    return target.copy(rig.body.sha256, rig.size_bytes, source)


def _curl(rig: Rig, url: str, *, check: bool) -> Sample:
    file = rig.directory / "fetched"
    began_s = time.perf_counter()
    programs.curl_to_file(url, file, rig.size_bytes)
    found = programs.sha256sum(file) if check else rig.body.sha256
    seconds = time.perf_counter() - began_s
    if found != rig.body.sha256:
        raise RuntimeError(f"curl: expected {rig.body.sha256}, found {found}")
    raw.remove([file])
    return Sample(rig.size_bytes, seconds)


def memory(rig: Rig) -> Row:
    """The largest resident size that any agent had in any part of the run."""
    peaks_mib = {
        f"{name} agent in {phase}": peak_bytes / MIB
        for phase, peaks in rig.memory.peaks_bytes().items()
        for name, peak_bytes in peaks.items()
    }
    note = ", ".join(f"{what} {peak_mib:.0f}" for what, peak_mib in peaks_mib.items())
    value = Spread.of([max(peaks_mib.values(), default=0.0)])
    return Row(
        key="memory",
        work="peak RSS of an agent",
        value=value,
        unit="MiB",
        target=MEMORY_TARGET,
        note=note,
    )


def _stocked(rig: Rig, name: str = "source", *, verify_reads: str = "auto") -> Node:
    """An agent, with the body as it is now."""
    node = rig.node(name, verify_reads=verify_reads)
    node.want(rig.body.sha256)
    node.put(rig.body)
    return node


def _not_found(missing: Sequence[str]) -> str:
    return f"not found on this machine: {', '.join(missing)}" if missing else ""


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


SCENARIOS: Final[Mapping[str, Callable[[Rig], list[Row]]]] = {"get": get, "put": put, "copy": copy}
