"""Shapes of graphs: for each task the earlier tasks that it needs. Generated from sizes and a seed, always alike.

Those from `trivial` to `all_to_all` are in the style of Task Bench: rows of `width` tasks, each of which needs tasks
of the row before.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable
from typing import NamedTuple

#: The numbers of the tasks that each task needs; tasks stand in an order in which they could run.
Predecessors = list[tuple[int, ...]]


class Sizes(NamedTuple):
    """What a shape may ask for."""

    tasks: int = 0
    """About how many. 0 leaves it to the run."""
    width: int = 0
    """Tasks in a row; by default as many as rows, 100 at most."""
    radix: int = 5
    """Tasks of the row before that `nearest`, `spread` and `random_nearest` need."""
    seed: int = 1

    def row(self, most: int = 100) -> int:
        """The width of a row."""
        return min(self.width or min(most, math.isqrt(self.tasks)), self.tasks) or 1


def independent(sizes: Sizes) -> Predecessors:
    """Tasks that need nothing."""
    return [()] * sizes.tasks


def put(_sizes: Sizes) -> Predecessors:
    """No task at all: the client puts a value where workers find it, `put:payload=BYTES`."""
    return [()]


def chain(sizes: Sizes) -> Predecessors:
    """Each task needs the one before."""
    return [(number - 1,) if number else () for number in range(sizes.tasks)]


def fan(sizes: Sizes) -> Predecessors:
    """One task, many that need it, one that needs all of those."""
    middle = max(1, sizes.tasks - 2)
    return [(), *[(0,)] * middle, tuple(range(1, middle + 1))]


def tree(sizes: Sizes) -> Predecessors:
    """Pairwise reduction of leaves to one task."""
    leaves = max(1, (sizes.tasks + 1) // 2)
    needed: Predecessors = [()] * leaves
    level = list(range(leaves))
    while len(level) > 1:
        above = []
        for left, right in zip(level[::2], level[1::2], strict=False):
            above.append(len(needed))
            needed.append((left, right))
        level = above + ([level[-1]] if len(level) % 2 else [])
    return needed


def trivial(sizes: Sizes) -> Predecessors:
    """Rows that need nothing of each other."""
    return _rows(sizes, lambda _step, _column, _width: ())


def stencil_1d(sizes: Sizes) -> Predecessors:
    """Each needs its three neighbours of the row before."""
    return _rows(sizes, lambda _step, column, _width: range(column - 1, column + 2))


def fft(sizes: Sizes) -> Predecessors:
    """The butterfly: partners at distances 1, 2, 4 and so on."""

    def partners(step: int, column: int, width: int) -> Iterable[int]:
        distance = 1 << (step - 1) % max(1, width.bit_length() - 1)
        return (column - distance, column, column + distance)

    return _rows(sizes, partners)


def dom(sizes: Sizes) -> Predecessors:
    """Each needs its own column and the one on its left: a sweep."""
    return _rows(sizes, lambda _step, column, _width: (column - 1, column))


def nearest(sizes: Sizes) -> Predecessors:
    """Each needs `radix` neighbours."""
    return _rows(sizes, lambda _step, column, _width: _around(column, sizes.radix))


def spread(sizes: Sizes) -> Predecessors:
    """Each needs `radix` tasks, spread over the row and other ones from row to row."""

    def spread_out(step: int, column: int, width: int) -> Iterable[int]:
        return sorted({(column + step + part * width // sizes.radix) % width for part in range(sizes.radix)})

    return _rows(sizes, spread_out)


def random_nearest(sizes: Sizes) -> Predecessors:
    """Each needs its own column and about half of its `radix` neighbours."""
    draw = random.Random(sizes.seed)

    def some(_step: int, column: int, _width: int) -> Iterable[int]:
        return [near for near in _around(column, sizes.radix) if near == column or draw.random() < 0.5]

    return _rows(sizes, some)


def all_to_all(sizes: Sizes) -> Predecessors:
    """Each needs the whole row before."""
    return _rows(sizes, lambda _step, _column, width: range(width), widest=32)


def map_reduce(sizes: Sizes) -> Predecessors:
    """Maps, a shuffle to an eighth as many reducers that each need 16 maps, one task that needs the reducers."""
    maps = max(1, (sizes.tasks - 1) * 8 // 9)
    reducers = max(1, sizes.tasks - 1 - maps)
    needed: Predecessors = [()] * maps
    for reducer in range(reducers):
        needed.append(tuple(sorted({(reducer + part * maps // 16) % maps for part in range(16)})))
    return [*needed, tuple(range(maps, maps + reducers))]


def layered(sizes: Sizes) -> Predecessors:
    """A random graph in layers; few tasks are needed by many, most by few: degrees have a heavy tail."""
    draw = random.Random(sizes.seed)
    width = sizes.row()
    needed: Predecessors = []
    for number in range(sizes.tasks):
        first, end = max(0, (number // width - 3) * width), number // width * width
        degree = min(int(draw.paretovariate(1.2)), 64) if end else 0
        # Small draws are likelier than large ones, so some tasks of a layer are needed by many.
        picks = {first + int((end - first) * draw.random() ** 3) for _ in range(degree)}
        needed.append(tuple(sorted(picks)))
    return needed


def _rows(sizes: Sizes, needs: Callable[[int, int, int], Iterable[int]], widest: int = 100) -> Predecessors:
    """Rows of tasks; `needs(step, column, width)` names columns of the row before; none beyond its ends."""
    width = sizes.row(widest)
    needed: Predecessors = [()] * width
    for step in range(1, max(1, sizes.tasks // width)):
        base = (step - 1) * width
        needed += [
            tuple(base + near for near in needs(step, column, width) if 0 <= near < width) for column in range(width)
        ]
    return needed


def _around(column: int, radix: int) -> range:
    return range(column - radix // 2, column - radix // 2 + radix)


SHAPES: dict[str, Callable[[Sizes], Predecessors]] = {
    shape.__name__: shape
    for shape in (
        independent,
        put,
        chain,
        fan,
        tree,
        trivial,
        stencil_1d,
        fft,
        dom,
        nearest,
        spread,
        random_nearest,
        all_to_all,
        map_reduce,
        layered,
    )
}
