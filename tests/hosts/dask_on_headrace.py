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
DEVIATIONS = {
    "test_from_delayed_iterator": (
        BOTH,
        "a task returns a generator, which only one of the tasks that take it could read; headrace says so",
    ),
    "test_reductions_are_lazy": (PROCESSES, "a generator is part of the graph, and cannot travel"),
    "test_take_npartitions_warn": (PROCESSES, "a task warns, which its worker's standard error tells"),
    "test_to_delayed_optimize_graph": (
        PROCESSES,
        "it counts calls of a function that it has replaced in its own process",
    ),
    "test_repartition_partition_size_complex_dtypes": (PROCESSES, SAME),
    "test_bag_with_single_callable": (PROCESSES, SAME),
    "test_traverse_false": (PROCESSES, SAME),
}

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
        for place, (modes, why) in DEVIATIONS.items():
            if place in item.nodeid and MODE in modes:
                item.add_marker(pytest.mark.xfail(reason=why, strict=True))


def pytest_terminal_summary(terminalreporter):
    terminalreporter.write_line(f"{calls} graphs ran on headrace, mode {MODE}")
