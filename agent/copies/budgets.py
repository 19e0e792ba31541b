"""What copies may take in a second: all together, and from each source.

Copies that somebody asked for have a budget, and those that healing asked for have another, so that
neither can starve the other. A copy that both wait for counts as asked for, from its next step on.
The network of one source is the host's: all copies from it share what one source may give.
"""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakValueDictionary

from agent.copies.source_url import SourceUrl
from depot.streams.budget import Budget
from depot.streams.limited import Budgets


class CopyBudgets:
    """The budgets of one sled.

    Args:
        asked: of copies that somebody asked for.
        healing: of those that healing asked for.
        max_bytes_per_s_per_source: 0: no limit.
    """

    def __init__(self, asked: Budget, healing: Budget, max_bytes_per_s_per_source: int = 0) -> None:
        self.asked = asked
        self.healing = healing
        self._per_source = max_bytes_per_s_per_source
        # Kept for as long as a body is read from the host: there are no more than that.
        self._by_host: WeakValueDictionary[str, Budget] = WeakValueDictionary()

    def of_host(self, source: SourceUrl) -> Budget:
        """What this source's host may give."""
        budget = self._by_host.get(source.host)
        if budget is None:
            budget = self._by_host[source.host] = Budget(self._per_source)
        return budget


class CopyShare:
    """The part that one copy has in the budgets.

    Attributes:
        healing: whether only healing waits for it.
        bodies: how many bodies are read for it now; they have one part together.
    """

    def __init__(self, budgets: CopyBudgets, *, healing: bool) -> None:
        self.healing = healing
        self.bodies = 1
        self._budgets = budgets

    def of(self, source: SourceUrl) -> Budgets:
        """What the bytes from `source` count in; the budget that all share comes last."""
        of_host = self._budgets.of_host(source)

        def now() -> Sequence[tuple[Budget, int]]:
            everybody = self._budgets.healing if self.healing else self._budgets.asked
            return ((of_host, 1), (everybody, self.bodies))

        return now
