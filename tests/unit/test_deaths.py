"""The words for tasks that ended their workers."""

import pickle

from headrace import errors
from headrace.deaths import CRASHED, OUT_OF_MEMORY, SILENT, WorkerDeath, died, signal_name

KILLED = (2, 4711, 9, 0, CRASHED)
NO_MEMORY = (0, 0, 0)
GIB = 1 << 30


def test_a_death_tells_who_where_and_how():
    error = died("fit-17", 1, 1, CRASHED, b"loading\nTerminated\n", NO_MEMORY, (2, 4711, 15, 0, CRASHED), [])
    assert str(error) == (
        "task 'fit-17' (attempt 1/1) was running in worker 2 (pid 4711) which was killed by SIGTERM; the last lines of "
        "its standard error:\n    loading\n    Terminated"
    )
    assert type(error) is errors.WorkerDied
    assert (error.key, error.worker, error.pid, error.signal, error.exit_code) == ("fit-17", 2, 4711, 15, None)
    assert error.deaths == (WorkerDeath(2, 4711, 15, None, "crashed"),)
    assert pickle.loads(pickle.dumps(error)).deaths == error.deaths


def test_a_poison_task_lists_its_deaths():
    rows = [(0, 70, 11, 0, CRASHED), (1, 71, 0, 3, CRASHED), (1, 72, 9, 0, SILENT), (0, 73, 0, -1, CRASHED)]
    error = died("fit-17", 3, 3, CRASHED, b"", NO_MEMORY, rows[-1], rows)
    assert type(error) is errors.PoisonTask
    assert str(error) == (
        "task 'fit-17' (attempt 3/3) was running in worker 0 (pid 73) which ended; its deaths: "
        "worker 0 (pid 70) was killed by SIGSEGV, worker 1 (pid 71) exited with code 3, "
        "worker 1 (pid 72) did not answer and was killed, worker 0 (pid 73) ended"
    )
    assert [death.cause for death in error.deaths] == ["crashed", "crashed", "silent", "crashed"]


def test_a_sigkill_of_unknown_origin_comes_with_a_hint():
    error = died("fit-17", 1, 1, CRASHED, b"", NO_MEMORY, KILLED, [KILLED])
    assert str(error).endswith(
        "which was killed by SIGKILL; nothing tells who sent SIGKILL: often it is the kernel's OOM killer, where no "
        "memory control group counts its kills"
    )


def test_want_of_memory_says_who_shares_it():
    row = (2, 4711, 9, 0, OUT_OF_MEMORY)
    error = died("fit-17", 1, 1, OUT_OF_MEMORY, b"", (4 * GIB, 3 * GIB + (GIB >> 1), 14), row, [row])
    assert type(error) is errors.WorkerOOM
    assert isinstance(error, MemoryError)
    assert str(error) == (
        "task 'fit-17' (attempt 1/1) was running in worker 2 (pid 4711) which was killed by SIGKILL: the kernel's OOM "
        "killer was active in the control group that this worker shares with 14 other processes "
        "(the group may take 4.00 GiB, the worker took 3.50 GiB at most)"
    )
    assert str(error.deaths[0]) == "worker 2 (pid 4711) was killed by SIGKILL for want of memory"
    alone = died("fit-17", 1, 1, OUT_OF_MEMORY, b"", (0, 300 << 20, 0), row, [row])
    assert str(alone).endswith(
        "killer was active in the control group of this worker (the worker took 300 MiB at most)"
    )
    unknown = died("fit-17", 1, 1, OUT_OF_MEMORY, b"", (0, 0, 1), row, [row])
    assert str(unknown).endswith("shares with 1 other process")


def test_silence_is_no_crash():
    row = (0, 4711, 9, 0, SILENT)
    error = died("fit-17", 10, 10, SILENT, b"", NO_MEMORY, row, [row] * 10)
    assert type(error) is errors.WorkerLost
    assert not isinstance(error, errors.WorkerDied)
    assert "(attempt 10/10) was running in worker 0 (pid 4711) which did not answer any more" in str(error)
    assert (error.key, error.worker, error.attempts, len(error.deaths)) == ("fit-17", 0, 10, 10)


def test_signals_have_names():
    assert signal_name(11) == "SIGSEGV"
    assert signal_name(250) == "signal 250"
