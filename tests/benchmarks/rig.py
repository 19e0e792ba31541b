"""What all parts of a run share: the directory, the artifact, the agents, the watch over memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.benchmarks.body import Body
from tests.benchmarks.node import ENVIRONMENT, VERIFY_READS, Node
from tests.benchmarks.processes import MemoryWatch
from tests.system.agents import RunningAgent


class Rig:
    """One run's means. Made with `rig`."""

    def __init__(self, directory: Path, size_bytes: int, rounds: int, stack: ExitStack) -> None:
        self.directory = directory
        self.size_bytes = size_bytes
        self.rounds = rounds
        self.body = Body(directory / "body", size_bytes)
        self.memory = stack.enter_context(MemoryWatch())
        self._stack = stack
        self._nodes: dict[str, Node] = {}

    @property
    def size_text(self) -> str:
        return f"{self.size_bytes >> 20} MiB"

    def node(self, name: str, *, verify_reads: str = "auto") -> Node:
        """The agent of that name, started when it is first asked for."""
        if name not in self._nodes:
            agent = RunningAgent(
                self.directory / name, env=ENVIRONMENT | {VERIFY_READS: verify_reads}
            )
            self._stack.enter_context(agent)
            self._nodes[name] = Node(agent)
            self.memory.watch(name, agent.pid)
        return self._nodes[name]

    def targets(self) -> tuple[Path, ...]:
        """Where the raw writes go: beside the first agent's datasets, as many."""
        home = self.directory / "raw"
        home.mkdir(exist_ok=True)
        return tuple(home / dataset.name for dataset in self.node("source").agent.datasets)


@contextmanager
def rig(parent: Path, size_bytes: int, rounds: int) -> Iterator[Rig]:
    """Make a directory in `parent`, and leave nothing of it behind, nor any process."""
    with ExitStack() as stack:
        made = stack.enter_context(tempfile.TemporaryDirectory(prefix="sled-bench-", dir=parent))
        yield Rig(Path(made), size_bytes, rounds, stack)
