"""What the benchmark makes of samples of the machine."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.benchmarks import processes, report, scale
from tests.benchmarks.measure import Sample
from tests.benchmarks.processes import Block
from tests.benchmarks.profile import Profile, Stack, parse, profiles
from tests.benchmarks.rig import rig

ROOT = Path(__file__).parents[2]
KERNEL = "[kernel.kallsyms]"
LIBC = "/lib/libc.so.6"

PRINTED = """\
kworker/0:2H-kb  9585/9585  24740.662484:
\tffffffff813b6509 pick_task_fair ([kernel.kallsyms])

python   42/43 24740.662500:
\tffffffff816abff5 rep_movs_alternative ([kernel.kallsyms])
\tffffffff813ccccd __x64_sys_sendto ([kernel.kallsyms])
\t           fdd6b __send (/lib/libc.so.6)

swapper     0/0     24740.700000:
"""


def test_what_perf_prints_is_read() -> None:
    assert list(parse(PRINTED.splitlines(keepends=True))) == [
        Stack(9585, 24740.662484, (("pick_task_fair", KERNEL),)),
        Stack(
            42,
            24740.6625,
            (("rep_movs_alternative", KERNEL), ("__x64_sys_sendto", KERNEL), ("__send", LIBC)),
        ),
        Stack(0, 24740.7),
    ]


@pytest.mark.parametrize(
    ("frames", "doing"),
    [
        ([("memcpy", KERNEL), ("__x64_sys_sendto", KERNEL), ("__send", LIBC)], "send"),
        ([("filemap_read", KERNEL), ("vfs_readv", KERNEL), ("do_preadv", KERNEL)], "read"),
        ([("vfs_write", KERNEL), ("ksys_write", KERNEL), ("do_syscall_64", KERNEL)], "write"),
        # What a system call does by means of another one is of the first.
        ([("vfs_read", KERNEL), ("__x64_sys_sendfile64", KERNEL)], "send"),
        ([("schedule", KERNEL), ("__x64_sys_futex", KERNEL)], "wait and wake"),
        ([("x", KERNEL), ("__x64_sys_reboot", KERNEL)], "other system calls"),
        ([("clear_page", KERNEL), ("asm_exc_page_fault", KERNEL), ("f", LIBC)], "page faults"),
        ([("tcp_rcv", KERNEL), ("do_softirq", KERNEL)], "rest of the kernel"),
        ([("sha256_block_data_order", "/lib/libcrypto.so.3")], "SHA-256"),
        ([("_PyEval_EvalFrameDefault", "/lib/libpython3.11.so.1.0")], "interpreter"),
        ([("memmove", LIBC)], "libraries"),
        ([], "rest of the kernel"),
    ],
)
def test_what_a_process_was_doing_is_the_system_call_or_whose_code_it_ran(
    frames: list[tuple[str, str]], doing: str
) -> None:
    assert Stack(1, 0.0, tuple(frames)).doing == doing


def test_a_sample_counts_for_the_block_that_it_falls_into() -> None:
    blocks = [Block((10, 11), 1.0, 2.0), Block((20,), 3.0, 4.0), Block((10, 11), 5.0, 6.0)]
    hashing = (("sha256", "/lib/libcrypto.so.3"),)
    samples = [
        Stack(10, 0.5),  # before anything was measured
        Stack(10, 1.5, hashing),
        Stack(11, 5.5, hashing),
        Stack(0, 1.6),
        Stack(20, 1.7),  # beside it: somebody else
        Stack(20, 3.5),
    ]

    ours, theirs = profiles("get-1", samples, blocks, {10: "agent a 10", 20: "nginx"}, 2)

    assert (ours.core_s, ours.doing, ours.others) == (4.0, {"SHA-256": 2}, 1)
    assert (theirs.core_s, theirs.doing, theirs.others) == (2.0, {"rest of the kernel": 1}, 0)


@pytest.mark.parametrize(
    ("core_s", "shares"),
    [
        (4.0, ("25 %", "50 %", "25 %")),
        (1.0, ("33 %", "67 %", "0 %")),
        (0.0, ("33 %", "67 %", "0 %")),
    ],
)
def test_what_nobody_had_of_the_cores_is_what_is_left_of_their_time(
    core_s: float, shares: tuple[str, ...]
) -> None:
    found = Profile("put", "agent", core_s, Counter({"send": 897, "SHA-256": 100}), 1994)

    assert found.cells() == ("put", "agent", *shares, "send 90 %, SHA-256 10 %")


def test_the_profiles_replace_those_in_the_document_and_nothing_else(tmp_path: Path) -> None:
    begin, end = (report.PROFILES.format(mark) for mark in ("begin", "end"))
    document = tmp_path / "performance.md"
    document.write_text(f"before\n{begin}\nold\n{end}\nafter\n")
    found = Profile("get-1", "agent", 0.0, others=1)
    found.doing["send"] = 3

    report.write_profiles_into(document, {"cores": 2}, [found])

    written = document.read_text()
    assert written.startswith(f"before\n{begin}\n\ncores: 2\n\n| work |")
    assert "| get-1 | agent | 75 % | 25 % | 0 % | send 100 % |" in written
    assert written.endswith(f"{end}\nafter\n")
    assert "old" not in written


def test_the_document_has_a_place_for_profiles() -> None:
    written = (ROOT / "docs" / "performance.md").read_text()
    for mark in ("begin", "end"):
        assert written.count(report.PROFILES.format(mark)) == 1


def test_without_perf_it_says_what_is_missing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks", "--profile", "--dir", str(tmp_path)],
        cwd=ROOT,
        env={"PATH": str(tmp_path), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 1
    assert "not found on this machine: perf" in done.stderr


def test_what_was_done_before_the_pairs_is_not_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "measured", [Block((1,), 0.0, 1.0)])
    with rig(tmp_path, scale.tiny()) as means:
        means.pairs(lambda: Sample(1, 1.0), None)
    assert processes.measured == []
