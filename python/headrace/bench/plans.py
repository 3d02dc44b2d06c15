"""A plan: the one definition of a graph that every engine is given, and the answers that it must give.

A workload is written `name:key=value:…`, such as `stencil_1d:tasks=10000:width=100:body=spin:us=100`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from headrace.bench.bodies import BODIES, noop, payload, stamp, untouched, value_of
from headrace.bench.dask_graphs import GRAPHS, digest, lay_out, node
from headrace.bench.shapes import SHAPES, Predecessors, Sizes
from headrace.errors import UsageError

_SIZES = ("tasks", "width", "radix", "seed")
#: Workloads that take their shape from a file, or from Dask.
FILE_SHAPE, DASK_SHAPE = "wfformat", "dask"

_DEFAULT = Sizes()


@dataclass(frozen=True)
class Workload:
    """A graph by name, and what its tasks do."""

    shape: str
    sizes: Sizes = _DEFAULT
    body: str = "noop"
    amount: float = 0
    """Microseconds, KiB or bytes: whatever the body is told."""
    file: str = ""
    """The WfFormat file, and `amount` is then the scale of its recorded times."""
    graph: str = ""
    """Which graph of Dask's."""
    is_pinned: bool = False
    """Whether each task runs on another worker than the one before: the one of its number."""

    def __str__(self) -> str:
        if self.file:
            return f"{self.shape}:file={self.file}:scale={self.amount:g}"
        words = [self.shape, *([f"graph={self.graph}"] if self.graph else [])]
        words += [
            f"{name}={value}"
            for name, value, default in zip(_SIZES, self.sizes, Sizes(), strict=True)
            if value != default
        ]
        if self.body not in ("noop", "payload"):  # its setting says so
            words.append(f"body={self.body}")
        if unit := BODIES[self.body].unit:
            words.append(f"{unit}={self.amount:g}" if self.amount < 1e5 else f"{unit}={self.amount:.0f}")
        if self.is_pinned:
            words.append("pin=1")
        return ":".join(words)

    @property
    def family(self) -> str:
        """The workload without its number of tasks: what curves over the size are drawn of."""
        return ":".join(word for word in str(self).split(":") if not word.startswith("tasks="))

    def sized(self, tasks: int) -> Workload:
        """The same with another number of tasks. A file has its own."""
        return self if self.file else replace(self, sizes=self.sizes._replace(tasks=tasks))

    def with_body(self, body: str, amount: float = 0) -> Workload:
        """The same with tasks that do something else."""
        return replace(self, body=body, amount=amount)


def parse(text: str) -> Workload:
    """Read a workload.

    Raises:
        UsageError: no such shape, body or setting; the text names it and what there is.
    """
    shape, *words = text.strip().split(":")
    settings: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise UsageError(f"workload {text!r}: {word!r} is no key=value")
        settings[name] = value
    if shape == FILE_SHAPE:
        return _from_file(text, settings)
    if shape == DASK_SHAPE:
        return _from_dask(text, settings)
    if shape not in SHAPES:
        raise UsageError(f"there is no workload {shape!r}; there are {', '.join([*SHAPES, FILE_SHAPE, DASK_SHAPE])}")
    body = settings.pop("body", "payload" if "payload" in settings else "noop")
    if body not in BODIES:
        raise UsageError(f"workload {text!r}: there is no body {body!r}; there are {', '.join(BODIES)}")
    unit = BODIES[body].unit
    amount = _number(text, unit, settings.pop(unit, str(BODIES[body].default))) if unit else 0.0
    sizes = Sizes()._replace(
        **{name: int(_number(text, name, settings.pop(name))) for name in _SIZES if name in settings}
    )
    is_pinned = settings.pop("pin", "0") == "1"
    if settings:
        known = [*_SIZES, "body", *([unit] if unit else []), "pin"]
        raise UsageError(f"workload {text!r}: no setting {next(iter(settings))!r}; there are {', '.join(known)}")
    if min(sizes.tasks, sizes.width, amount, sizes.radix - 1) < 0 or "tasks=0" in words:
        raise UsageError(f"workload {text!r}: tasks and radix are at least 1, nothing is negative")
    return Workload(shape, sizes, body, amount, is_pinned=is_pinned)


class Plan:
    """A workload, laid out: which function each task calls, with what, and which results are wanted."""

    def __init__(self, workload: Workload) -> None:
        self.workload = workload
        self.predecessors: Predecessors
        self.function: Callable[..., Any]
        #: What each task is told beside its number, if that differs from task to task.
        self._each: list[Any] | None = None
        if workload.file:
            self.predecessors, times_us = _recorded(workload)
            self._each = times_us if workload.amount else None
            self.function = BODIES["sleep" if workload.amount else "noop"].function
        elif workload.graph:
            self.predecessors, self._each = lay_out(workload.graph, workload.sizes.tasks)
            self.function = node
        else:
            self.predecessors = SHAPES[workload.shape](workload.sizes)
            self.function = BODIES[workload.body].function
        self._amount: tuple[float | int, ...] = ()
        if not (workload.file or workload.graph) and BODIES[workload.body].unit:
            amount = workload.amount
            self._amount = (int(amount) if amount == int(amount) else amount,)

    def __len__(self) -> int:
        return len(self.predecessors)

    @functools.cached_property
    def edges(self) -> int:
        """How many."""
        return sum(map(len, self.predecessors))

    @functools.cached_property
    def kept(self) -> list[int]:
        """The tasks whose results the engine gives back: those that nobody needs, or all where each says its time."""
        if self.function is stamp:
            return list(range(len(self)))
        needed = {number for row in self.predecessors for number in row}
        return [number for number in range(len(self)) if number not in needed]

    @functools.cached_property
    def is_deep(self) -> bool:
        """Whether few tasks are ready at a time."""
        return 2 * len(self.levels) > len(self)

    def constants(self, number: int) -> tuple[Any, ...]:
        """What a task is told before its inputs."""
        return (number, *self._amount) if self._each is None else (number, self._each[number])

    def calls(self) -> Iterator[tuple[int, tuple[Any, ...], tuple[int, ...]]]:
        """Each task: its number, its constants, the tasks whose results follow them."""
        each, amount = self._each, self._amount
        if each is not None:
            return ((number, (number, each[number]), row) for number, row in enumerate(self.predecessors))
        return ((number, (number, *amount), row) for number, row in enumerate(self.predecessors))

    @functools.cached_property
    def levels(self) -> list[list[int]]:
        """The tasks by the length of the longest way to them: those of one level could run together."""
        depth: list[int] = []
        levels: list[list[int]] = []
        for number, row in enumerate(self.predecessors):
            depth.append(1 + max((depth[before] for before in row), default=-1))
            if depth[number] == len(levels):
                levels.append([])
            levels[depth[number]].append(number)
        return levels

    @functools.cached_property
    def expected(self) -> list[int]:
        """The numbers that the kept results must hold, computed one after the other."""
        values: list[Any] = []
        like: dict[Any, Callable[..., Any]] = {node: node, untouched: _first}
        function = like.get(self.function, noop)
        for number, row in enumerate(self.predecessors):
            constants = self.constants(number) if function is node else (number,)
            values.append(function(*constants, *[values[before] for before in row]))
        return [self.number_in(values[number]) for number in self.kept]

    @property
    def is_large(self) -> bool:
        """Whether its results are arrays that say when they were made."""
        return self.function in (payload, untouched)

    @property
    def number_in(self) -> Callable[[Any], int]:
        """What a result is compared by."""
        return digest if self.function is node else value_of

    def check(self, results: list[Any]) -> None:
        """Compare what an engine gave.

        Raises:
            WrongAnswerError: a result differs, or one is missing.
        """
        if len(results) != len(self.kept):
            raise WrongAnswerError(f"{self.workload}: {len(results)} results instead of {len(self.kept)}")
        for number, result, expected in zip(self.kept, results, self.expected, strict=True):
            if (given := self.number_in(result)) != expected:
                raise WrongAnswerError(f"{self.workload}: task {number} gave {given} instead of {expected}")


def _first(number: int, *values: int) -> int:
    return values[0] if values else number


class WrongAnswerError(Exception):
    """An engine gave a wrong answer."""


def _number(text: str, name: str, value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise UsageError(f"workload {text!r}: {name} takes a number, not {value!r}") from None


def _from_file(text: str, settings: dict[str, str]) -> Workload:
    file, scale = settings.pop("file", ""), _number(text, "scale", settings.pop("scale", "0"))
    if settings or not file or scale < 0:
        raise UsageError(f"workload {text!r}: write {FILE_SHAPE}:file=PATH or {FILE_SHAPE}:file=PATH:scale=0.01")
    return Workload(FILE_SHAPE, Sizes(tasks=0), file=file, amount=scale)


def _recorded(workload: Workload) -> tuple[Predecessors, list[float]]:
    from headrace.formats.wfformat import read

    flow = read(workload.file)
    numbers = {name: number for number, name in enumerate(flow)}
    needed = [tuple(numbers[parent] for parent in recorded.parents) for recorded in flow.values()]
    return needed, [recorded.runtime_s * workload.amount * 1e6 for recorded in flow.values()]


def _from_dask(text: str, settings: dict[str, str]) -> Workload:
    graph, tasks = settings.pop("graph", "array"), int(_number(text, "tasks", settings.pop("tasks", "0")))
    if settings or graph not in GRAPHS or tasks < 0:
        raise UsageError(f"workload {text!r}: write {DASK_SHAPE}:graph=NAME:tasks=N with one of {', '.join(GRAPHS)}")
    return Workload(DASK_SHAPE, Sizes(tasks=tasks), graph=graph)
