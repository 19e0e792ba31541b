"""One artifact to many nodes behind slow links: how close to the time of one transfer?

The nodes form a chain: each copies from the one before while that is still receiving.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import datetime
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Final

from tests.benchmarks import clients, programs
from tests.benchmarks.body import Body
from tests.benchmarks.measure import MIB, SECONDS, Row, Sample, Side, Target, alone, at_most
from tests.benchmarks.network import Network, Unavailable
from tests.benchmarks.node import RUNNING, Node, environment
from tests.benchmarks.processes import cpu_of
from tests.benchmarks.raw import settle
from tests.benchmarks.rig import Rig
from tests.system.agents import RunningAgent

AGENT_PORT: Final = 12345
DEPOT_PORT: Final = 12348
# A question is an answer on a link that is meant for the artifact.
ASK_AGAIN_S: Final = 0.02
LOOK_AGAIN_S: Final = 0.25
PATIENCE_S: Final = 600.0
STARTED_AT_ONCE: Final = 4


def fan_out(nodes: int, mbit_per_s: int, target: float | None = None) -> Callable[[Rig], list[Row]]:
    """The measurement with so many nodes behind links of that rate."""
    bound = None if target is None else at_most(target)
    return partial(_fan_out, nodes=nodes, mbit_per_s=mbit_per_s, target=bound)


def _fan_out(rig: Rig, *, nodes: int, mbit_per_s: int, target: Target | None) -> list[Row]:
    key, nodes = f"fanout-{nodes}", min(nodes, rig.scale.max_nodes)
    size = f"{rig.scale.fan_out_bytes // MIB} MiB"
    work = f"{size} to {nodes} nodes behind {mbit_per_s} Mbit/s each, in a chain"
    link = f"limit: {size} with curl, once over one link of {mbit_per_s} Mbit/s"
    ideal_s = rig.scale.fan_out_bytes * 8 / (mbit_per_s * 1e6)
    try:
        with ExitStack() as stack:
            network = stack.enter_context(Network.of(nodes + 1, mbit_per_s))
            fleet = _start(rig, network, stack)
            body = Body(rig.directory / "fan-out", rig.scale.fan_out_bytes)
            with network.inside(0):
                fleet[0].want(body.sha256)
                fleet[0].put(body)
            with network.inside(1):
                once = [] if programs.missing("curl") else [_curl(fleet[0], body)]
            with network.inside():
                runs = [_round(fleet, body) for _ in range(rig.scale.rounds)]
    except Unavailable as error:
        return [alone(key, work, (), SECONDS, note=str(error))]
    return [
        _against_ideal(key, work, runs, ideal_s, target),
        _against_ideal(f"{key}-link", link, once, ideal_s, None),
    ]


def _against_ideal(
    key: str, work: str, runs: Sequence[Sample], ideal_s: float, target: Target | None
) -> Row:
    costs = [run.cpu_s / run.amount for run in runs if run.cpu_s is not None]
    times_s = tuple(run.seconds for run in runs)
    return Row(
        key=key,
        work=work,
        unit=SECONDS,
        here=Side(each=times_s, cpu=min(costs) * SECONDS.cost_scale if costs else None),
        there=Side("size / rate", (ideal_s,)),
        ratios=tuple(time_s / ideal_s for time_s in times_s),
        target=target,
    )


def _start(rig: Rig, network: Network, stack: ExitStack) -> list[Node]:
    home = rig.home()
    agents = [_agent(home, network, index) for index in range(network.nodes)]
    for agent in agents:
        stack.callback(agent.close)
    with ThreadPoolExecutor(STARTED_AT_ONCE) as threads:
        list(threads.map(partial(_start_inside, network), range(network.nodes), agents))
    fleet = [Node(agent) for agent in agents]
    # All do the same: the ends of the chain stand for what is between.
    for node in (fleet[0], fleet[1], fleet[-1]):
        rig.watch(node)
    return fleet


def _agent(home: Path, network: Network, index: int) -> RunningAgent:
    settings = {
        "agent.listen": f"{network.address(index)}:{AGENT_PORT}",
        "depot.listen": f"{network.address(index)}:{DEPOT_PORT}",
        "copy.allowed_sources": "10.0.0.0/8",
    }
    return RunningAgent(home / f"node-{index}", env=environment(settings))


def _start_inside(network: Network, index: int, agent: RunningAgent) -> None:
    with network.inside(index):
        agent.start()


def _curl(source: Node, body: Body) -> Sample:
    seconds = clients.fetch(source.artifact_url(body.sha256), body.size_bytes, 1)
    return Sample.of_bytes(body.size_bytes, seconds)


def _round(fleet: Sequence[Node], body: Body) -> Sample:
    """Have everyone copy: until the last one has it, durable and verified on its mirrors."""
    receivers = fleet[1:]
    for node in receivers:
        node.send_config(())
    for node in receivers:
        node.wait_dropped(())
        node.send_config((body.sha256,))
    settle()
    with cpu_of(*(node.pid for node in receivers)) as cpu:
        began_s = time.time()
        ids = [_begin(node, body.sha256, source) for source, node in pairwise(fleet)]
        finished_s = [_finished_s(node, each) for node, each in zip(receivers, ids, strict=True)]
    size_mib = body.size_bytes / MIB * len(receivers)
    return Sample(size_mib, max(finished_s) - began_s, cpu.seconds)


def _begin(node: Node, sha256: str, source: Node) -> str:
    deadline_s = time.monotonic() + PATIENCE_S
    while (copy_id := node.begin_copy(sha256, source)) is None:
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"{source.agent.depot_url} does not get {sha256}")
        time.sleep(ASK_AGAIN_S)
    return copy_id


def _finished_s(node: Node, copy_id: str) -> float:
    """When a copy came to its end, as the node itself noted it: Unix time."""
    deadline_s = time.monotonic() + PATIENCE_S
    while (record := node.copy_record(copy_id))["state"] == RUNNING:
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"{node.agent.depot_url} still copies after {PATIENCE_S:.0f} s")
        time.sleep(LOOK_AGAIN_S)
    node.check_mirrored(record)
    return datetime.fromisoformat(record["finished_at"]).timestamp()
