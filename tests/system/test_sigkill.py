"""SIGKILL in the middle of puts, copies and reconciles, then what is on the disks is judged.

Rules kept here:

- The moment of each kill comes from one seed, which is part of every failure's message:
  `SIGKILL_SEED=… SIGKILL_RUNS=… pytest tests/system/test_sigkill.py` replays it.
- The disks are read with `tests.ondisk`, never with the store.
- Kills that come too early or too late are counted: enough must land inside each operation.
"""
