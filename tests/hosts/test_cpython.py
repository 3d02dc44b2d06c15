"""CPython's own tests of executors, with ours in the place of the standard library's."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from suites import cpython_tests

SUITE = Path(__file__).with_name("cpython_futures.py")


@pytest.mark.timeout(300)
def test_cpythons_tests_of_executors_pass(request):
    suite = cpython_tests(request.config.cache.mkdir("hosts"), "test_concurrent_futures.py")
    done = subprocess.run(
        [sys.executable, str(SUITE)],
        env=os.environ | {"PYTHONPATH": str(suite)},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-20_000:]
    assert int(re.search(r"Ran (\d+) tests", done.stderr)[1]) >= 80, done.stderr[-2_000:]
