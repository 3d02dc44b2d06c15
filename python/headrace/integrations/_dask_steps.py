"""Nodes of Dask that stand for several calls, as a row of steps that a worker takes without Dask.

Dask fuses chains of tasks into one. Its own way to run that looks for an order each time, which takes longer than all
that headrace does for the task.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dask._task_spec import Alias, DataNode, GraphNode, TaskRef

import headrace

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    Key = Hashable
    #: A value by its place among those that are there, or -1 and the value.
    Found = tuple[int, Any]
    #: A function; its arguments; the place of each among the values that are there, or -1; the names of the last of
    #: them; and the places of the values that no later step needs.
    Step = tuple[Callable[..., Any], list[Any], list[int], list[str], list[int]]


def take(steps: list[Step], *values: Any) -> Any:
    """Take steps, each of which finds the values of those before it, and give the value of the last."""
    there = list(values)
    for fn, args, places, names, last in steps:
        given = [arg if place < 0 else there[place] for arg, place in zip(args, places, strict=True)]
        for place in last:
            there[place] = None
        if names:
            first = len(given) - len(names)
            there.append(fn(*given[:first], **dict(zip(names, given[first:], strict=True))))
        else:
            there.append(fn(*given))
    return there[-1]


def steps_of(task: Any, keys: list[Key]) -> list[Step]:
    """Give the steps of a node. They begin with the values of `keys`, which are all that it depends on."""
    row = _Row(len(keys))
    place, value = row.value_of(task, {key: (place, None) for place, key in enumerate(keys)})
    if not row.steps or place != row.next - 1:
        row.step(same, [(place, value)], [])
    needed: set[int] = set()
    for _, _, places, _, last in reversed(row.steps):
        last += {place for place in places if place >= 0} - needed
        needed.update(places)
    return row.steps


def same(value: Any) -> Any:
    """Give it back."""
    return value


class _Row:
    """Steps under construction."""

    def __init__(self, first: int) -> None:
        self.steps: list[Step] = []
        self.next = first

    def step(self, fn: Callable[..., Any], args: list[Found], names: list[str]) -> Found:
        """Add a step, and say where its value will be."""
        self.steps.append((fn, [value for _, value in args], [place for place, _ in args], names, []))
        self.next += 1
        return self.next - 1, None

    def value_of(self, node: Any, there: dict[Key, Found]) -> Found:
        """Say where the value of a node will be, after the steps that it takes."""
        if isinstance(node, TaskRef):
            return there[node.key]
        if not isinstance(node, GraphNode):
            return -1, node
        if isinstance(node, Alias):
            return there[node.target]
        if isinstance(node, DataNode):
            return -1, node.value
        args = [self.value_of(arg, there) for arg in node.args]
        if not node.has_subgraph():
            args += [self.value_of(arg, there) for arg in node.kwargs.values()]
            return self.step(node.func, args, list(node.kwargs))
        (_, inner), (_, last), (_, keys), *values = args
        within = dict(zip(keys, values, strict=True))
        for key in headrace.depth_first(lambda key: inner[key].dependencies if key in inner else None, [last]):
            within[key] = self.value_of(inner[key], within)
        found: Found = within[last]
        return found
