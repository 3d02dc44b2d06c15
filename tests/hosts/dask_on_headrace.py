"""A plugin for pytest: Dask's own tests run on headrace, whatever local scheduler they ask for.

    HEADRACE_MODE=threads python -m pytest -p dask_on_headrace .../site-packages/dask/bag/tests

What deviates by design is expected to fail, and must (`DEVIATIONS`).
"""

import os

import pytest

from headrace.integrations.dask import DaskClient

MODE = os.environ.get("HEADRACE_MODE", "threads")

#: Tests that fail by design, in which modes, and why.
BOTH, PROCESSES = ("threads", "processes"), ("processes",)
SAME = "it looks for the very object that it has put in, which a process cannot give back"
STORES = "it stores into an array of its own process, which tasks in others do not reach"
LOCKS = "its lock, or what counts its locks, belongs to its own process"
LOOKS = "it looks at what tasks have done to an object of its own process"
WARNS = "a task warns, which its worker's standard error tells"
DEVIATIONS = {
    "test_from_delayed_iterator": (
        BOTH,
        "a task returns a generator, which only one of the tasks that take it could read; headrace says so",
    ),
    "test_reductions_are_lazy": (PROCESSES, "a generator is part of the graph, and cannot travel"),
    **dict.fromkeys(
        [
            "test_array_cumreduction_axis[blelloch-None-False-cumprod]",
            "test_array_cumreduction_axis[blelloch-None-False-nancumprod]",
            "test_array_cumreduction_axis[blelloch-None-True-cumprod]",
            "test_array_cumreduction_axis[blelloch-None-True-nancumprod]",
            "test_average_raises",
            "test_collection.py::test_head",
            "test_full_detects_da_dtype",
            "test_head_npartitions_warn",
            "test_take_npartitions_warn",
        ],
        (PROCESSES, WARNS),
    ),
    "test_disk_shuffle_with_unknown_compression": (
        PROCESSES,
        "it sets Dask's configuration in its own process",
    ),
    "test_use_of_weakref_proxy": (PROCESSES, "a task returns a weakref.proxy, which cannot be pickled"),
    "test_frompyfunc": (PROCESSES, "numpy's ufunc of a Python function cannot be pickled"),
    "test_bag.py::test_to_delayed_optimize_graph": (PROCESSES, LOOKS),
    "test_from_map_column_projection": (PROCESSES, LOOKS),
    "test_repartition_partition_size_complex_dtypes": (PROCESSES, SAME),
    "test_bag_with_single_callable": (PROCESSES, SAME),
    "test_register_extension_type": (PROCESSES, SAME),  # the context of its decimals, which knows no equals
    "test_traverse_false": (PROCESSES, SAME),
    **dict.fromkeys(
        [
            "test_memmap",
            "test_store",
            "test_store_compute_false",
            "test_store_delayed_target",
            "test_store_regions",
            "test_store_sources_unoptimized_nocompute",
        ],
        (PROCESSES, STORES),
    ),
    **dict.fromkeys(
        [
            "test_from_array_with_lock",
            "test_store_locks_count_calls",
            "test_store_locks_dont_assume_threadsafe",
            "test_store_locks_failure_lock_released",
            "test_store_locks_no_lock",
            "test_store_locks_one_lock_two_stores",
        ],
        (PROCESSES, LOCKS),
    ),
    "test_fusion_executes_only_once": (PROCESSES, LOOKS),
    "test_from_array_getitem[True-True]": (PROCESSES, LOOKS),
    "test_from_array_getitem[False-True]": (PROCESSES, LOOKS),
}

#: Those among them that end the whole process where they fail: this one shows an array whose file it has closed.
NOT_RUN = {"test_memmap"}

#: Of how many calls of our scheduler the end of the session tells.
calls = 0


@pytest.fixture(scope="session", autouse=True)
def scheduler():
    import dask.base

    client = DaskClient(workers=2, mode=MODE)

    def get(dsk, keys, **kwargs):
        global calls
        calls += 1
        return client.get(dsk, keys, **kwargs)

    names = dask.base.named_schedulers
    local = {
        name: names[name] for name in ("sync", "synchronous", "single-threaded", "threads", "threading", "processes")
    }
    names.update(dict.fromkeys(local, get))
    with dask.config.set(scheduler=get):
        yield
    names.update(local)
    client.close()


def pytest_collection_modifyitems(items):
    for item in items:
        for name in {item.name, item.originalname, f"{item.path.name}::{item.originalname}"} & DEVIATIONS.keys():
            modes, why = DEVIATIONS[name]
            if MODE in modes:
                item.add_marker(pytest.mark.xfail(reason=why, strict=True, run=name not in NOT_RUN))


def pytest_terminal_summary(terminalreporter):
    terminalreporter.write_line(f"{calls} graphs ran on headrace, mode {MODE}")
