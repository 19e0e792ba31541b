"""How a sled's datasets stand, for verbs whose answers do not say it.

The answer to a put counts healthy datasets only, as the contract has it: on a sled that lost one,
a put that made half of the copies looks perfect.
"""

from __future__ import annotations

from collections.abc import Sequence

from agent.cli.formats import plural, size
from agent.cli.verbs.status import dataset_problems
from agent.client import AgentClient
from agent.wire.datasets import DatasetBody
from depot.errors import DepotError


async def datasets_now(client: AgentClient) -> tuple[DatasetBody, ...]:
    """Every configured dataset; none when the sled does not say, which is no reason to fail."""
    try:
        return await client.datasets()
    except DepotError:
        return ()


def shortfall(datasets: Sequence[DatasetBody]) -> list[str]:
    """A sentence on the datasets that take nothing now; none when all do."""
    problems = [problem for dataset in datasets for problem in dataset_problems(dataset)]
    if not problems:
        return []
    well = f"{len(datasets) - len(problems)} of {plural(len(datasets), 'dataset')}"
    return [f"only {well} can be written now: {'; '.join(problems)}"]


def room(datasets: Sequence[DatasetBody]) -> str:
    """How much is free on each; nothing is known of datasets that were not told."""
    if not datasets:
        return "how much is free is not known"
    return "free now: " + ", ".join(map(_free, datasets))


def _free(dataset: DatasetBody) -> str:
    if dataset.state != "healthy":
        return f"{dataset.path} is {dataset.state}"
    return f"{size(dataset.available_bytes)} on {dataset.path}"
