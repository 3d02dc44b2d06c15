"""What runs the tasks of a client: which engine its mode asks for, and how many workers that gets."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Protocol

from headrace.errors import UsageError

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Mapping, Sequence

    from headrace._core import ClientCore
    from headrace.client import Client, Mode
    from headrace.graph import Graph
    from headrace.limits import Lives
    from headrace.runs import Run
    from headrace.statistics import RunStatistics
    from headrace.terms import Terms
    from headrace.why import Why


class Engine(Protocol):
    """What runs the tasks of a client: the embedded broker, or this process itself."""

    core: ClientCore
    #: Gives the client, for tasks that run in its process.
    owner: Callable[[], Client | None]
    #: A thread of its own that is back from native code when `stop` returns.
    thread: threading.Thread | None

    def submit(self, client: Client, graph: Graph, keep: Any, terms: Terms, anew: Graph | None) -> Run:
        """Start a run of a graph; of `anew` in its place, if that is given."""

    def call(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[int, str]:
        """Start a call; give its index within the run of calls, and its key."""

    def put(self, value: object) -> tuple[int, str]:
        """Make a value a result; give its index within the run of calls, and its key."""

    def cancel(self, run: int, indices: list[int] | None, spare_leased: bool = False) -> None:
        """Cancel tasks of a run with all that depends on them; None: every task of the run.

        With `spare_leased`, only those that no worker has got.
        """

    def follow_holds(self) -> None:
        """Let go now of results that were let go of."""

    def cancel_all(self, spare_leased: bool = False) -> None:
        """Cancel whatever has not ended, or what of it no worker has got."""

    def statistics(self, run: int) -> RunStatistics | None:
        """Give a snapshot of a run, if it is known still."""

    def why(self, run: int, index: int, stacks: bool) -> Why | None:
        """Tell where a task of a run is and what it waits for, if anybody knows; its key may be left out."""

    def stop(self) -> None:
        """End at once, whatever still runs."""


def checked_workers(workers: int | None) -> int:
    """Give how many workers there are to be."""
    if workers is None:
        return len(os.sched_getaffinity(0))
    if not isinstance(workers, int) or isinstance(workers, bool):
        raise UsageError(f"workers takes a number, not {workers!r}")
    if not 1 <= workers <= WORKERS_MAX:
        raise UsageError(f"workers takes a number from 1 to {WORKERS_MAX:,}, not {workers}")
    return workers


#: More than any machine has cores; the kernel counts workers in 16 bits.
WORKERS_MAX = 4_096


def checked_extra(extra: int | None, workers: int, mode: Mode) -> int:
    """Give how many there may be beside them."""
    if extra is not None and mode != "processes":
        raise UsageError("extra_workers is for worker processes; this mode runs tasks in this process")
    if extra is None:
        return min(len(os.sched_getaffinity(0)), WORKERS_MAX - workers)
    if not isinstance(extra, int) or isinstance(extra, bool) or not 0 <= extra <= WORKERS_MAX - workers:
        raise UsageError(
            f"extra_workers takes a number from 0 on, at most {WORKERS_MAX:,} together with workers, not {extra!r}"
        )
    return extra


def start_engine(
    mode: Mode,
    workers: int,
    spares: int,
    preload: Sequence[str],
    setup: Callable[[], object] | None,
    env: Mapping[str, str] | None,
    store_limit: int | None,
    spill: tuple[str | os.PathLike[str] | None, int | None],
    lives: Lives,
    resources: Mapping[str, object] | None,
    limits: Mapping[str, int] | None,
) -> Engine:
    """Start the engine of a mode."""
    from headrace.resources import offered

    processes = mode == "processes"
    offer, environments = offered(resources, limits, workers=workers, spares=spares, processes=processes, env=env)
    if mode == "processes":
        from headrace.embedded import Embedded
        from headrace.launch import prepare
        from headrace.limits import checked_bytes, default_store_limit, spill_place

        store_limit = default_store_limit() if store_limit is None else checked_bytes("store_limit", store_limit)
        place = spill_place(*spill)
        launch = prepare(preload, setup, env)
        return Embedded(workers, spares, launch, store_limit, place, lives, offer, environments)
    if mode in ("threads", "sync"):
        from headrace.local import Local

        if lives.tasks_max is not None:
            raise UsageError("max_tasks_per_worker is for worker processes; this mode runs tasks in this process")
        return Local(workers, mode == "threads", preload, setup, env, offer)
    raise UsageError(f"mode takes 'processes', 'threads' or 'sync', not {mode!r}")
