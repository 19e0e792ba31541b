"""Asking before what cannot be taken back."""

from __future__ import annotations

import sys

import click

from agent.cli.failures import usage


def confirm(question: str) -> None:
    """Go on when somebody says yes.

    Raises:
        Failure: nobody is there to ask.
        click.Abort: they said no.
    """
    if not sys.stdin.isatty():
        raise usage("this has to be confirmed, and nobody is there to ask", hint="give --yes")
    click.confirm(question, abort=True, err=True)
