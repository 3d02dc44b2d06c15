"""WfFormat 1.5: recorded workflows, as https://wfcommons.org describes them.

A task of such a file names its parents and, where it was executed, how long that took. Its program does not come with
the file; `stand_in` takes its place: it lasts as long, and its result proves what ran before it.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import os
import time
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from headrace.errors import GraphError
from headrace.task import Task

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from headrace.graph import Graph

G = TypeVar("G", bound="Graph")

#: The version that is read.
SCHEMA_VERSION = "1.5"

#: The last part of a task's time, which is not slept.
_WAKE_UP_S = 200e-6

#: A century. Longer runtimes are no records, and their sum could be more than a float holds.
_RUNTIME_S_MAX = 3.2e9

#: A longer cycle is cut in error texts.
_CYCLE_SHOWN_MAX = 10


class Recorded(NamedTuple):
    """One recorded task."""

    parents: tuple[str, ...]
    """Ids of the tasks that it needs."""
    runtime_s: float
    """How long it took; 0 if that was not recorded."""


#: A workflow: its tasks by id, each after its parents.
Workflow = dict[str, Recorded]


def load(graph_type: type[G], source: str | os.PathLike[str] | Mapping[str, Any], *, time_scale: float = 0.0) -> G:
    """Make a graph of a workflow; see `Graph.from_wfformat`."""
    if not (isinstance(time_scale, int | float) and math.isfinite(time_scale) and time_scale >= 0):
        raise GraphError(f"time_scale takes a number from 0, not {time_scale!r}")
    return build(graph_type, read(source), time_scale)


def build(graph_type: type[G], flow: Workflow, time_scale: float) -> G:
    """Make a graph of a workflow that was read."""
    graph = graph_type()
    nodes: dict[str, Any] = {}
    for name, (parents, runtime_s) in flow.items():
        step = Task(stand_in, {"key": name})
        nodes[name] = graph.add(step, name, runtime_s * time_scale, *(nodes[parent] for parent in parents))
    return graph


def read(source: str | os.PathLike[str] | Mapping[str, Any]) -> Workflow:
    """Read and check a workflow.

    Args:
        source: a file (`.json`, or gzipped), or its parsed content.

    Raises:
        GraphError: it cannot be read, is not WfFormat 1.5, or no order of its tasks would do.
    """
    document = source if not isinstance(source, str | os.PathLike) else _parsed(source)
    where = "the workflow" if document is source else os.fspath(source)  # type: ignore[arg-type]
    try:
        recorded = dict(_tasks(document))
    except _NotWfFormatError as error:
        raise GraphError(f"{where} is not WfFormat {SCHEMA_VERSION}: {error}") from None
    return {name: recorded[name] for name in _ordered(recorded, where)}


def stand_in(name: str, seconds: float, *parents: str) -> str:
    """Stand in for a recorded program.

    Args:
        name: id of the task.
        seconds: how long to take.
        parents: results of the tasks that it needs, in the recorded order.

    Returns:
        A hash over the name and the parents' results: it is right only if the whole ancestry was, and was there.
    """
    if seconds > 0:
        _take(seconds)
    return hashlib.blake2b("\n".join((name, *parents)).encode(), digest_size=16).hexdigest()


def _take(seconds: float) -> None:
    """Sleep, but for the end: the system wakes sleepers up to a tenth of a millisecond late."""
    end = time.perf_counter() + seconds
    if seconds > _WAKE_UP_S:
        time.sleep(seconds - _WAKE_UP_S)
    while time.perf_counter() < end:
        pass


class _NotWfFormatError(Exception):
    """What is wrong with a document."""


def _parsed(path: str | os.PathLike[str]) -> Any:
    """Read a file, gzipped or not, whatever its name says."""
    try:
        with open(path, "rb") as file:
            content = file.read()
        if content.startswith(b"\x1f\x8b"):
            content = gzip.decompress(content)
        return json.loads(content)
    except (OSError, EOFError, ValueError, RecursionError) as error:
        raise GraphError(f"{os.fspath(path)} cannot be read as JSON: {error}") from None


def _tasks(document: Any) -> Iterator[tuple[str, Recorded]]:
    """Give the tasks in the order of the document."""
    version = _field(document, "schemaVersion", str, "the document")
    if version != SCHEMA_VERSION:
        raise _NotWfFormatError(f"its schemaVersion is {version!r}")
    workflow = _field(document, "workflow", dict, "the document")
    specified = _field(_field(workflow, "specification", dict, "workflow"), "tasks", list, "workflow.specification")
    runtimes_s = _runtimes_s(workflow.get("execution", {"tasks": []}))
    by_id: dict[str, Any] = {}
    for number, task in enumerate(specified):
        name = _field(task, "id", str, f"task {number}")
        if name in by_id:
            raise _NotWfFormatError(f"two tasks have the id {name!r}")
        by_id[name] = task
    for name, task in by_id.items():
        parents = _field(task, "parents", list, f"task {name!r}")
        for parent in parents:
            if not isinstance(parent, str) or parent not in by_id:
                raise _NotWfFormatError(f"task {name!r} names the parent {parent!r}, and there is no such task")
        # A parent named twice is needed once.
        yield name, Recorded(tuple(dict.fromkeys(parents)), runtimes_s.get(name, 0.0))


def _runtimes_s(execution: Any) -> dict[str, float]:
    """Give the recorded runtimes by id."""
    runtimes_s = {}
    for number, task in enumerate(_field(execution, "tasks", list, "workflow.execution")):
        name = _field(task, "id", str, f"executed task {number}")
        seconds = task.get("runtimeInSeconds", 0)
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds <= _RUNTIME_S_MAX:
            raise _NotWfFormatError(f"task {name!r} has the runtime {seconds!r}")
        runtimes_s[name] = float(seconds)
    return runtimes_s


def _field(owner: Any, name: str, kind: type, place: str) -> Any:
    """Give a field of the right type."""
    if not isinstance(owner, dict):
        raise _NotWfFormatError(f"{place} is no object")
    if not isinstance(owner.get(name), kind):
        raise _NotWfFormatError(f"{place} has no {name!r} of type {kind.__name__}")
    return owner[name]


def _ordered(recorded: Workflow, where: str) -> Iterable[str]:
    """Order the tasks so that parents come first."""
    try:
        return list(TopologicalSorter({name: task.parents for name, task in recorded.items()}).static_order())
    except CycleError as error:
        cycle = error.args[1]
        shown = " -> ".join(cycle[:_CYCLE_SHOWN_MAX]) + (" -> …" if len(cycle) > _CYCLE_SHOWN_MAX else "")
        raise GraphError(f"{where}: a cycle of {len(cycle) - 1} task(s) that wait for each other: {shown}") from None
