"""The engine of the mode "processes": a broker in a native thread of this process, and its worker processes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from headrace._core import ClientCore, Offer
from headrace.errors import ArgumentNotPicklable, InfraError, UsageError
from headrace.output import Printer
from headrace.runs import Run
from headrace.statistics import LargeResult, RunStatistics, Shared, StoreStatistics, WorkerStatistics

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from headrace.client import Client
    from headrace.graph import Graph
    from headrace.launch import Launch
    from headrace.limits import Lives
    from headrace.output import Log
    from headrace.terms import Terms
    from headrace.why import Why

#: Endpoint, public and secret key, and the public keys of those who may come in, with their roles.
Network: TypeAlias = "tuple[str, str, str, list[tuple[str, str]]]"

#: Largest result in bytes that a task may return. Results lie in this process's memory.
RESULT_BYTES_MAX = 256 << 20


class Brokered:
    """Speaks with a broker."""

    def __init__(self, core: ClientCore) -> None:
        self.core = core
        self.owner: Callable[[], Client | None] = lambda: None
        self.thread: threading.Thread | None = None

    def submit(self, client: Client, graph: Graph, keep: Any, terms: Terms, anew: Graph | None) -> Run:
        """Start a run of a graph; of `anew` in its place, if that is given."""
        return Run(client, self.core, graph, keep, terms, anew)

    def call(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[int, str]:
        """Start a call."""
        return self.core.call(fn, args, kwargs)

    def put(self, value: object) -> tuple[int, str]:
        """Make a value a result."""
        try:
            return self.core.put(value)
        except (UsageError, InfraError, MemoryError):
            raise
        except Exception as error:
            from headrace.pickling import describe_error, explain

            path, reason = explain(value) or ("", describe_error(error))
            at = f"value{path}: " if path else ""
            raise ArgumentNotPicklable(f"put(): {at}{reason}") from error

    def cancel(self, run: int, indices: list[int] | None, spare_leased: bool = False) -> None:
        """Cancel tasks of a run; None: all of them."""
        self.core.cancel(run, indices, spare_leased)

    def statistics(self, run: int) -> RunStatistics | None:
        """Ask the broker; None if it knows nothing of the run any more."""
        state = self.core.query(run)
        if state is None:
            return None
        tasks, (first_lease_ns, elapsed_ns), workers, broker, store, largest, policies, deaths, shared = state
        return RunStatistics(
            *tasks,
            first_lease_ns / 1e9,
            elapsed_ns / 1e9,
            tuple(WorkerStatistics(number, pid, finished, busy / 1e3) for number, pid, finished, busy in workers),
            *broker,
            StoreStatistics(*store, tuple(LargeResult(*result) for result in largest)),
            *policies,
            *deaths,
            tuple(Shared(*thing) for thing in shared),
        )

    def why(self, run: int, index: int, stacks: bool) -> Why | None:
        """Ask the broker where a task is; None if it knows nothing of it any more."""
        from headrace.why import STATES, why

        parts = self.core.why(run, index, stacks)
        if parts is None or STATES[parts[0]] == "unknown":
            return None
        return why("", parts)

    def follow_holds(self) -> None:
        """Do nothing: the broker hears of it."""

    def cancel_all(self, spare_leased: bool = False) -> None:
        """Cancel whatever has not ended."""
        runs, calls = self.core.unfinished()
        for run in [*runs, 0] if calls else runs:
            self.core.cancel(run, None, spare_leased)


class OwnSession(Brokered):
    """The one session of a client, which ends with it. What its tasks print appears here, unless `log` takes it."""

    def __init__(self, core: ClientCore, log: Log | None = None) -> None:
        super().__init__(core)
        self._printer = Printer(core, log)
        self.thread = self._printer.thread

    def stop(self) -> None:
        """End the session, and what was started for it."""
        self.core.close()
        if not self.core.forked:
            self._printer.finish()


class Embedded(OwnSession):
    """Starts the broker and speaks with it.

    Args:
        workers: how many.
        spares: how many more at a time may stand in for those that wait.
        launch: how to start one.
        store_limit: bytes of memory that results may take.
        spill: directory for results beyond that, and the bytes that they may take there.
        lives: how many workers a task may end, and the like.
        offer: what there is for tasks.
        environments: what each worker has in its environment besides.
        is_open: whether the broker takes clients of other processes as well.
        network: where it listens for them beyond this machine.
        places: how many workers of other machines it may have.
        log: what takes the lines that workers and the broker write.
    """

    def __init__(
        self,
        workers: int,
        spares: int,
        launch: Launch,
        store_limit: int,
        spill: tuple[str, int],
        lives: Lives,
        offer: Offer,
        environments: list[list[tuple[str, str]]],
        is_open: bool = False,
        network: Network | None = None,
        places: int = 0,
        log: Log | None = None,
    ) -> None:
        core = ClientCore.embedded(
            workers=workers,
            spares=spares,
            offer=offer,
            worker_environments=environments,
            program=launch.program,
            arguments=launch.arguments,
            environment=launch.environment,
            boot=launch.boot,
            libzmq=launch.libzmq,
            crash_limit=lives.crash_limit,
            oom_limit=lives.oom_limit,
            tasks_max=lives.tasks_max,
            result_bytes_max=RESULT_BYTES_MAX,
            store_limit=store_limit,
            spill_dir=spill[0],
            spill_limit=spill[1],
            grace_s=lives.grace_s,
            is_open=is_open,
            network=network,
            places=places,
        )
        super().__init__(core, log)
