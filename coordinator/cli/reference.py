"""The reference of `depot-coordinator`, docs/coordinator-cli.md, made from the command itself.

`python -m coordinator.cli.reference > docs/coordinator-cli.md` makes it anew; a test says when it
is stale.
"""

from __future__ import annotations

from collections.abc import Iterator

from agent.cli.reference import verbs
from coordinator.cli.depot_coordinator import EXIT_CODES, depot_coordinator
from coordinator.cli.options import COORDINATOR_VARIABLE, DEFAULT_URL

_INTRODUCTION = f"""# The `depot-coordinator` command

`run` is the server; the other verbs talk to one, which is found by `--coordinator URL`, else by
`{COORDINATOR_VARIABLE}`, else at `{DEFAULT_URL}`. The options of every verb may stand before or
after it. What it is all for is in [coordinator.md](coordinator.md).

```console
$ depot-coordinator trust add root.json
$ depot-coordinator release upload release.zip
$ depot-coordinator wait --release 1.2.0 --timeout 600
$ depot-coordinator status
```

Results are on stdout; progress, notes and errors on stderr. With `--json`, stdout has one JSON
document; when the command fails, it has an `error` with `exit_code`, `code`, `message` and often
`hint`, `request_id` and `details`.

The page is made from the command: `python -m coordinator.cli.reference > docs/coordinator-cli.md`.
"""


def pages() -> Iterator[str]:
    """The parts of the page, in order."""
    yield _INTRODUCTION
    yield "## Exit status\n\n| status | meaning |\n|---|---|"
    for code, meaning in EXIT_CODES.items():
        yield f"| {code} | {meaning} |"
    yield "\n## Verbs"
    yield from verbs(depot_coordinator, "depot-coordinator")


def text() -> str:
    """The whole page."""
    return "\n".join(pages()) + "\n"


if __name__ == "__main__":
    print(text(), end="")
