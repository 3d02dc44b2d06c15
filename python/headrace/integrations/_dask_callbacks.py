"""Dask's callbacks, such as its progress bar, told of a run of headrace."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import headrace


def follow(run: headrace.Run, keys: Sequence[Any], tasks: Any, callbacks: Iterable[Any]) -> None:
    """Tell callbacks of each task as it ends, with its value: all of them must be kept.

    A callback is a tuple of functions, or None: start, start_state, pretask, posttask, finish. They are called as
    `dask.local.get_async` does, but that the end of a task is the first that is known of it.
    """
    starts, starts_state, befores, afters, finishes = ([f for f in row if f] for row in zip(*callbacks, strict=True))
    state: dict[str, Any] = {
        "dependencies": {key: tasks[key].dependencies for key in keys},
        "waiting": dict.fromkeys(keys),
        "ready": [],
        "running": set(),
        "finished": set(),
        "cache": {},
    }
    for tell in starts:
        tell(tasks)
    failed = True
    try:
        for tell in starts_state:
            tell(tasks, state)
        for node, value in run.as_completed(errors="return"):
            if isinstance(value, BaseException):
                break
            key = keys[node.index]
            del state["waiting"][key]
            state["running"].add(key)
            for tell in befores:
                tell(key, tasks, state)
            state["running"].remove(key)
            state["finished"].add(key)
            state["cache"][key] = value
            for tell in afters:
                tell(key, value, tasks, state, "headrace")
        failed = bool(state["waiting"])
    finally:
        for tell in finishes:
            tell(tasks, state, failed)
