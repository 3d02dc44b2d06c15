"""CPython's own tests of executors, pointed at `headrace.Executor`: `python cpython_futures.py [-v] [TEST ...]`.

CPython's `test` package must be on the path. A class of tests is made for each mode and each group of tests; what
deviates is expected to fail, and must.
"""

import os
import sys
import unittest

from test import test_concurrent_futures as suite

import headrace

#: Tests that fail by design, and why.
DEVIATIONS = {
    "ProcessesFailingInitializerTest.test_initializer": (
        "the test hands a multiprocessing queue to the initializer, which only children of multiprocessing can take; "
        "test_executor.py tests the same without one"
    ),
}


class ThreadsExecutor(headrace.Executor):
    """The scripts in the tests find it by its name."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, mode="threads", **kwargs)


class ProcessesExecutor(headrace.Executor):
    """The same."""


class ThreadsMixin(suite.ExecutorMixin):
    executor_type = ThreadsExecutor


class ProcessesMixin(suite.ExecutorMixin):
    executor_type = ProcessesExecutor


def run_script(*args):
    """Run a script of a test, which takes its executor from the standard library, with ours."""
    *options, script = args
    path = os.pathsep.join([os.path.dirname(__file__), os.environ["PYTHONPATH"]])
    script = script.replace("from concurrent.futures import", f"from {MODULE} import")
    return assert_python_ok(*options, script, __isolated=False, PYTHONPATH=path)


MODULE = os.path.splitext(os.path.basename(__file__))[0]
assert_python_ok, suite.assert_python_ok = suite.assert_python_ok, run_script

GROUPS = {
    "Initializer": suite.InitializerMixin,
    "FailingInitializer": suite.FailingInitializerMixin,
    "Wait": suite.WaitTests,
    "AsCompleted": suite.AsCompletedTests,
    "Executor": suite.ExecutorTest,
    "Shutdown": suite.ExecutorShutdownTest,
}

for mixin in (ThreadsMixin, ProcessesMixin):
    for group, tests in GROUPS.items():
        name = f"{mixin.__name__.removesuffix('Mixin')}{group}Test"
        globals()[name] = type(name, (tests, mixin, suite.BaseTestCase), {"__module__": __name__})

FutureTests = suite.FutureTests


def expect_failure(place):
    """Have a test fail, and only where it is inherited by this class."""
    name, test = place.split(".")
    inherited = getattr(globals()[name], test)
    setattr(globals()[name], test, unittest.expectedFailure(lambda self: inherited(self)))


if __name__ == "__main__":
    for place in DEVIATIONS:
        expect_failure(place)
    unittest.main(argv=sys.argv)
