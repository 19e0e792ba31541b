"""Configuration from the environment: `PREFIX__SECTION__KEY=value`, the prefix a program's own.

An environment variable is text, so each is read as the type of its key says; text that cannot be
read so is passed on as it is, and the models refuse it like any other wrong value. Variables win
over the file. A variable with our prefix that is no key is a mistake, not somebody else's.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, get_origin

from agent.config.keys import Form, Key

_BOOLEANS: Final = {"true": True, "false": False}


@dataclass(frozen=True, slots=True)
class Overlay:
    """What the environment sets: values and variable names by place; names that are no key."""

    values: Mapping[tuple[str, ...], object] = field(default_factory=dict)
    variables: Mapping[tuple[str, ...], str] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()


def read_environment(form: Form[Any], environ: Mapping[str, str]) -> Overlay:
    """Pick our variables out of `environ` and read each by the type of its key."""
    ours = sorted(name for name in environ if name.startswith(form.prefix))
    known = {name: form.by_variable[name] for name in ours if name in form.by_variable}
    return Overlay(
        values={key.place: _read(key, environ[name], form) for name, key in known.items()},
        variables={key.place: name for name, key in known.items()},
        unknown=tuple(name for name in ours if name not in known),
    )


def overlaid(table: Mapping[str, object], overlay: Overlay) -> dict[str, object]:
    """Return `table` with the environment's values in it.

    A section that is no table in the file stays as it is: the models name that mistake.
    """
    merged = dict(table)
    for place, value in overlay.values.items():
        *sections, key = place
        target = merged
        for section in sections:
            inner = target.setdefault(section, {})
            if not isinstance(inner, dict):
                break
            target[section] = target = dict(inner)
        else:
            target[key] = value
    return merged


def _read(key: Key, text: str, form: Form[Any]) -> object:
    if key.name in form.arrays:
        return [{"path": path} for path in _list(text)]
    if get_origin(key.annotation) is tuple:
        return _list(text)
    if key.annotation is bool:
        return _BOOLEANS.get(text.lower(), text)
    if key.annotation in (int, float):
        return _number(text)
    return text


def _number(text: str) -> object:
    reader: Callable[[str], object]
    for reader in (int, float):
        try:
            return reader(text)
        except ValueError:
            pass
    return text


def _list(text: str) -> list[object]:
    """Read a JSON array, or values separated by commas; nothing is the empty list."""
    if text.lstrip().startswith("["):
        try:
            return list(json.loads(text))
        except ValueError:
            pass
    return [part.strip() for part in text.split(",")] if text.strip() else []
