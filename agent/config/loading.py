"""From a TOML file and the environment to `Settings`, or to every mistake in them at once.

Rules: a mistake names its place (file and line, or variable), what was expected and what was
found; one mistake never hides another, except that a file which is not TOML has no keys to check.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError

from agent.config.environment import Overlay, overlaid, read_environment
from agent.config.keys import AGENT, Form, S, name_of
from agent.config.settings import Settings
from agent.config.toml_lines import Path as Place
from agent.config.toml_lines import key_lines, line_of
from agent.config.units import shown

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

_EXPECTED: Final = {
    "bool_type": "expected true or false",
    "finite_number": "expected a finite number",
    "float_type": "expected a number",
    "greater_than": "expected more than {gt:.15g}",
    "greater_than_equal": "expected at least {ge:.15g}",
    "int_type": "expected a whole number",
    "less_than_equal": "expected at most {le:.15g}",
    "literal_error": "expected {expected}",
    "model_type": "expected a table",
    "tuple_type": "expected an array",
}
_SYNTAX: Final = re.compile(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)")


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake: the key it is about, and what is wrong with it."""

    place: Place
    message: str


class ConfigurationError(Exception):
    """The configuration cannot be used; `problems` is one line for each mistake."""

    def __init__(self, problems: Collection[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


def load(path: Path, environ: Mapping[str, str]) -> Settings:
    """Read the configuration file and the `SLED_AGENT__` variables.

    Raises:
        ConfigurationError: with every mistake, those of the file first, in its order.
    """
    return load_form(AGENT, path, environ)


def load_form(form: Form[S], path: Path, environ: Mapping[str, str]) -> S:
    """Read the configuration file of any program, and its variables.

    Raises:
        ConfigurationError: as `load`.
    """
    overlay = read_environment(form, environ)
    strangers = [f"{name}: {form.unknown_variable(name)}" for name in overlay.unknown]
    try:
        text = _read(path)
        table = _parse(path, text)
    except ConfigurationError as error:
        raise ConfigurationError([*error.problems, *strangers]) from None
    settings, problems = check_form(form, overlaid(table, overlay))
    if problems or strangers:
        raise ConfigurationError([*_rendered(path, text, overlay, problems), *strangers])
    return settings


def check(table: Mapping[str, object]) -> tuple[Settings, list[Problem]]:
    """Check every key by itself, then the valid ones together.

    The settings are usable when there is no problem.
    """
    return check_form(AGENT, table)


def check_form(form: Form[S], table: Mapping[str, object]) -> tuple[S, list[Problem]]:
    """As `check`, for the configuration of any program."""
    problems: list[Problem] = []
    try:
        settings = form.model.model_validate(table)
    except ValidationError as error:
        problems = [Problem(found["loc"], _message(form, found)) for found in error.errors()]
        settings = form.model.model_validate(_without(table, {_key(p.place) for p in problems}))
    broken = {_key(problem.place) for problem in problems}
    for conflict in form.conflicts(settings):
        if not any(key[: len(bad)] == bad for key in conflict.keys for bad in broken):
            problems.append(Problem(conflict.keys[0], conflict.message))
    return settings, problems


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode()
    except OSError as error:
        raise ConfigurationError([f"{path}: cannot be read: {error.strerror}"]) from None
    except UnicodeDecodeError as error:
        found, line = error.object[error.start], error.object.count(b"\n", 0, error.start) + 1
        raise ConfigurationError(
            [f"{path}:{line}: expected UTF-8, found byte 0x{found:02x}"]
        ) from None


def _parse(path: Path, text: str) -> dict[str, object]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError([_syntax_problem(path, text, str(error))]) from None


def _syntax_problem(path: Path, text: str, message: str) -> str:
    """Put tomllib's line and column in front, where editors and people look for them."""
    match = _SYNTAX.fullmatch(message)
    if match is None:
        return f"{path}: not TOML: {message}"
    line, column = match[2] or len(text.splitlines()) or 1, match[3] or 1
    return f"{path}:{line}:{column}: not TOML: {match[1]}"


def _message(form: Form[Any], found: ErrorDetails) -> str:
    """Say in this program's words what a model refused."""
    context = found.get("ctx", {})
    match found["type"]:
        case "value_error":
            return str(context["error"])
        case "extra_forbidden":
            return form.unknown_key(found["loc"])
        case "missing":
            return "expected a value, found none"
        case kind if kind in _EXPECTED:
            return f"{_EXPECTED[kind].format(**context)}, found {shown(found['input'])}"
        case _:
            return f"{found['msg']}, found {shown(found['input'])}"


def _key(place: Place) -> Place:
    """The key that a place belongs to: an array is one key, whichever element is wrong."""
    indices = (depth for depth, part in enumerate(place) if isinstance(part, int))
    return place[: next(indices, len(place))]


def _without(table: Mapping[str, object], broken: Collection[Place]) -> dict[str, object]:
    """Drop the broken keys, so that the models can vouch for the others."""
    return {
        key: _without(value, {place[1:] for place in broken if place[0] == key})
        if isinstance(value, dict)
        else value
        for key, value in table.items()
        if (key,) not in broken
    }


def _rendered(
    path: Path, text: str, overlay: Overlay, problems: Collection[Problem]
) -> Iterator[str]:
    lines = key_lines(text)
    from_file: list[tuple[int, str]] = []
    from_environment: list[str] = []
    for problem in problems:
        rest = f"{name_of(problem.place)}: {problem.message}"
        line = line_of(problem.place, lines)
        if variable := _variable(problem.place, overlay):
            from_environment.append(f"{variable}: {rest}")
        else:
            where = f"{path}:{line}" if line else f"{path}"
            from_file.append((line or 0, f"{where}: {rest}"))
    yield from (rendered for _, rendered in sorted(from_file))
    yield from from_environment


def _variable(place: Place, overlay: Overlay) -> str | None:
    for key, variable in overlay.variables.items():
        if place[: len(key)] == key:
            return variable
    return None
