"""How long do `import headrace` and the way to the first result take, in a fresh process?"""

import statistics
import subprocess
import sys

import pytest

from figures import at_most
from repository import REPOSITORY

IMPORT = "import time; t = time.perf_counter(); import headrace; print(time.perf_counter() - t)"
FIRST_RESULT = """
import time
start = time.perf_counter()
import headrace
with headrace.Client(workers=2) as client:
    value = client.call(pow, 2, 10).result()
    elapsed = time.perf_counter() - start
assert value == 1024
print(elapsed)
"""
BOTH_WORKERS = """
import time
start = time.perf_counter()
import headrace, operator
with headrace.Client(workers=2) as client:
    graph = headrace.Graph()
    nodes = [graph.add(headrace.task(operator.neg, worker=worker), worker) for worker in (0, 1)]
    values = client.submit(graph).results()
    elapsed = time.perf_counter() - start
assert values == [0, -1]
print(elapsed)
"""


@pytest.mark.quick
def test_import(rounds, record):
    samples = [printed_ms(IMPORT) for _ in range(rounds)]
    record(at_most("import headrace", samples, "ms", bar=60))


@pytest.mark.quick
def test_import_to_first_result(rounds, record):
    both, samples = [], []
    for _ in range(rounds):
        samples.append(printed_ms(FIRST_RESULT))
        both.append(printed_ms(BOTH_WORKERS))
    detail = f"a result from each of the two workers: {statistics.median(both):.0f} ms"
    record(at_most("import to first result, 2 workers", samples, "ms", bar=400, detail=detail))


def printed_ms(script):
    """Milliseconds that the script measured itself, in a fresh interpreter."""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    return float(run.stdout) * 1e3
