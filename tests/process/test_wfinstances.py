"""Real workflow traces: every dependency is respected, and no makespan beats its lower bounds.

How near it comes to them is a question for bench/test_workflow_makespan.py.

The traces are WfInstances' (https://github.com/wfcommons/WfInstances, LGPL-3) and do not come with headrace.
"""

import gzip
import hashlib
import json
import os
from pathlib import Path

import pytest

import headrace
from headrace.cli import workflow
from headrace.formats.wfformat import read

DEFAULT = Path(__file__).parents[3] / "shared" / "data" / "wfinstances"
FOLDER = Path(os.environ.get("HEADRACE_WFINSTANCES", DEFAULT))
TRACES = sorted(FOLDER.glob("*.json.gz"))
WORKERS = 2
SCALED_MAKESPAN_S = 0.5
"""The time scale is chosen so that the lower bound is this long: a task of it takes about a millisecond."""

pytestmark = pytest.mark.skipif(
    not TRACES, reason=f"no traces in {FOLDER}; put WfInstances there or name their folder in HEADRACE_WFINSTANCES"
)
each_trace = pytest.mark.parametrize("path", TRACES, ids=lambda path: path.name.split("-")[0])


@pytest.fixture(scope="module")
def client():
    with headrace.Client(workers=WORKERS) as client:
        yield client


def document(path):
    """The trace as its tasks by id, read without headrace's reader."""
    specified = json.loads(gzip.decompress(path.read_bytes()))["workflow"]["specification"]["tasks"]
    return {task["id"]: task for task in specified}


def hashes(tasks):
    """The hash of every task over its parents' hashes, computed recursively and without headrace."""
    found = {}

    def visit(name):
        if name not in found:
            parents = [visit(parent) for parent in tasks[name]["parents"]]
            found[name] = hashlib.blake2b("\n".join([name, *parents]).encode(), digest_size=16).hexdigest()
        return found[name]

    for name in tasks:
        visit(name)
    return found


@each_trace
def test_every_task_ran_after_its_parents(client, path):
    tasks = document(path)
    graph = headrace.Graph.from_wfformat(path)
    assert len(graph) == len(tasks)
    run = client.submit(graph, keep=list(tasks))
    assert run.wait(timeout=30)
    assert {name: run.result(name) for name in tasks} == hashes(tasks)
    state = run.statistics()
    assert (state.done, state.progress.ended) == (len(tasks), len(tasks))


@each_trace
def test_inputs_come_from_parents(path):
    tasks = document(path)
    writers = {file: name for name, task in tasks.items() for file in task.get("outputFiles", ())}
    for name, recorded in read(path).items():
        needed = {writers[file] for file in tasks[name].get("inputFiles", ()) if file in writers} - {name}
        assert needed <= set(recorded.parents)


@each_trace
def test_the_makespan_keeps_to_its_lower_bounds(client, path):
    flow = read(path)
    bound_s = max(workflow.critical_path_s(flow), workflow.work_s(flow) / WORKERS)
    graph = headrace.Graph.from_wfformat(path, time_scale=SCALED_MAKESPAN_S / bound_s)
    run = client.submit(graph, keep=list(flow))
    assert run.wait(timeout=30)
    assert run.results() == list(workflow.sequentially(flow).values())
    assert run.statistics().elapsed_s >= SCALED_MAKESPAN_S, "no schedule beats the bound"
