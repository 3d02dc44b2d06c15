"""What to raise for a task that ended its workers, and in which words.

Three kinds of deaths are told apart, and each has a limit of its own: the process crashed, the kernel killed it for
want of memory, or it fell silent and the broker killed it.
"""

from __future__ import annotations

from typing import NamedTuple

from headrace.errors import InfraError, PoisonTask, WorkerDied, WorkerLost, WorkerOOM

#: Kinds of deaths by their number on the wire.
CRASHED, OUT_OF_MEMORY, SILENT = 0, 1, 2

#: What to say where nothing is known of the sender.
_WHO_KILLS = (
    "; nothing tells who sent SIGKILL: often it is the kernel's OOM killer, "
    "where no memory control group counts its kills"
)


class WorkerDeath(NamedTuple):
    """The end of a worker process while a task was executing in it."""

    worker: int
    """Number of the worker."""
    pid: int
    """Its process id."""
    signal: int | None
    """The signal that ended it, if one did."""
    exit_code: int | None
    """Its exit code, if no signal ended it; -1 if it is not known."""
    cause: str
    """`crashed`, `out of memory` or `silent`."""

    def __str__(self) -> str:
        why = " for want of memory" if self.cause == "out of memory" else ""
        return f"worker {self.worker} (pid {self.pid}) {_how(self)}{why}"


#: One death as it travels: worker, pid, signal, exit code, kind.
_Row = tuple[int, int, int, int, int]


def died(
    key: str,
    attempts: int,
    limit: int,
    cause: int,
    stderr: bytes,
    memory: tuple[int, int, int],
    last: _Row,
    rows: list[_Row],
) -> InfraError:
    """Give the error for a task that ended its worker as often as it may.

    Args:
        key: the task.
        attempts: its executing deaths of the kind that is its end.
        limit: how many of them there may be.
        cause: the kind.
        stderr: the end of the last worker's standard error.
        memory: limit of the control group, peak of the worker, other processes in the group; 0 for what is not known.
        last: the last death.
        rows: every one, of any kind.
    """
    deaths = tuple(map(_death, rows)) or (_death(last),)
    end = _death(last)
    where = f"task {key!r} (attempt {attempts}/{limit}) was running in worker {end.worker} (pid {end.pid})"
    tail = stderr.decode(errors="replace").strip("\n")
    words = (
        "; the last lines of its standard error:\n" + "\n".join(f"    {line}" for line in tail.split("\n"))
        if tail
        else ""
    )
    if cause == SILENT:
        text = f"{where} which did not answer any more, and was killed: it was stopped, or its machine stood still"
        return WorkerLost(text + words, key=key, worker=end.worker, pid=end.pid, attempts=attempts, deaths=deaths)
    kind, text = WorkerDied, f"{where} which {_how(end)}"
    if cause == OUT_OF_MEMORY:
        kind, text = WorkerOOM, f"{text}: {_shortage(*memory)}"
    elif limit > 1 and attempts >= limit:
        kind, text = PoisonTask, f"{text}; its deaths: {', '.join(map(str, deaths))}"
    if cause == CRASHED and end.signal == _SIGKILL:
        text += _WHO_KILLS
    return kind(
        text + words,
        key=key,
        worker=end.worker,
        pid=end.pid,
        signal=end.signal,
        exit_code=end.exit_code,
        attempts=attempts,
        stderr=tail,
        deaths=deaths,
    )


def signal_name(number: int) -> str:
    """Give a signal's name, such as SIGKILL."""
    from signal import Signals

    try:
        return Signals(number).name
    except ValueError:
        return f"signal {number}"


_SIGKILL = 9


def _death(row: _Row) -> WorkerDeath:
    worker, pid, signal, exit_code, cause = row
    name = {OUT_OF_MEMORY: "out of memory", SILENT: "silent"}.get(cause, "crashed")
    return WorkerDeath(worker, pid, signal or None, None if signal else exit_code, name)


def _how(death: WorkerDeath) -> str:
    if death.cause == "silent":
        return "did not answer and was killed"
    if death.signal is not None:
        return f"was killed by {signal_name(death.signal)}"
    return "ended" if death.exit_code == -1 else f"exited with code {death.exit_code}"


def _shortage(limit: int, peak: int, others: int) -> str:
    shared = f"the control group that this worker shares with {others:,} other process{'es' * (others != 1)}"
    text = f"the kernel's OOM killer was active in {shared if others else 'the control group of this worker'}"
    figures = [f"the group may take {_gib(limit)}"] * bool(limit) + [f"the worker took {_gib(peak)} at most"] * bool(
        peak
    )
    return text + (f" ({', '.join(figures)})" if figures else "")


def _gib(size: int) -> str:
    return f"{size / (1 << 30):.2f} GiB" if size >= 1 << 30 else f"{size / (1 << 20):.0f} MiB"
