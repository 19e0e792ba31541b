"""Which roles of targets are reachable from the top, and which of them speaks for a target.

A role is asked for a target only along delegations that cover the target's path, the first ones
first, and none after a terminating one: as any client of such a repository does that looks for one
target. A role may list what nobody delegated to it; that does not count.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping

from tuf.api.metadata import TargetFile, Targets

from coordinator.errors import BadRelease

Load = Callable[[str, Targets], Targets]
"""Gives the metadata of a role, verified by the one that delegates to it."""


def reachable(
    top: Targets, listed: Collection[str], load: Load, most_roles: int
) -> dict[str, Targets]:
    """Load every role that can be reached.

    Args:
        top: the top-level role.
        listed: the roles that the snapshot lists.
        load: called for each delegation, so that each one is verified.
        most_roles: how many there may be.

    Returns:
        The roles by name.
    """
    roles = {Targets.type: top}
    waiting = [Targets.type]
    while waiting:
        delegator = roles[waiting.pop()]
        for name in _delegated_by(delegator, listed):
            role = load(name, delegator)
            if name in roles:
                continue
            if len(roles) >= most_roles:
                raise BadRelease(f"more than {most_roles} roles are delegated to")
            roles[name] = role
            waiting.append(name)
    return roles


def resolve(roles: Mapping[str, Targets]) -> dict[str, TargetFile]:
    """What the roles together say of each target that any of them may speak for, by path."""
    paths = dict.fromkeys(path for role in roles.values() for path in role.targets)
    found = ((path, _find(roles, path)) for path in paths)
    return {path: target for path, target in found if target is not None}


def _delegated_by(delegator: Targets, listed: Collection[str]) -> Iterator[str]:
    delegations = delegator.delegations
    if delegations is None:
        return
    yield from delegations.roles or ()
    if (bins := delegations.succinct_roles) is not None:
        # There may be 2^32 of them; those that were never filled are in no snapshot.
        yield from (name for name in listed if bins.is_delegated_role(name))


def _find(roles: Mapping[str, Targets], path: str) -> TargetFile | None:
    waiting = [Targets.type]
    asked: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in asked or name not in roles:
            continue
        asked.add(name)
        if (target := roles[name].targets.get(path)) is not None:
            return target
        children: list[str] = []
        for child, terminating in _covering(roles[name], path):
            children.append(child)
            if terminating:
                waiting.clear()
                break
        waiting.extend(reversed(children))
    return None


def _covering(role: Targets, path: str) -> Iterator[tuple[str, bool]]:
    if role.delegations is not None:
        yield from role.delegations.get_roles_for_target(path)
