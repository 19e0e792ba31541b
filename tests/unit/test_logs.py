from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from agent import logs


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    root, chatty = logging.getLogger(), logging.getLogger("asyncio")
    handlers, level, chatty_level = root.handlers, root.level, chatty.level
    yield
    root.handlers = handlers
    root.setLevel(level)
    chatty.setLevel(chatty_level)
    structlog.reset_defaults()


def log_to(level: str, form: str) -> io.StringIO:
    stream = io.StringIO()
    logs.configure(level=level, form="json" if form == "json" else "console", stream=stream)
    return stream


def test_json_has_one_object_a_line_with_the_fields_of_the_call() -> None:
    stream = log_to("info", "json")

    structlog.get_logger("agent.x").info("dataset lost", dataset="/m2/a", error="EIO")

    [line] = stream.getvalue().splitlines()
    found = json.loads(line)
    assert found.pop("timestamp").endswith("Z")
    assert found == {
        "event": "dataset lost",
        "level": "info",
        "logger": "agent.x",
        "dataset": "/m2/a",
        "error": "EIO",
    }


def test_for_people_the_fields_stand_in_the_order_of_the_call() -> None:
    stream = log_to("info", "console")

    structlog.get_logger("agent.x").info("event", kind="put", copies=2)

    assert "kind='put' copies=2" in stream.getvalue()


@pytest.mark.parametrize("form", ["console", "json"])
def test_the_standard_librarys_loggers_come_out_in_the_same_form(form: str) -> None:
    stream = log_to("info", form)

    logging.getLogger("aiohttp.server").warning("cannot %s", "serve")

    [line] = stream.getvalue().splitlines()
    assert "cannot serve" in line
    assert "aiohttp.server" in line
    assert form == "console" or json.loads(line)["level"] == "warning"


@pytest.mark.parametrize("form", ["console", "json"])
def test_lines_below_the_level_are_left_out(form: str) -> None:
    stream = log_to("warning", form)

    structlog.get_logger("agent").info("quiet")
    logging.getLogger("aiohttp").info("quiet")
    structlog.get_logger("agent").warning("loud")

    assert "quiet" not in stream.getvalue()
    assert "loud" in stream.getvalue()


def test_asyncio_does_not_chatter_at_debug() -> None:
    stream = log_to("debug", "console")

    logging.getLogger("asyncio").debug("poll took 1 ms")
    structlog.get_logger("agent").debug("ours")

    assert "poll" not in stream.getvalue()
    assert "ours" in stream.getvalue()


@pytest.mark.parametrize("form", ["console", "json"])
def test_a_peers_text_cannot_forge_a_line_or_colour_the_terminal(form: str) -> None:
    stream = log_to("info", form)

    structlog.get_logger("agent").info("copy failed", error="no\n2026 [info] all is well\x1b[31m")
    logging.getLogger("aiohttp").warning("bad request: %s", "a\nb\x1b[31m")

    assert len(stream.getvalue().splitlines()) == 2
    assert "\x1b" not in stream.getvalue()


@pytest.mark.parametrize("form", ["console", "json"])
def test_a_traceback_is_logged_without_the_values_of_variables(form: str) -> None:
    stream = log_to("info", form)
    secret = "body" * 3  # noqa: F841 -- what must not be printed

    try:
        raise OSError("broken")
    except OSError:
        structlog.get_logger("agent").exception("duty failed", duty="watch")

    assert "Traceback" in stream.getvalue()
    assert "OSError: broken" in stream.getvalue()
    assert "bodybodybody" not in stream.getvalue()
