from __future__ import annotations

import subprocess
import sys
from typing import Final

# What is large lies between what stays, once the library takes it for small.
_PROGRAM: Final = """
import sys
from pathlib import Path
from depot.freed_memory import give_back_large

def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

if "asked" in sys.argv:
    give_back_large()
del (first := [bytearray(b"x") * (4 << 20)])[:]
before = resident_bytes()
both = [(bytearray(b"x") * (3 << 20), bytearray(1024)) for _ in range(20)]
kept = [small for _, small in both]
del both
print(resident_bytes() - before)
"""


def kept_bytes(*arguments: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, *arguments], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


def test_s1_what_was_large_is_the_system_s_again_once_it_is_free() -> None:
    assert kept_bytes("asked") < 8 << 20 < 32 << 20 < kept_bytes()
