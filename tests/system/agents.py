"""Real agents for system tests: one `sled-agent run` process each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from agent.config.loading import load
from agent.config.settings import state_directory
from depot.initialise import init_datasets
from tests.system.programs import BIN as BIN  # for tests that run commands beside an agent
from tests.system.programs import RunningProgram, quoted


class RunningAgent(RunningProgram):
    """One agent: made with `RunningAgent(tmp_path / "a").start()` or as a context manager.

    `home` holds everything: `agent.toml`, `ready.json`, `agent.log`, `state/` and one directory
    per dataset (`m2-0`, `m2-1`). Settings beyond those are given as environment variables, such as
    `{"SLED_AGENT__STORAGE__QUOTA": "1MiB"}`, and may be changed between `stop` and `start`.
    """

    program: ClassVar = "sled-agent"
    kind: ClassVar = "agent"

    def __init__(
        self, home: Path, *, datasets: int = 2, env: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(home, env)
        self.datasets = tuple(home / f"m2-{index}" for index in range(datasets))
        self.agent_url = ""
        self.depot_url = ""

    def prepare(self) -> Self:
        """Create the directories, the configuration and the dataset markers; idempotent.

        It does what `sled-agent init` does, without a process: that takes half a second, and there
        are hundreds of agents. The command has tests of its own.
        """
        for path in (self.home, *self.datasets):
            path.mkdir(parents=True, exist_ok=True)
        self.config_path.write_text(_config(self.home / "state", self.datasets))
        environment = self._environment()
        settings = load(self.config_path, environment)
        state_dir = state_directory(settings, environment)
        init_datasets(settings.dataset_paths, sled_id=settings.sled_id, state_dir=state_dir)
        return self

    def take_addresses(self, ready: Mapping[str, Any]) -> None:
        """See `RunningProgram`."""
        self.agent_url, self.depot_url = ready["agent_url"], ready["depot_url"]


def _config(state_dir: Path, datasets: Sequence[Path]) -> str:
    lines = [f"state_dir = {quoted(state_dir)}"]
    lines += ["[agent]", 'listen = "127.0.0.1:0"', "[depot]", 'listen = "127.0.0.1:0"']
    for path in datasets:
        lines += ["[[datasets]]", f"path = {quoted(path)}"]
    return "\n".join(lines) + "\n"
