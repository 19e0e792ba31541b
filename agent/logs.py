"""The agent's log: structured lines on stderr, for people (`console`) or machines (`json`).

Rules: a message is constant and its data is in fields; the standard library's loggers, which
asyncio and aiohttp write to, come out in the same form. Every value is quoted or encoded, so that
no peer's text can begin a line of its own or colour a terminal.
"""

from __future__ import annotations

import logging
import sys
from typing import Final, Literal, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

_SHARED: Final[tuple[Processor, ...]] = (
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.ExtraAdder(),
    structlog.processors.TimeStamper(fmt="iso", utc=True),
)


def configure(
    *, level: str, form: Literal["console", "json"], stream: TextIO | None = None
) -> None:
    """Send every log line of the process to `stream` (stderr), from `level` on."""
    stream = stream or sys.stderr
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_SHARED,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_rendering(form, colors=stream.isatty()),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    # At debug, asyncio tells of each poll; nobody who debugs the agent wants that.
    logging.getLogger("asyncio").setLevel(max(logging.INFO, root.level))
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_SHARED,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def _rendering(form: Literal["console", "json"], *, colors: bool) -> list[Processor]:
    if form == "json":
        return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    # The plain traceback: rich's would print the values of local variables, whole bodies among
    # them.
    return [
        _printable_event,
        structlog.dev.ConsoleRenderer(
            colors=colors,
            # As they were given: what kind of event it is comes before its numbers.
            sort_keys=False,
            repr_native_str=True,
            exception_formatter=structlog.dev.plain_traceback,
        ),
    ]


def _printable_event(_logger: WrappedLogger, _method: str, fields: EventDict) -> EventDict:
    """Escape the message itself: other libraries write what a peer sent into theirs."""
    message = str(fields.get("event", ""))
    if not message.isprintable():
        fields["event"] = message.encode("unicode_escape").decode()
    return fields
