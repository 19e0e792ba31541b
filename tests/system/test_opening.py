"""A start of which one half fails while the other one runs: the store, or what is imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.agents import RunningAgent

# The module waits or fails as it is executed: while it is looked for, an import of any other module
# in any other thread would wait as well.
BEGIN = """
import importlib.abc, importlib.machinery, sys, threading
class Importer(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path, target=None):
        if name == "agent.assembly":
            return importlib.machinery.ModuleSpec(name, self)
    def exec_module(self, module):
        {what}
sys.meta_path.insert(0, Importer())
from agent.cli.sled_agent import main
sys.argv = ["sled-agent", "run", "--config", {config!r}]
main()
"""


def start(agent: RunningAgent, what: str) -> subprocess.CompletedProcess[str]:
    """Run an agent where this happens instead of the import of what serves."""
    code = BEGIN.format(what=what, config=str(agent.config_path))
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_why_a_store_cannot_be_opened_is_said_at_once(tmp_path: Path) -> None:
    agent = RunningAgent(tmp_path).prepare()
    with RunningAgent(tmp_path):
        done = start(agent, "threading.Event().wait()")
    assert done.returncode == 1
    assert "another agent" in done.stderr
    assert "leaving" not in done.stderr


@pytest.mark.parametrize("error", ["OSError(5, 'Input/output error')", "ImportError('torn')"])
def test_what_cannot_be_imported_is_named(tmp_path: Path, error: str) -> None:
    done = start(RunningAgent(tmp_path).prepare(), f"raise {error}")
    assert (done.returncode, done.stdout) == (1, "")
    assert "sled-agent: agent.assembly cannot be imported: " in done.stderr
    assert "state directory" not in done.stderr
