"""A group of commands each of which is imported when it is asked for.

Whoever wants to see a status, or a release copied, need not wait until a daemon was imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import click


class LazyGroup(click.Group):
    """Commands by name, as `module:attribute`; the help of the group imports them all."""

    def __init__(self, *args: Any, homes: Mapping[str, str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._homes = dict(homes)

    def list_commands(self, _context: click.Context) -> list[str]:
        """The names, as they are shown."""
        return sorted(self._homes)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """Import a command, unless it was."""
        if name not in self.commands and (home := self._homes.get(name)):
            module, _, attribute = home.partition(":")
            self.add_command(getattr(import_module(module), attribute), name)
        return super().get_command(context, name)

    def load(self) -> None:
        """Import every command, so that `commands` has them all, in the order given."""
        context = click.Context(self)
        found = {name: self.get_command(context, name) for name in self._homes}
        self.commands = {name: command for name, command in found.items() if command is not None}
