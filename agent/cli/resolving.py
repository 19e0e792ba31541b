"""Turning what was typed for a hash into the whole hash. Pure.

A prefix of at least `MIN_PREFIX` characters stands for the one known hash that begins with it. One
that fits two is refused, with both named: the wrong artifact is worse than none.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

import click

from agent.cli.failures import Failure, usage
from depot.artifact import counted

MIN_PREFIX: Final = 8
WHOLE: Final = 64
SHOWN: Final = 4
_PREFIX: Final = re.compile(r"[0-9a-fA-F]{8,64}", re.ASCII)


def hash_or_prefix(text: str) -> str:
    """Click type: 8 to 64 hex characters, lower-case from here on."""
    if not _PREFIX.fullmatch(text):
        raise click.BadParameter(
            f"expected a SHA-256, or at least its first {MIN_PREFIX} hex characters, "
            f"found {counted(text)}"
        )
    return text.lower()


def all_whole(typed: Iterable[str]) -> bool:
    """Whether nothing needs to be looked up."""
    return all(len(text) == WHOLE for text in typed)


def resolve(typed: Sequence[str], known: Iterable[str], where: str) -> list[str]:
    """Replace each prefix by the hash it stands for; whole hashes pass, known or not.

    Args:
        typed: results of `hash_or_prefix`.
        known: the hashes there are.
        where: what `known` is, for the message: "the sled's config".

    Raises:
        Failure: a prefix fits none or several.
    """
    ordered = sorted(known)
    whole = [text if len(text) == WHOLE else _only(text, ordered, where) for text in typed]
    return list(dict.fromkeys(whole))


def _only(prefix: str, known: Sequence[str], where: str) -> str:
    fitting = [sha256 for sha256 in known if sha256.startswith(prefix)]
    if len(fitting) != 1:
        raise _not_one(prefix, fitting, where)
    return fitting[0]


def _not_one(prefix: str, fitting: Sequence[str], where: str) -> Failure:
    if not fitting:
        return usage(f"no artifact of {where} begins with {prefix}")
    some = ", ".join(fitting[:SHOWN]) + (", …" if len(fitting) > SHOWN else "")
    return usage(f"{prefix} fits {len(fitting)} artifacts of {where}: {some}")
