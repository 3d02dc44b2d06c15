"""What does a generated pipeline of Kedro take in processes, beside Kedro's own parallel runner?

The nodes do nothing, so this is the runners' own share, and that of Kedro's catalog, a process that holds the datasets,
which both use. `HEADRACE_KEDRO_NODES=1000` asks for a pipeline that takes Kedro's own runner minutes.
"""

import logging
import os
import time

import pytest

pytest.importorskip("kedro", reason="kedro is not installed: pip install '.[kedro]'")

from kedro.io import MemoryDataset, SharedMemoryDataCatalog
from kedro.pipeline import node, pipeline
from kedro.runner import ParallelRunner

from figures import Figure
from headrace.integrations.kedro import HeadraceParallelRunner

NODES = int(os.environ.get("HEADRACE_KEDRO_NODES", "200"))
WIDTH = 20


def follow(*numbers):
    return max(numbers) + 1


def layers():
    """Rows of nodes, each with two inputs of the row before."""
    nodes = []
    for number in range(NODES):
        row, column = divmod(number, WIDTH)
        inputs = [f"x{row}_{column}", f"x{row}_{(column + 1) % WIDTH}"]
        nodes.append(node(follow, inputs, f"x{row + 1}_{column}", name=f"n{row}_{column}"))
    return pipeline(nodes)


def seconds_of(kind):
    logging.disable(logging.WARNING)
    steps = layers()
    catalog = SharedMemoryDataCatalog({f"x0_{column}": MemoryDataset(0) for column in range(WIDTH)})
    runner = kind(max_workers=2)
    start = time.perf_counter()
    outputs = runner.run(steps, catalog)
    elapsed_s = time.perf_counter() - start
    rows = NODES // WIDTH
    assert {data.load() for data in outputs.values()} == {rows}
    logging.disable(logging.NOTSET)
    return elapsed_s


def test_a_generated_pipeline(record):
    seconds_of(HeadraceParallelRunner)
    ours_s, theirs_s = seconds_of(HeadraceParallelRunner), seconds_of(ParallelRunner)
    record(
        Figure(
            f"Kedro: a pipeline of {NODES:,} nodes that do nothing, in processes",
            f"{ours_s:.3g} s",
            f"ParallelRunner {theirs_s:.4g} s",
            score=theirs_s / ours_s,
            unit="×",
            bar=1,
            aim=None,
            at_least=True,
            samples=[ours_s],
        )
    )
