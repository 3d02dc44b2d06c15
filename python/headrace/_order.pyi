"""The part of `headrace._core` that orders tasks; it is no module of its own at run time."""

from collections.abc import Callable, Iterable
from typing import TypeVar, overload

_T = TypeVar("_T")

@overload
def depth_first(
    needs: Callable[[_T], Iterable[_T] | None], wanted: Iterable[_T], /, *, levels: None = None
) -> list[_T]:
    """Order tasks so that each comes behind what it needs, and few results are alive at a time.

    Of several such orders it is the one in which the least is alive, if the kernel runs them one by one: depth first;
    depth first, and of what a task needs first that whose own needs take the most room; on with what is nearest to the
    results that are there.

    Args:
        needs: gives what a task needs, in the order that decides where nothing else does; None for what is there
            already, and is no part of the order.
        wanted: the tasks whose results are wanted.
        levels: give a priority to each task, of so many at most, where it is better to let some wait that are ready.

    Returns:
        The tasks; with `levels` pairs of a task and its priority, which is 0 or less.

    Raises:
        GraphError: tasks need each other in a cycle (it is named).

    Cost: linear in the tasks and what they need; about a microsecond a task, and the calls of `needs`.
    """

@overload
def depth_first(
    needs: Callable[[_T], Iterable[_T] | None], wanted: Iterable[_T], /, *, levels: int
) -> list[tuple[_T, int]]: ...
