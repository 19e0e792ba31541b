"""Real coordinators for system tests: one `depot-coordinator run` process each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

from tests.system.programs import RunningProgram, quoted


class RunningCoordinator(RunningProgram):
    """One coordinator; it keeps the port that it got first over all its lives.

    `home` holds `coordinator.toml`, `ready.json`, `coordinator.log`, `staging/` and, without a
    database of its own, the SQLite file.
    """

    program: ClassVar = "depot-coordinator"
    kind: ClassVar = "coordinator"

    def __init__(
        self, home: Path, *, database_url: str | None = None, env: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(home, env)
        self.staging = home / "staging"
        self.url = ""
        self._database_url = database_url

    @property
    def staged(self) -> Path:
        """The dataset of the staging depot."""
        return self.staging / "artifacts"

    def prepare(self) -> Self:
        """Create the directory and the configuration; idempotent."""
        self.home.mkdir(parents=True, exist_ok=True)
        lines = ['listen = "127.0.0.1:0"', "[staging]", f"path = {quoted(self.staging)}"]
        if self._database_url is not None:
            lines += ["[database]", f"url = {json.dumps(self._database_url)}"]
        self.config_path.write_text("\n".join(lines) + "\n")
        return self

    def take_addresses(self, ready: Mapping[str, Any]) -> None:
        """See `RunningProgram`."""
        self.url = ready["url"]
        self.env["DEPOT_COORDINATOR__LISTEN"] = self.url.removeprefix("http://")
