"""What of a text may reach a terminal. Pure, and imported by programs that draw nothing."""

from __future__ import annotations


def printable(text: str) -> str:
    r"""Escape what is not printable: control characters, line breaks, lone surrogates.

    A message or a file name must not be able to move the cursor or colour the rest of the screen.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
