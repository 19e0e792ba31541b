"""Every rule of docs/reliability.md has tests that carry its number, and every number is a rule."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

TESTS: Final = Path(__file__).parents[1]
DOCUMENT: Final = TESTS.parent / "docs" / "reliability.md"
INVARIANTS: Final = TESTS.parents[1] / "shared" / "design" / "invariants.md"
KINDS: Final = "BGQDSF"


def listed() -> set[str]:
    return set(re.findall(r"^\| ([A-Z]\d) \|", DOCUMENT.read_text(), re.MULTILINE))


def named_by_tests() -> set[str]:
    named = re.compile(rf"^(?:async )?def test_([{KINDS.lower()}]\d)_", re.MULTILINE)
    found = (named.findall(path.read_text()) for path in TESTS.rglob("test_*.py"))
    return {number.upper() for numbers in found for number in numbers}


def test_the_tests_of_every_rule_name_it() -> None:
    assert named_by_tests() == listed()


def test_no_invariant_is_left_out() -> None:
    if not INVARIANTS.exists():
        pytest.skip("the design documents are not beside this repository")
    asked = re.findall(rf"^- ([{KINDS}]\d) ", INVARIANTS.read_text(), re.MULTILINE)
    assert listed() == set(asked)
