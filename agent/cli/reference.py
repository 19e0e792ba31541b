"""The reference of the `depot` command, docs/cli.md, made from the command itself.

`python -m agent.cli.reference > docs/cli.md` makes it anew; a test says when it is stale.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import click

from agent.cli.depot import depot
from agent.cli.failures import EXIT_CODES, HINTS
from agent.cli.lazy import LazyGroup
from agent.cli.options import (
    AGENT_VARIABLE,
    DEFAULT_AGENT_URL,
    DEFAULT_DEPOT_URL,
    DEPOT_VARIABLE,
)

WIDTH = 88
_INTRODUCTION = f"""# The `depot` command

Talks to one node: its sled agent API (`--agent`) and its repo depot (`--depot`). `depot snapshot`
talks to an archive instead.

```console
$ depot put --add firmware.tar.gz            # on a node without a coordinator
$ depot --agent http://[fd00::2]:12345 copy 9953b7c2 --from http://[fd00::1]:12348
$ depot get 9953b7c2 -o firmware.tar.gz
$ depot status
```

The page is made from the command: `python -m agent.cli.reference > docs/cli.md`.

## Options of every verb

`--agent`, `--depot`, `--json` and `--quiet` may stand before or after the verb; the one closest to
the verb wins. What is not given comes from the environment, and then from the defaults.

| option | variable | default |
|---|---|---|
| `--agent URL` | `{AGENT_VARIABLE}` | `{DEFAULT_AGENT_URL}` |
| `--depot URL` | `{DEPOT_VARIABLE}` | `{DEFAULT_DEPOT_URL}` |

Results are on stdout; progress, notes and errors on stderr. Progress is a bar when stderr is a
terminal, and a plain line now and then when it is not. `NO_COLOR=1` leaves colours out.

With `--json`, stdout has one JSON document, or one per line for `events --follow` and
`copies --watch`. It has hashes and sizes whole. When the command fails, the document has an
`error` with `exit_code`, `code`, `message` and often `hint`, `request_id` and `details`, beside
whatever was done before.
"""


def pages() -> Iterator[str]:
    """The parts of the page, in order."""
    yield _INTRODUCTION
    yield "## Exit status\n\n| status | meaning |\n|---|---|"
    for code, meaning in EXIT_CODES.items():
        yield f"| {int(code)} | {meaning} |"
    yield "\n## Verbs"
    yield from verbs(depot, "depot")
    yield "\n## What to do about a refusal\n\n| code | what to do |\n|---|---|"
    for name, hint in HINTS.items():
        yield f"| `{name}` | {hint} |"


def verbs(program: click.Group, name: str) -> Iterator[str]:
    """The help of every verb of a program."""
    for path, command in _leaves(program, name):
        help_text = _help(path, command, program.context_settings)
        yield f"\n### `{path}`\n\n```text\n{help_text}\n```"


def _leaves(group: click.Group, path: str) -> Iterator[tuple[str, click.Command]]:
    if isinstance(group, LazyGroup):
        group.load()
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from _leaves(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


def _help(path: str, command: click.Command, settings: Mapping[str, Any]) -> str:
    context = click.Context(
        command,
        info_name=path,
        terminal_width=WIDTH,
        max_content_width=WIDTH,
        **settings,
    )
    return command.get_help(context)


def text() -> str:
    """The whole page."""
    return "\n".join(pages()) + "\n"


if __name__ == "__main__":
    print(text(), end="")
