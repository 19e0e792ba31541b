"""Imports structlog without rich, which it would draw tracebacks with; for who imports this first.

The daemon's log has plain ones. Rich and what it needs are 70 modules, 3 MiB of memory and a tenth
of the processor time that imports take.
"""

from __future__ import annotations

import sys
from typing import Any, Final

_NAME: Final = "rich"
_modules: Final[dict[str, Any]] = sys.modules

_before: Final = {name: _modules[name] for name in [_NAME] if name in _modules}
_modules[_NAME] = None  # "not found", by the rules of the import system
try:
    import structlog  # noqa: F401
finally:
    del _modules[_NAME]
    _modules.update(_before)
