"""Which calls are made to fail, and how."""

from __future__ import annotations

import errno
from dataclasses import replace

import pytest

from tests.torture.fault_fs import Fault
from tests.torture.syscalls import CASES

GROUPS = ("change", "grow", "any")
ONCE = [
    case.fault
    for case in CASES
    if case.operation.name == "config" and case.hurt == 0 and case.fault.times is not None
]


@pytest.mark.parametrize("fault", ONCE, ids=lambda fault: f"{fault.call}-{fault.effect}")
def test_what_goes_wrong_once_goes_wrong_for_ever_too(fault: Fault) -> None:
    lasting = [_what(case.fault) for case in CASES if case.fault.times is None]

    # Python makes a call that was interrupted again, for ever if need be.
    assert (_what(fault) in lasting) == (fault.error != errno.EINTR)


def test_what_goes_wrong_for_ever_goes_wrong_once_too() -> None:
    lasting = [case.fault for case in CASES if case.fault.times is None]

    once = {_what(fault) for fault in ONCE}
    assert {_what(fault) for fault in lasting if fault.call not in GROUPS} <= once


def _what(fault: Fault) -> Fault:
    return replace(fault, times=None, delay_s=0.0)
