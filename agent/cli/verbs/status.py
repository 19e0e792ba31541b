"""`depot status`: how the sled is, what is wrong first."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Final

import click
from rich.text import Text

from agent.cli import options
from agent.cli.formats import (
    Column,
    moment,
    plural,
    short,
    size,
    span,
    table,
    with_paths,
)
from agent.cli.options import Common
from agent.cli.output import Output, reporting
from agent.cli.printable import printable
from agent.cli.servers import agent
from agent.wire.artifacts import ArtifactsBody
from agent.wire.datasets import DatasetBody
from agent.wire.status import StatusBody

SHOWN: Final = 5
# Standings of the ledger under which nothing is written; the sled's warnings say more.
_BAD_LEDGERS: Final = frozenset({"conflicted", "behind", "unknown"})


@click.command()
@options.shared
def status(common: Common) -> None:
    """Show how the sled is, what is wrong first."""
    with reporting(common) as output:
        asyncio.run(_status(common, output))


async def _status(common: Common, output: Output) -> None:
    async with agent(common) as client:
        found = await client.status()
    document = {**found.model_dump(mode="json"), "problems": list(problems(found))}
    output.document(document, lines(found, output.width))


def problems(found: StatusBody) -> Iterator[str]:
    """What is broken, in words; the sled's own warnings are not repeated."""
    for dataset in found.datasets:
        yield from dataset_problems(dataset)
    if found.ledger in _BAD_LEDGERS:
        yield f"the ledger is {found.ledger}"
    if found.healing.lost.count:
        yield (
            f"{plural(found.healing.lost.count, 'artifact')} lost, nobody has a good copy: "
            f"{_first(found.healing.lost)}; put it again, or name a peer that has it in heal.peers"
        )
    if found.under_replicated.count:
        yield (
            f"{plural(found.under_replicated.count, 'artifact')} under-replicated: "
            f"{_first(found.under_replicated)}"
        )


def dataset_problems(dataset: DatasetBody) -> Iterator[str]:
    """Why a dataset takes nothing now; nothing when it does."""
    if dataset.state != "healthy":
        why = f"{_reason(dataset)}{_in_doubt(dataset)}{_hung(dataset)}"
        yield f"dataset {dataset.path} is {dataset.state}: {why}"
    elif dataset.full:
        yield (
            f"dataset {dataset.path} is full: {size(dataset.used_bytes)} of "
            f"{size(dataset.quota_bytes)} used, {size(dataset.available_bytes)} available"
        )


def _in_doubt(dataset: DatasetBody) -> str:
    if not dataset.in_doubt:
        return ""
    verified = dataset.artifacts - dataset.in_doubt
    return f"; {verified} of {plural(dataset.artifacts, 'copy')} verified since"


def _hung(dataset: DatasetBody) -> str:
    """Which processes wait for the device."""
    pids = [*dataset.left_behind]
    if dataset.worker_hangs and dataset.worker_pid is not None:
        pids.append(dataset.worker_pid)
    return f" (hangs in pid {', '.join(map(str, pids))})" if pids else ""


def _reason(dataset: DatasetBody) -> str:
    """Why it is out, without the path that stands before it."""
    if not dataset.last_error:
        return "no reason known"
    error = dataset.last_error.removeprefix(f"{dataset.path}: ")
    return (
        f"it{error.removeprefix(dataset.path)}" if error.startswith(f"{dataset.path} ") else error
    )


def lines(found: StatusBody, width: int | None) -> list[Text | str]:
    """The status for people."""
    return [
        *_verdict(list(problems(found)), _other_warnings(found)),
        "",
        *_facts(found),
        "",
        *dataset_table(found.datasets, width),
    ]


def dataset_table(datasets: Sequence[DatasetBody], width: int | None) -> list[Text]:
    """One line for each dataset, below a head."""
    return table(_DATASET_COLUMNS, [_dataset_row(dataset) for dataset in datasets], width=width)


def _other_warnings(found: StatusBody) -> list[str]:
    """The sled's warnings, without those that are among the problems."""
    said = {
        f"dataset {dataset.path} is {dataset.state}: {dataset.last_error}"
        for dataset in found.datasets
    }
    paths = [dataset.path for dataset in found.datasets]
    return [with_paths(warning, paths) for warning in found.warnings if warning not in said]


def _verdict(wrong: Sequence[str], warnings: Sequence[str]) -> list[Text]:
    if not wrong and not warnings:
        return [Text("OK", style="green")]
    counted = [plural(len(wrong), "problem")] if wrong else []
    counted += [plural(len(warnings), "warning")] if warnings else []
    return [
        Text(", ".join(counted), style="bold red" if wrong else "bold yellow"),
        *(Text(f"  {printable(problem)}", style="red") for problem in wrong),
        *(Text(f"  {printable(warning)}", style="yellow") for warning in warnings),
    ]


def _facts(found: StatusBody) -> list[Text]:
    rows = [
        (
            "sled",
            f"{found.sled_id or 'unnamed'}, version {found.version}, up {span(found.uptime_s)}",
        ),
        ("config", _config(found)),
        *_waiting_rows(found),
        ("work", _work(found)),
        *_healing_rows(found),
        *_scrub_rows(found),
        *_node_rows(found),
    ]
    return [Text(f"{name:<8} {printable(said)}") for name, said in rows]


def _config(found: StatusBody) -> str:
    if found.generation is None:
        return f"none yet, ledger {found.ledger}"
    return f"generation {found.generation}, epoch {found.ledger_epoch}, ledger {found.ledger}"


def _waiting_rows(found: StatusBody) -> list[tuple[str, str]]:
    rows = []
    awaited = found.missing.count - found.healing.lost.count  # which stand among the problems
    if awaited > 0:
        rows.append(("missing", f"{plural(awaited, 'artifact')} on no dataset yet"))
    if found.deletions_held_until:
        until = moment(found.deletions_held_until)
        rows.append(("grace", f"what the config dropped is kept until {until}"))
    return rows


def _work(found: StatusBody) -> str:
    running = (
        f"{plural(found.puts_running, 'put')} and {plural(found.copies.running, 'copy')} running"
    )
    failed = found.copies.failed
    return f"{running}, {plural(failed, 'copy')} failed (`depot copies`)" if failed else running


def _healing_rows(found: StatusBody) -> list[tuple[str, str]]:
    healing, rows = found.healing, []
    if healing.todo:
        todo = f"{plural(healing.todo, 'artifact')} to heal, {size(healing.todo_bytes)}"
        failed = f", {healing.failed} failed and tried again" if healing.failed else ""
        rows.append(("healing", f"{todo}, {healing.healed} healed so far{failed}"))
    elif healing.healed:
        rows.append(("healing", f"done, {plural(healing.healed, 'artifact')} healed since start"))
    aside = sum(dataset.quarantined for dataset in found.datasets)
    if aside:
        aside_bytes = sum(dataset.quarantined_bytes for dataset in found.datasets)
        told = f"{plural(aside, 'copy')} set aside, {size(aside_bytes)}"
        rows.append(("damaged", f"{told} (`sled-agent quarantine ls`)"))
    return rows


def _scrub_rows(found: StatusBody) -> list[tuple[str, str]]:
    if found.scrub is None or found.scrub.paused_until is None:
        return []
    until = moment(found.scrub.paused_until)
    return [("scrub", f"paused until {until} (`sled-agent scrub resume`)")]


def _node_rows(found: StatusBody) -> list[tuple[str, str]]:
    node = found.node
    if node is None:
        return []
    memory = f"{size(node.memory_available_bytes)} of {size(node.memory_total_bytes)} memory free"
    load = f"load {node.load_1m:.1f} on {plural(node.cpu_count, 'CPU')}"
    process = node.process
    return [
        ("node", f"{load}, {memory}"),
        (
            "agent",
            f"main process {size(process.rss_bytes)} resident, "
            f"{plural(process.open_files, 'open file')}",
        ),
    ]


_DATASET_COLUMNS = (
    Column("STATE"),
    Column("USED", right=True),
    Column("QUOTA", right=True),
    Column("FREE", right=True),
    Column("ARTIFACTS", right=True),
    Column("DATASET", prose=True),
)


def _dataset_row(dataset: DatasetBody) -> tuple[str | Text, ...]:
    bad = dataset.state != "healthy" or dataset.full
    state = "full" if dataset.full and dataset.state == "healthy" else dataset.state
    return (
        Text(state, style="red" if bad else "green"),
        *_numbers(dataset),
        dataset.path,
    )


def _numbers(dataset: DatasetBody) -> tuple[str, str, str, str]:
    if dataset.state in ("missing", "released"):
        # Of a disk that is not there nothing is known; zeros would read like an empty one.
        return ("-", size(dataset.quota_bytes), "-", "-")
    return (
        size(dataset.used_bytes + dataset.reserved_bytes),
        size(dataset.quota_bytes),
        size(dataset.available_bytes),
        str(dataset.artifacts),
    )


def _first(found: ArtifactsBody) -> str:
    more = ", …" if found.count > SHOWN else ""
    return ", ".join(map(short, found.artifacts[:SHOWN])) + more
