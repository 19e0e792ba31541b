"""What all parts of a run share: the directory, the artifact, the agents, the watch over memory."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Final

from tests.benchmarks import processes
from tests.benchmarks.body import Body
from tests.benchmarks.measure import MIB, Contender, Sample, alternate
from tests.benchmarks.node import Node, environment
from tests.benchmarks.processes import Memory, MemoryWatch
from tests.benchmarks.scale import Scale
from tests.system.agents import RunningAgent

_AGENT: Final = "agent "


class Rig:
    """One run's means. Made with `rig`."""

    def __init__(self, directory: Path, scale: Scale, stack: ExitStack) -> None:
        self.directory = directory
        self.scale = scale
        self.memory = stack.enter_context(MemoryWatch())
        self._stack = stack
        self._nodes: dict[str, Node] = {}
        self._homes = count()

    @cached_property
    def body(self) -> Body:
        """The large artifact."""
        return Body(self.directory / "body", self.scale.size_bytes)

    @property
    def size_text(self) -> str:
        return f"{self.scale.size_bytes // MIB} MiB"

    def pairs(
        self, ours: Contender | None, theirs: Contender | None
    ) -> tuple[list[Sample], list[Sample]]:
        """Let both run in turn, as often as this run has rounds."""
        processes.measured.clear()  # what was done until here had to be, and is not the work
        return alternate(self.scale.rounds, ours, theirs)

    def home(self) -> Path:
        """The path of a directory that nobody has made yet."""
        return self.directory / f"home-{next(self._homes)}"

    def node(self, name: str, settings: Mapping[str, str] | None = None) -> Node:
        """The agent of that name, started when it is first asked for; its memory is watched."""
        if name not in self._nodes:
            agent = RunningAgent(self.directory / name, env=environment(settings or {}))
            self._stack.enter_context(agent)
            self._nodes[name] = Node(agent)
        self.watch(self._nodes[name])
        return self._nodes[name]

    @contextmanager
    def fresh_node(
        self, settings: Mapping[str, str] | None = None, *, keep: bool = False
    ) -> Iterator[Node]:
        """An agent that has done nothing yet, for a block; to `keep` its files until the run ends.

        For minutes after many files were deleted, ext4 looks at each of their inodes again whenever
        a file is made, so that thousands of new ones take several times as long.
        """
        home = self.home()
        with RunningAgent(home, env=environment(settings or {})) as agent:
            node = Node(agent)
            self.watch(node)
            yield node
        if not keep:
            shutil.rmtree(home)

    def watch(self, node: Node) -> None:
        """Keep the peak of an agent's memory."""
        self.memory.watch(f"{_AGENT}{node.agent.home.name} {node.pid}", node.pid)

    def peaks(self) -> tuple[Memory | None, Memory | None]:
        """Peaks since `memory.phase`: the most of any agent, the most of any other server."""
        ours, theirs = None, None
        for name, peak in self.memory.peaks().items():
            if name.startswith(_AGENT):
                ours = peak.most(ours or Memory())
            else:
                theirs = peak.most(theirs or Memory())
        return ours, theirs

    def beside(self, dataset_of: Node) -> tuple[Path, ...]:
        """Where raw writes go: as many files as the agent has datasets, on the same disk."""
        home = self.directory / "raw"
        home.mkdir(exist_ok=True)
        return tuple(home / dataset.name for dataset in dataset_of.agent.datasets)


@contextmanager
def rig(parent: Path, scale: Scale) -> Iterator[Rig]:
    """Make a directory in `parent`, and leave nothing of it behind, nor any process."""
    with ExitStack() as stack:
        made = stack.enter_context(tempfile.TemporaryDirectory(prefix="sled-bench-", dir=parent))
        yield Rig(Path(made), scale, stack)
